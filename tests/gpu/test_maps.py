"""Maps on a GPU, whose arithmetic depends on the batch: they do not depend on how they are cut."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from example_scenes import ArrayScene, make_job, read_map

from biomassters.mapping.job import Mapper
from biomassters.mapping.making import make_tiles
from biomassters.mapping.parts import Shard, cut_tiles
from biomassters.scenes.grid import Box, Grid

pytestmark = pytest.mark.gpu

GRID = Grid("EPSG:3067", 10.0, Box(-688_700, 44_810, 90, 300))


def map_on(device: torch.device, folder: Path, tile_size: int, n_shards: int) -> np.ndarray:
    job = replace(make_job(folder), folder=folder / f"{device}-{tile_size}", tile_size=tile_size)
    mapper = Mapper(job, ArrayScene(GRID), device)
    for index in range(n_shards):
        list(make_tiles(mapper, Shard(index, n_shards).pick(cut_tiles(GRID, tile_size))))
    return read_map(job.folder, GRID)


def test_map_has_the_same_bytes_however_it_is_cut(device: torch.device, tmp_path: Path) -> None:
    maps = [map_on(device, tmp_path, *cut) for cut in ((64, 1), (80, 3), (512, 1))]
    assert maps[0].std() > 0
    assert [other.tobytes() == maps[0].tobytes() for other in maps] == [True] * 3


def test_map_is_that_of_the_cpu_but_for_rounding(device: torch.device, tmp_path: Path) -> None:
    one, other = (map_on(each, tmp_path, 512, 1) for each in (device, torch.device("cpu")))
    assert np.abs(one - other).max() < 1e-3 * other.std()
