"""Boxes of rasters: exact values, whatever box, mosaics and absent data."""

import numpy as np
import pytest
from raster_examples import (
    lay_grid,
    open_scene,
    simulate_pixels,
    write_months,
)

from biomassters.scenes.grid import Box
from biomassters.store.bands import BANDS, S1_STORED_NODATA, S2_STORED_NODATA


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A scene of simulated pixels: its scene, its pixels, its folder and its YAML."""
    folder = tmp_path_factory.mktemp("rasters")
    pixels = simulate_pixels("rasters", 96)
    pixels.s1[3, 2:] = S1_STORED_NODATA  # an orbit that did not pass
    pixels.s1[4, 0, :40, :9] = S1_STORED_NODATA
    pixels.s2[11, :, 30:50, 60:] = S2_STORED_NODATA
    document = write_months(folder, pixels, lay_grid(96))
    return open_scene(document, folder, check=True), pixels, folder, document


def test_written_pixels_are_read_back_exactly(written) -> None:
    scene, pixels, _, _ = written
    read = scene.read(scene.grid.extent)
    assert np.array_equal(read.s1, pixels.s1)
    assert np.array_equal(read.s2, pixels.s2)
    assert (pixels.s1 == S1_STORED_NODATA).any()
    assert scene.bands == BANDS
    assert scene.period == ("2020-09-01", "2021-08-31")


def test_what_lies_beyond_the_scene_is_nodata(written) -> None:
    scene, pixels, _, _ = written
    box = scene.grid.extent.grow(5)
    read = scene.read(box)
    place = scene.grid.extent.within(box)
    assert np.array_equal(read.cut(*place).s2, pixels.s2)
    assert (read.s1[..., :5, :] == S1_STORED_NODATA).all()
    assert (read.s2[..., -5:] == S2_STORED_NODATA).all()
    assert not scene.read(Box(0, 0, 3, 4)).find_valid().any()
