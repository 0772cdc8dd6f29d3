"""Whoever makes a map, one process, several, shards or a cluster: it is the same map."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from example_scenes import make_job, read_map
from forked_scripts import CONTEXT
from waiting import PATIENCE_S, happens

from biomassters.errors import BusyError
from biomassters.mapping import cluster
from biomassters.mapping.job import MapJob, open_mapper
from biomassters.mapping.layout import list_tiles
from biomassters.mapping.parts import Shard
from biomassters.mapping.running import Means, make_map
from biomassters.scenes.grid import Grid

YAML = """source: synthetic
landscape: konnevesi
year: 2020
crs: EPSG:3067
bounds: [448000, 6886400, 449000, 6886900]
"""
"""100 x 50 pixels."""

ZONES = """{"type": "FeatureCollection", "features": [{"type": "Feature", "id": "stand",
"properties": {}, "geometry": {"type": "Polygon", "coordinates": [[[448100, 6886500],
[448900, 6886500], [448900, 6886800], [448100, 6886500]]]}}],
"crs": {"type": "name", "properties": {"name": "EPSG:3067"}}}"""


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> MapJob:
    folder = tmp_path_factory.mktemp("running")
    (folder / "arrays.yaml").write_text(YAML)
    return make_job(folder, tile_size=32)


@pytest.fixture(scope="module")
def grid(job: MapJob) -> Grid:
    return open_mapper(job).scene.grid


@pytest.fixture(scope="module")
def by_one(job: MapJob, grid: Grid) -> bytes:
    """The bytes of the map that one process makes at once."""
    run = make_map(replace(job, tile_size=256), Means())
    assert run.is_complete
    return read_map(job.folder, grid).tobytes()


def test_shards_make_the_same_map_and_the_last_one_finishes_it(
    job: MapJob, grid: Grid, by_one: bytes, tmp_path: Path
) -> None:
    job = replace(job, folder=tmp_path)
    runs = [make_map(job, Means(shard=Shard(index, 3))) for index in (2, 0, 1)]
    assert [run.is_complete for run in runs] == [False, False, True]
    assert (
        sum(len(run.outcome.made) for run in runs) == runs[0].n_tiles == len(list_tiles(tmp_path))
    )
    assert "not all of the map is there yet" in runs[0].describe()
    assert read_map(tmp_path, grid).tobytes() == by_one
    assert {path.name for path in tmp_path.iterdir()} == {
        *("tiles", "map.vrt", "map.qml", "map.json", "model.json", "collection.json"),
        "preview.png",
    }


def test_workers_make_the_same_map(job: MapJob, grid: Grid, by_one: bytes, tmp_path: Path) -> None:
    job = replace(job, folder=tmp_path, tile_size=48)
    run = make_map(job, Means(workers=3))
    assert run.is_complete
    assert read_map(tmp_path, grid).tobytes() == by_one


def test_another_cut_takes_the_place_of_the_first(job: MapJob, grid: Grid, tmp_path: Path) -> None:
    job = replace(job, folder=tmp_path, tile_size=64)
    make_map(job, Means())
    first, before = list_tiles(tmp_path), read_map(tmp_path, grid).tobytes()
    (tmp_path / "tiles/.x0_y0.tif.7.partial").touch()
    make_map(replace(job, tile_size=48), Means())
    assert set(list_tiles(tmp_path)) != set(first)
    assert read_map(tmp_path, grid).tobytes() == before
    there = {path.name for path in (tmp_path / "tiles").iterdir()}
    assert there == {
        f"{path.stem}{end}" for path in list_tiles(tmp_path) for end in (".tif", ".json")
    }


def test_zones_are_added_up_also_of_a_map_that_is_there(job: MapJob, tmp_path: Path) -> None:
    job = replace(job, folder=tmp_path, tile_size=256)
    (tmp_path / "zones.json").write_text(ZONES)
    make_map(job, Means())
    stamps = [path.stat().st_mtime_ns for path in list_tiles(tmp_path)]
    run = make_map(job, Means(), tmp_path / "zones.json")
    assert run.outcome.made == []
    assert [path.stat().st_mtime_ns for path in list_tiles(tmp_path)] == stamps
    assert "stand" in (tmp_path / "zones.csv").read_text()


def start(*command: str, log: Path) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "src"}
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_" + command[0], *command[1:]],
            env=environment,
            stdout=output,
            stderr=output,
        )


@contextmanager
def run_cluster(folder: Path) -> Iterator[tuple[str, list["subprocess.Popen[bytes]"]]]:
    """Run a scheduler and two workers on loopback; yield its address and them."""
    file = folder / "scheduler.json"
    scheduler = start(
        *("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"),
        *("--scheduler-file", str(file)),
        log=folder / "scheduler.log",
    )
    processes = [scheduler]
    try:
        assert happens(lambda: file.exists() and b"tcp://" in file.read_bytes())
        address = next(part for part in file.read_text().split('"') if part.startswith("tcp://"))
        for name in ("one", "two"):
            worker = start(
                *("worker", address, "--no-nanny", "--nthreads", "1", "--no-dashboard"),
                *("--host", "127.0.0.1", "--local-directory", str(folder / name)),
                log=folder / f"{name}.log",
            )
            processes.append(worker)
        yield address, processes[1:]
    finally:
        for process in processes:
            process.kill()
            process.wait(PATIENCE_S)


def test_cluster_that_loses_a_worker_makes_the_same_map(
    job: MapJob, grid: Grid, by_one: bytes, tmp_path: Path
) -> None:
    job = replace(job, folder=tmp_path / "map")
    with run_cluster(tmp_path) as (address, workers):
        client = CONTEXT.Process(target=make_map, args=(job, Means(dask=address)))
        client.start()
        assert happens(lambda: len(list_tiles(job.folder)) > 2)
        assert client.is_alive(), "the map was finished before a worker was killed"
        os.kill(workers[0].pid, signal.SIGKILL)
        client.join(PATIENCE_S)
        assert client.exitcode == 0
        assert workers[1].poll() is None
    assert read_map(job.folder, grid).tobytes() == by_one


def test_no_scheduler_is_told(job: MapJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_S", 1)
    job = replace(job, folder=tmp_path)
    with pytest.raises(
        BusyError, match=r"expected a Dask scheduler, got .*, at tcp://127\.0\.0\.1:9"
    ):
        make_map(job, Means(dask="tcp://127.0.0.1:9"))
