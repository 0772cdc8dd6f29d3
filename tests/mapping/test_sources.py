"""Maps of real scenes: of rasters as of what they were written from, and through faults."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_scenes import make, make_job, read_map
from raster_examples import QUICK, describe_scene, open_scene, write_months
from raster_server import Fault, serve_folder
from ruamel.yaml import YAML

from biomassters.errors import UnreadableRasterError
from biomassters.mapping.layout import list_tiles
from biomassters.mapping.running import Means, make_map
from biomassters.scenes.description import SyntheticDescription
from biomassters.scenes.grid import Box, Grid
from biomassters.scenes.synthetic import SyntheticScene, open_synthetic_scene

GRID = Grid("EPSG:3067", 10.0, Box(-688_700, 44_880, 40, 560))
"""Three blocks of windows side by side."""
WRITTEN = GRID.extent.grow(64)
"""So that rasters end where no window sees."""


@pytest.fixture(scope="module")
def landscape() -> SyntheticScene:
    description = SyntheticDescription(
        source="synthetic",
        landscape="konnevesi",
        year=2020,
        crs="EPSG:3067",
        bounds=GRID.bounds(GRID.extent),
    )
    return open_synthetic_scene(description, Path("scenes/arrays.yaml"))


@pytest.fixture(scope="module")
def rasters(landscape: SyntheticScene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the landscape's rasters, and arrays.yaml of their scene."""
    folder = tmp_path_factory.mktemp("rasters")
    document = write_months(folder, landscape.read(WRITTEN), GRID, WRITTEN)
    YAML().dump(document, folder / "arrays.yaml")
    return folder


@pytest.fixture(scope="module")
def undisturbed(rasters: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of the map of the rasters, from their folder."""
    job = replace(make_job(tmp_path_factory.mktemp("map")), scene=rasters / "arrays.yaml")
    make_map(job, Means())
    return read_map(job.folder, GRID).tobytes()


def test_map_of_rasters_is_that_of_the_landscape_they_show(
    landscape: SyntheticScene, undisturbed: bytes, tmp_path: Path
) -> None:
    job = make_job(tmp_path)
    make(job, landscape)  # type: ignore[arg-type]
    assert read_map(job.folder, GRID).tobytes() == undisturbed


def list_months(rasters: Path) -> list[int]:
    return sorted(int(path.stem[-2:]) for path in rasters.glob("s2_*.tif"))


@pytest.mark.parametrize("kind", ["slow down", "busy", "reset", "cut"])
def test_address_that_fails_in_the_middle_costs_its_tiles_until_it_is_back(
    rasters: Path, undisturbed: bytes, tmp_path: Path, kind: str
) -> None:
    with serve_folder(rasters) as server:
        document = describe_scene(GRID, list_months(rasters), prefix=server.url(""))
        scene = open_scene(document, tmp_path, patience=QUICK)
        job = make_job(tmp_path)
        server.spoil(Fault(kind, "s2_10", after=5))
        first = make(job, scene)  # type: ignore[arg-type]
        assert first.made
        assert first.failed
        assert all("s2_10.tif" in reason for reason in first.failed.values())
        server.spoil()
        second = make(job, scene)  # type: ignore[arg-type]
        assert (len(second.made), second.failed) == (len(first.failed), {})
    assert read_map(job.folder, GRID).tobytes() == undisturbed


def spoil_end(path: Path) -> Any:
    """Overwrite the last block of a raster; return what puts it back."""
    data, status = path.read_bytes(), path.stat()

    def put_back() -> None:
        path.write_bytes(data)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    path.write_bytes(data[:-4000] + bytes(4000))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    return put_back


def test_damaged_raster_costs_its_tiles_and_no_others(rasters: Path, tmp_path: Path) -> None:
    job = replace(make_job(tmp_path), scene=rasters / "arrays.yaml")
    put_back = spoil_end(rasters / "s1_ascending_07.tif")
    try:
        with pytest.raises(
            UnreadableRasterError,
            match=r"got \d of 5 tiles \(x\d+_y\d+\.tif.*s1_ascending_07\.tif.*run the same command",
        ):
            make_map(job, Means())
    finally:
        put_back()
    n_there = len(list_tiles(job.folder))
    assert 1 <= n_there < 5
    run = make_map(job, Means())
    assert run.is_complete
    assert len(run.outcome.made) == 5 - n_there
    assert np.isfinite(read_map(job.folder, GRID)).all()
