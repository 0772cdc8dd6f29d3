"""What a map says of a pixel: what its windows say, and nothing where there are no data."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from example_scenes import ArrayScene, make_job, map_scene
from numpy.typing import NDArray

from biomassters.mapping.job import Mapper
from biomassters.params.map_sections import MapParams
from biomassters.scenes.grid import Box, Grid
from biomassters.store.bands import CLP, S1_STORED_NODATA, S2_STORED_NODATA

CPU = torch.device("cpu")
STRIDE = 48
GRID = Grid("EPSG:3067", 10.0, Box(-688_700, 44_800, 150, 230))


def draw_hole(scene: ArrayScene, rows: slice, columns: slice) -> None:
    scene.pixels.s1[..., rows, columns] = S1_STORED_NODATA
    scene.pixels.s2[..., rows, columns] = S2_STORED_NODATA


def test_map_of_a_chip_is_its_prediction_where_no_other_window_sees(tmp_path: Path) -> None:
    on_lattice = Box(-300 * STRIDE, 100 * STRIDE, 64, 64)
    scene, job = ArrayScene(Grid("EPSG:3067", 10.0, on_lattice)), make_job(tmp_path)
    mapper = Mapper(job, scene, CPU)
    (agbm,) = map_scene(job, scene)
    (prediction,) = mapper.blocks.predict_batch(mapper.blocks.make_batch([scene.pixels]))[0]
    inside = slice(16, 48)
    np.testing.assert_allclose(agbm[inside, inside], prediction[inside, inside], rtol=1e-6)
    assert not np.allclose(agbm[:16], prediction[:16], rtol=1e-3)


def test_nodata_are_where_no_input_is_valid_and_nowhere_else(tmp_path: Path) -> None:
    scene = ArrayScene(GRID)
    hole = (slice(60, 71), slice(100, 133))
    draw_hole(scene, *hole)
    scene.pixels.s2[2, CLP, 65, 110] = 40  # a cloud probability alone is no measurement
    scene.pixels.s1[7, 1, 66, 111] = -1500  # one band of one month is one
    (agbm,) = map_scene(make_job(tmp_path), scene)
    expected = np.zeros(GRID.extent.shape, bool)
    expected[hole] = True
    expected[66, 111] = False
    assert (np.isnan(agbm) == expected).all()


def test_hole_changes_nothing_beyond_the_windows_that_see_it(tmp_path: Path) -> None:
    whole, holed = ArrayScene(GRID), ArrayScene(GRID, identity="holed")
    draw_hole(holed, slice(60, 71), slice(100, 103))
    job = make_job(tmp_path)
    (one,), (other,) = (
        map_scene(replace(job, folder=tmp_path / scene.identity), scene) for scene in (whole, holed)
    )
    same = one == other
    rows, columns = np.nonzero(~same)
    assert 100 - columns.min() < 64
    assert columns.max() - 102 < 64
    assert same[:, :37].all()
    assert same[:, 167:].all()
    assert not same[60:71, 90:110].all()
    assert rows.min() >= 0


def test_scene_of_nothing_is_all_nodata(tmp_path: Path) -> None:
    scene = ArrayScene(Grid("EPSG:3067", 10.0, Box(-688_700, 44_800, 40, 40)))
    draw_hole(scene, slice(None), slice(None))
    job = make_job(tmp_path)
    (agbm,) = map_scene(job, scene)
    assert np.isnan(agbm).all()
    assert map_scene(job, scene, n_made=0).shape == (1, 40, 40)


def measure_steps(agbm: NDArray[np.float32]) -> tuple[float, float]:
    """Return the mean step from column to column where windows begin or end, and elsewhere."""
    steps = np.abs(np.diff(agbm.astype(np.float64), axis=1)).mean(axis=0)
    column = GRID.extent.column + 1 + np.arange(len(steps))
    border = np.isin(column % STRIDE, (0, 16)) if STRIDE == 48 else column % 64 == 0
    return float(steps[border].mean()), float(steps[~border].mean())


def test_no_border_of_a_window_shows(tmp_path: Path) -> None:
    scene, job = ArrayScene(GRID), make_job(tmp_path)
    at_borders, inside = measure_steps(map_scene(job, scene)[0])
    assert at_borders < 1.1 * inside
    # Without an overlap they do: a check that can fail.
    hard = replace(job, map=MapParams(overlap=0.0, tta="none"), folder=tmp_path / "hard")
    steps = np.abs(np.diff(map_scene(hard, scene)[0].astype(np.float64), axis=1)).mean(axis=0)
    at_seam = (GRID.extent.column + 1 + np.arange(len(steps))) % 64 == 0
    assert steps[at_seam].mean() > 1.5 * steps[~at_seam].mean()


def test_who_sees_more_counts_more_at_the_edge_of_the_data(tmp_path: Path) -> None:
    scene = ArrayScene(Grid("EPSG:3067", 10.0, Box(0, 0, 64, 112)))
    draw_hole(scene, slice(None), slice(70, None))
    mapper = Mapper(make_job(tmp_path), scene, CPU)
    box = mapper.job.windows.block_box((0, 0))
    sums = mapper.blocks.predict(mapper.blocks.prepare((0, 0), scene.read(box), box))
    first, second = (64 * 64) / 64**2, (64 * (70 - 48)) / 64**2
    rise = np.sin(np.pi / 2 * 0.5 / 16) ** 2
    # Column 48: the last of the first window's middle, and the first of the second window.
    assert sums.weights[30, 47] == pytest.approx(first)
    assert sums.weights[30, 48] == pytest.approx(first * (1 - rise) + second * rise)


@pytest.mark.parametrize("engine", ["torch", "auto"])
@pytest.mark.parametrize("head", ["mean", "quantiles"])
def test_heads_and_engines_give_ordered_bounds(tmp_path: Path, engine: str, head: str) -> None:
    scene = ArrayScene(Grid("EPSG:3067", 10.0, Box(-688_700, 44_800, 40, 40)))
    job = make_job(tmp_path, head=head)
    job = replace(job, predict=job.predict.model_copy(update={"engine": engine}))
    mapper = Mapper(job, scene, CPU)
    pixels = scene.read(Box(-688_700, 44_800, 64, 64))
    (window,) = mapper.blocks.predict_batch(mapper.blocks.make_batch([pixels]))
    assert window.shape == ((3 if head == "quantiles" else 1), 64, 64)
    if head == "quantiles":
        assert (np.diff(window, axis=0) >= 0).all()
    (agbm,) = map_scene(job, scene)
    assert np.isfinite(agbm).all()
