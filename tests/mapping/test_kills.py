"""Twenty kill -9 on the way: what is made stays, is whole, and is what an undisturbed run makes."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from example_scenes import ArrayScene, make, make_job, read_map
from forked_scripts import CONTEXT
from waiting import happens

from biomassters.mapping.job import MapJob, Mapper
from biomassters.mapping.layout import list_tiles
from biomassters.mapping.making import make_tiles
from biomassters.mapping.parts import cut_tiles
from biomassters.mapping.tiles import read_tile_tags
from biomassters.scenes.grid import Box, Grid

GRID = Grid("EPSG:3067", 10.0, Box(-688_700, 44_810, 150, 170))
"""In one block of windows; 110 tiles of 16 pixels."""

KILLS = 20


def make_and_be_killed(job: MapJob) -> None:
    """Make the map in processes of which each is killed soon after its first tile.

    They are forked from this one, in which all is open and no thread runs: a start from the
    beginning would take most of the time.
    """
    torch.set_num_threads(1)
    mapper = Mapper(job, ArrayScene(GRID), torch.device("cpu"))
    assert mapper.fingerprint
    chance = np.random.default_rng(7)
    for _ in range(KILLS):
        n_before = len(list_tiles(job.folder))
        child = os.fork()
        if not child:
            list(make_tiles(mapper, cut_tiles(GRID, job.tile_size)))
            os._exit(0)
        assert happens(lambda n=n_before: len(list_tiles(job.folder)) > n, 0.001)
        time.sleep(chance.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        assert None not in [read_tile_tags(path) for path in list_tiles(job.folder)]


def test_twenty_kills_lose_nothing_and_change_nothing(tmp_path: Path) -> None:
    job = make_job(tmp_path, tile_size=16)
    process = CONTEXT.Process(target=make_and_be_killed, args=(job,))
    process.start()
    process.join()
    assert process.exitcode == 0
    n_there = len(list_tiles(job.folder))
    n_tiles = len(cut_tiles(GRID, 16))
    assert KILLS <= n_there < n_tiles
    assert len(make(job, ArrayScene(GRID)).made) == n_tiles - n_there
    undisturbed = replace(job, folder=tmp_path / "undisturbed", tile_size=256)
    make(undisturbed, ArrayScene(GRID))
    assert read_map(job.folder, GRID).tobytes() == read_map(undisturbed.folder, GRID).tobytes()
