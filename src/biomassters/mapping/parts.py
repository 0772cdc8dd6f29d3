"""The parts of a map: its tiles, and which of them are whose."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from biomassters.errors import ParamsError
from biomassters.scenes.grid import Box, Grid

DEFAULT_TILE_SIZE: Final = 1024
TILE_STEP: Final = 16
"""A tile's side is a multiple of it, as GeoTIFF's blocks are."""


@dataclass(frozen=True)
class Shard:
    """One of several processes that know nothing of each other.

    Attributes:
        index: 0...count - 1, as Kubernetes counts the pods of a job.
        count: How many there are.
    """

    index: int
    count: int

    def pick(self, tiles: Sequence[Box]) -> list[Box]:
        """Return this one's tiles, behind each other, since neighbours share windows."""
        first, end = (number * len(tiles) // self.count for number in (self.index, self.index + 1))
        return list(tiles[first:end])


WHOLE: Final = Shard(0, 1)


def parse_shard(text: str) -> Shard:
    """Return the shard that a command line names, as `0/8`.

    Raises:
        ParamsError: It is none.
    """
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if not match or not int(match[1]) < int(match[2]):
        raise ParamsError(
            f"expected a shard i/n with i of 0...n - 1, got {text!r}, at --shard; write 0/8 for the"
            " first of eight"
        )
    return Shard(int(match[1]), int(match[2]))


def check_tile_size(size: int) -> int:
    """Return a tile's side, pixels.

    Raises:
        ParamsError: It is no positive multiple of `TILE_STEP`.
    """
    if size <= 0 or size % TILE_STEP:
        raise ParamsError(
            f"expected a positive multiple of {TILE_STEP} pixels, got {size}, at --tile-size; write"
            f" {DEFAULT_TILE_SIZE}, say"
        )
    return size


def cut_tiles(grid: Grid, tile_size: int) -> list[Box]:
    """Return the tiles of a scene, row by row, on a lattice that the CRS fixes."""
    return list(grid.extent.split(tile_size))
