"""The law of maps: a pixel's bytes do not depend on how the map is cut."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from example_scenes import PREDICT, ArrayScene, make, make_job, read_map

from biomassters.mapping import making
from biomassters.mapping.layout import list_tiles
from biomassters.mapping.memory import MemoryPlan
from biomassters.mapping.parts import Shard, cut_tiles
from biomassters.params.map_sections import MapParams
from biomassters.scenes.grid import Box, Grid

CPU = torch.device("cpu")
GRID = Grid.from_bounds("EPSG:3067", 10.0, (448_130, 6_886_410, 450_030, 6_888_010), "a.yaml")
"""190 x 160 pixels, on no border of any tile."""
SMALL = Grid("EPSG:3067", 10.0, Box(-688_720, 44_810, 70, 60))
"""In one tile of 128, 256 and 512 pixels."""
WIDE = Grid("EPSG:3067", 10.0, Box(-688_720, 44_810, 40, 700))
"""Six tiles of 128 pixels side by side."""


def test_tile_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    scene, job = ArrayScene(GRID), make_job(tmp_path)
    first = make(job, scene)
    before = {path: path.stat().st_mtime_ns for path in list_tiles(job.folder)}
    lost = next(iter(before))
    lost.unlink()
    again = make(job, scene)
    assert (len(first.made), len(again.made)) == (4, 1)
    unchanged = {path: path.stat().st_mtime_ns for path in list_tiles(job.folder) if path != lost}
    assert unchanged == {path: stamp for path, stamp in before.items() if path != lost}


@pytest.mark.parametrize(
    "change",
    [
        {"identity": "other"},
        {"map": MapParams(overlap=0.5, tta="none")},
        {"map": MapParams(overlap=0.25, tta="flips")},
        {"predict": PREDICT.model_copy(update={"clamp": True})},
    ],
    ids=str,
)
def test_tile_of_another_fingerprint_is_made_again(
    tmp_path: Path, change: dict[str, object]
) -> None:
    job, tiles = make_job(tmp_path, tile_size=512), cut_tiles(SMALL, 512)
    make(job, ArrayScene(SMALL), tiles)
    scene = ArrayScene(SMALL, identity=str(change.pop("identity", "0123456789abcdef")))
    other = replace(job, **change)  # type: ignore[arg-type]
    assert len(make(other, scene).made) == 1
    assert len(make(other, scene).made) == 0


def test_truncated_tile_is_made_again(tmp_path: Path) -> None:
    scene, job = ArrayScene(SMALL), make_job(tmp_path)
    make(job, scene)
    tile = list_tiles(job.folder)[0]
    whole = tile.read_bytes()
    tile.write_bytes(whole[: len(whole) // 2])
    assert len(make(job, scene).made) == 1
    assert tile.read_bytes() == whole


def test_tiles_whose_rasters_fail_are_listed_and_the_others_made(tmp_path: Path) -> None:
    scene, job = ArrayScene(WIDE), make_job(tmp_path)
    scene.broken = [Box(WIDE.extent.row, WIDE.extent.column, 1, 1)]
    first = make(job, scene)
    assert set(first.failed.values()) == {"expected a raster, got an error 503, at some address"}
    assert len(first.failed) + len(first.made) == 6
    assert 1 <= len(first.failed) <= 3
    scene.broken = []
    second = make(job, scene)
    assert [len(second.made), len(second.failed)] == [len(first.failed), 0]


def test_each_block_is_read_and_computed_once(tmp_path: Path) -> None:
    scene, job = ArrayScene(GRID), make_job(tmp_path, tile_size=48)
    make(job, scene)
    middle, *blocks = scene.reads
    assert middle.shape == (64, 64)
    assert sorted(blocks, key=str) == sorted(set(blocks), key=str)
    assert len(blocks) == len(list(job.windows.list_blocks(GRID.extent)))


def test_little_memory_costs_reads_and_no_bytes(tmp_path: Path, monkeypatch: Any) -> None:
    scene, job = ArrayScene(GRID), make_job(tmp_path, tile_size=64)
    make(job, scene)
    n_reads, plenty = len(scene.reads), read_map(job.folder, GRID)
    monkeypatch.setattr(making, "plan_memory", lambda *_: MemoryPlan(1, 0))
    scene.reads.clear()
    poor = replace(job, folder=tmp_path / "poor")
    make(poor, scene)
    assert len(scene.reads) > n_reads
    assert read_map(poor.folder, GRID).tobytes() == plenty.tobytes()


def test_map_does_not_depend_on_how_it_is_cut(tmp_path: Path) -> None:
    scene = ArrayScene(GRID)
    maps = []
    for tile_size, n_shards in ((64, 1), (80, 3), (512, 1)):
        job = replace(make_job(tmp_path), folder=tmp_path / str(tile_size), tile_size=tile_size)
        for index in range(n_shards):
            make(job, scene, Shard(index, n_shards).pick(cut_tiles(GRID, tile_size)))
        maps.append(read_map(job.folder, GRID))
    assert maps[0].std() > 0
    assert [other.tobytes() == maps[0].tobytes() for other in maps] == [True] * 3
