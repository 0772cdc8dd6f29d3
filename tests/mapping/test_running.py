"""Whoever makes a map, one process, several, shards or a cluster: it is the same map."""

import os
import runpy
import signal
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import rasterio
from example_scenes import draw_pixels, make_job, read_map
from forked_scripts import CONTEXT
from raster_examples import write_months
from ruamel.yaml import YAML
from waiting import PATIENCE_S, happens

from biomassters.errors import BusyError
from biomassters.mapping import cluster, running
from biomassters.mapping.finishing import add_up_zones
from biomassters.mapping.job import MapJob, Mapper
from biomassters.mapping.layout import list_tiles
from biomassters.mapping.memory import LEAST_CACHE
from biomassters.mapping.parts import Shard
from biomassters.mapping.running import Means, make_map
from biomassters.mapping.zones.polygons import Zones
from biomassters.scenes.grid import Grid

GRID = Grid.from_bounds("EPSG:3067", 10.0, (448_000, 6_886_400, 449_000, 6_886_900), "arrays.yaml")
"""50 x 100 pixels, in two blocks of windows."""

ZONES = """{"type": "FeatureCollection", "features": [{"type": "Feature", "id": "stand",
"properties": {}, "geometry": {"type": "Polygon", "coordinates": [[[448100, 6886500],
[448900, 6886500], [448900, 6886800], [448100, 6886500]]]}}],
"crs": {"type": "name", "properties": {"name": "EPSG:3067"}}}"""


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> MapJob:
    folder = tmp_path_factory.mktemp("running")
    document = write_months(folder, draw_pixels(GRID.extent), GRID)
    YAML().dump(document, folder / "arrays.yaml")
    return make_job(folder, tile_size=32)


@pytest.fixture(scope="module")
def by_one(job: MapJob) -> bytes:
    """The bytes of the map that one process makes at once."""
    run = make_map(replace(job, tile_size=256), Means())
    assert run.is_complete
    return read_map(job.folder, GRID).tobytes()


def test_shards_make_the_same_map_and_the_last_one_finishes_it(
    job: MapJob, by_one: bytes, tmp_path: Path
) -> None:
    job = replace(job, folder=tmp_path)
    runs = [make_map(job, Means(shard=Shard(index, 3))) for index in (2, 0, 1)]
    assert [run.is_complete for run in runs] == [False, False, True]
    assert (
        sum(len(run.outcome.made) for run in runs) == runs[0].n_tiles == len(list_tiles(tmp_path))
    )
    assert "not all of the map is there yet" in runs[0].describe()
    assert read_map(tmp_path, GRID).tobytes() == by_one
    assert {path.name for path in tmp_path.iterdir()} == {
        *("tiles", "map.vrt", "map.qml", "map.json", "model.json", "collection.json"),
        "preview.png",
    }


def test_workers_make_the_same_map(job: MapJob, by_one: bytes, tmp_path: Path) -> None:
    job = replace(job, folder=tmp_path, tile_size=48)
    run = make_map(job, Means(workers=3))
    assert run.is_complete
    assert read_map(tmp_path, GRID).tobytes() == by_one


def test_another_cut_takes_the_place_of_the_first(job: MapJob, tmp_path: Path) -> None:
    job = replace(job, folder=tmp_path, tile_size=64)
    make_map(job, Means())
    first, before = list_tiles(tmp_path), read_map(tmp_path, GRID).tobytes()
    (tmp_path / "tiles/.x0_y0.tif.7.partial").touch()
    make_map(replace(job, tile_size=48), Means())
    assert set(list_tiles(tmp_path)) != set(first)
    assert read_map(tmp_path, GRID).tobytes() == before
    there = {path.name for path in (tmp_path / "tiles").iterdir()}
    assert there == {
        f"{path.stem}{end}" for path in list_tiles(tmp_path) for end in (".tif", ".json")
    }


