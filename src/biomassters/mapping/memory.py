"""How much of the memory that a map may have goes where."""

import re
from dataclasses import dataclass
from typing import Final

import psutil

from biomassters.errors import ParamsError
from biomassters.scenes.scene import BYTES_PER_PIXEL

GIB: Final = 2**30
MIB: Final = 2**20

READING_FACTOR: Final = 5
"""A block's memory while it is read, over that of its pixels: whoever reads needs copies.

Measured of 256 x 256 pixels: 1.9 of rasters on the map's own pixels, 5.0 of a simulated landscape.
"""

TILE_BYTES_PER_PIXEL: Final = 160
"""Of a tile that is put together, calibrated and written: some float32 images of it at once.

Measured of 1024 x 1024 pixels with intervals: 123, and 14 to 27 of the blocks that it is made of.
"""

LEAST_CACHE: Final = 64 * MIB
"""Of GDAL, for blocks of files, bytes; its default is a twentieth of the machine.

rasterio passes GDAL_CACHEMAX on as bytes, whatever its size, and at once.
"""

MOST_CACHE: Final = GIB
"""Of the same. Two rows of three blocks of 512 pixels, 12 months of both sensors, are 0.7 GiB."""

SPARE: Final = 160 * MIB
"""What an allocator keeps of what was given back, and libraries take as they go: an estimate."""

DEFAULT: Final = 1536 * MIB
"""Beside the models, where the user says nothing."""

_UNITS: Final = {"": 1, "K": 2**10, "M": MIB, "G": GIB, "T": 2**40}


@dataclass(frozen=True)
class MemoryPlan:
    """What may lie in memory beside the models and a tile.

    Attributes:
        blocks_ahead: Blocks that are read, or wait to be computed.
        kept_bytes: Of computed blocks that a later tile needs, too.
        cache_bytes: Of blocks of files that GDAL keeps decoded: a block of a map reaches into
            several, each of which is needed again by its neighbours.
    """

    blocks_ahead: int
    kept_bytes: int
    cache_bytes: int = LEAST_CACHE


def parse_memory(text: str) -> int:
    """Return the bytes of such as `2GiB`, `1500M`.

    Raises:
        ParamsError: It is no amount of memory.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match or float(match[1]) == 0:
        raise ParamsError(
            f"expected an amount of memory such as 2GiB, got {text!r}, at --memory; mend it"
        )
    return int(float(match[1]) * _UNITS[match[2].upper()])


def plan_memory(
    limit: int | None, block_pixels: int, tile_size: int, n_readers: int, scene_bytes: int = 0
) -> MemoryPlan:
    """Divide what is left of the memory, now that the models have theirs.

    Args:
        limit: Of the whole process, bytes; None = `DEFAULT` more than it has now.
        block_pixels: Of a block that waits to be computed; see `BlockPredictor.waiting_pixels`.
        tile_size: Pixels.
        n_readers: Threads that read.
        scene_bytes: That the scene keeps between reads.

    Raises:
        ParamsError: It is too little for one block and a tile.
    """
    used = psutil.Process().memory_info().rss
    block = BYTES_PER_PIXEL * block_pixels
    # The least cache is in use already.
    fixed = TILE_BYTES_PER_PIXEL * tile_size**2 + SPARE + scene_bytes
    reading = (READING_FACTOR - 1) * block
    least = used + fixed + reading + 2 * block
    total = used + fixed + DEFAULT if limit is None else limit
    if total < least:
        raise ParamsError(
            f"expected at least {least / GIB:.2f} GiB (models and libraries have"
            f" {used / GIB:.2f}), got {total / GIB:.2f}, at --memory; give more, or make the tiles"
            " smaller (--tile-size)"
        )
    left = total - used - fixed
    # Half to GDAL, as far as one block can be read and one wait all the same.
    cache = max(0, min(left // 2, left - reading - 2 * block, MOST_CACHE - LEAST_CACHE))
    left -= cache
    readers = min(n_readers, max(1, (left // 2) // (READING_FACTOR * block)))
    ahead = max(1, (left // 2 - readers * reading) // block)
    ahead = min(ahead, 2 * readers)
    kept = left - readers * reading - ahead * block
    return MemoryPlan(int(ahead), int(kept), int(LEAST_CACHE + cache))