def test_zones_are_added_up_also_of_a_map_that_is_there(
    job: MapJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds = []

    def watch(mapper: Mapper, zones: Zones) -> None:
        bounds.append(rasterio.env.getenv()["GDAL_CACHEMAX"])
        add_up_zones(mapper, zones)

    monkeypatch.setattr(running, "add_up_zones", watch)
    job = replace(job, folder=tmp_path, tile_size=256)
    (tmp_path / "zones.json").write_text(ZONES)
    make_map(job, Means())
    stamps = [path.stat().st_mtime_ns for path in list_tiles(tmp_path)]
    run = make_map(job, Means(), tmp_path / "zones.json")
    assert run.outcome.made == []
    assert [path.stat().st_mtime_ns for path in list_tiles(tmp_path)] == stamps
    assert "stand" in (tmp_path / "zones.csv").read_text()
    assert bounds == [LEAST_CACHE]  # in which the map is read once more


def fork_dask(kind: str, *arguments: str, log: Path) -> int:
    """Run a command of Dask in a process forked from this one; return its number."""
    child = os.fork()
    if not child:
        for number in (1, 2):
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        sys.argv[1:] = arguments
        try:
            runpy.run_module(f"distributed.cli.dask_{kind}", run_name="__main__")
        finally:
            os._exit(1)
    return child


def make_map_in_cluster(job: MapJob, folder: Path) -> None:
    """Run a scheduler and two workers on loopback, and make a map as their client.

    They are forked from this process, in which all is imported and no thread runs: to import it
    thrice more would take most of the time. `folder` gets their numbers.
    """
    import_module("distributed.cli.dask_worker")
    file, host = folder / "scheduler.json", ("--host", "127.0.0.1", "--no-dashboard")
    scheduler = ("scheduler", *host, "--port", "0", "--scheduler-file", str(file))
    children = [fork_dask(*scheduler, log=folder / "scheduler.log")]
    try:
        assert happens(lambda: file.exists() and b"tcp://" in file.read_bytes())
        address = next(part for part in file.read_text().split('"') if part.startswith("tcp://"))
        for name in ("one", "two"):
            place = ("--local-directory", str(folder / name))
            worker = ("worker", address, *host, "--no-nanny", "--nthreads", "1", *place)
            children.append(fork_dask(*worker, log=folder / f"{name}.log"))
        (folder / "workers").write_text(" ".join(map(str, children[1:])) + "\n")
        make_map(job, Means(dask=address))
        assert os.waitpid(children.pop(1), 0)[1] == signal.SIGKILL
        assert os.waitpid(children[1], os.WNOHANG) == (0, 0)  # the other one is still there
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)


def test_cluster_that_loses_a_worker_makes_the_same_map(
    job: MapJob, by_one: bytes, tmp_path: Path
) -> None:
    job = replace(job, folder=tmp_path / "map")
    client = CONTEXT.Process(target=make_map_in_cluster, args=(job, tmp_path))
    client.start()
    assert happens(lambda: list_tiles(job.folder) or not client.is_alive())
    one, two = map(int, (tmp_path / "workers").read_text().split())
    os.kill(two, signal.SIGSTOP)  # with a tile or two of its own: the map is not finished before
    assert happens(lambda: len(list_tiles(job.folder)) > 2)
    assert client.is_alive(), "the map was finished before a worker was killed"
    os.kill(one, signal.SIGKILL)
    os.kill(two, signal.SIGCONT)
    client.join(PATIENCE_S)
    assert client.exitcode == 0
    assert read_map(job.folder, GRID).tobytes() == by_one


def test_no_scheduler_is_told(job: MapJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_S", 1)
    job = replace(job, folder=tmp_path)
    with pytest.raises(
        BusyError, match=r"expected a Dask scheduler, got .*, at tcp://127\.0\.0\.1:9"
    ):
        make_map(job, Means(dask="tcp://127.0.0.1:9"))
