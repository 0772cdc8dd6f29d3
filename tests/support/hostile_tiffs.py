"""TIFFs tag by tag: sound ones, and such as no library would write."""

import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import rasterio
from numpy.typing import NDArray

SIDE = 16
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 6: 1, 7: 1, 8: 2, 9: 4, 11: 4, 12: 8, 13: 4, 16: 8}
"""Bytes of a value by its type."""
LETTERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q"}


class Kind(NamedTuple):
    """What a chip file must hold."""

    n_bands: int
    dtype: type


KINDS = {"S1": Kind(4, np.float32), "S2": Kind(11, np.uint16), "agbm": Kind(1, np.float32)}


class Tag(NamedTuple):
    """A tag of a directory.

    Attributes:
        kind: The number of its type.
        values: Numbers, or bytes as they are.
        count: How many values it says it has; None = the truth.
    """

    kind: int
    values: Sequence[float] | bytes
    count: int | None = None


def build_tiff(
    changes: Mapping[int, Tag | None] | None = None,
    *,
    body: bytes | None = None,
    order: str = "<",
    next_directory: int = 0,
) -> bytes:
    """Build an S1 file in one strip behind its directory; some of its tags differ or lack."""
    pixels = draw_pixels("S1").transpose(1, 2, 0).astype(f"{order}f4").tobytes()
    body = pixels if body is None else body
    tags: dict[int, Tag | None] = {
        256: Tag(3, [SIDE]),
        257: Tag(3, [SIDE]),
        258: Tag(3, [32] * 4),
        259: Tag(3, [1]),
        262: Tag(3, [1]),
        273: Tag(4, [0]),
        277: Tag(3, [4]),
        278: Tag(3, [SIDE]),
        279: Tag(4, [len(body)]),
        284: Tag(3, [1]),
        338: Tag(3, [0] * 3),
        339: Tag(3, [3] * 4),
        **(changes or {}),
    }
    if 273 not in (changes or {}):
        tags[273] = Tag(4, [_count_bytes(tags, order)])
    directory, values = _encode_tags(tags, order)
    magic = b"II*\0" if order == "<" else b"MM\0*"
    end = struct.pack(f"{order}I", next_directory)
    return magic + struct.pack(f"{order}I", 8) + directory + end + values + body


def _count_bytes(tags: Mapping[int, Tag | None], order: str) -> int:
    directory, values = _encode_tags(tags, order)
    return 8 + len(directory) + 4 + len(values)


def _encode_tags(tags: Mapping[int, Tag | None], order: str) -> tuple[bytes, bytes]:
    kept = {number: tag for number, tag in sorted(tags.items()) if tag is not None}
    directory, values = struct.pack(f"{order}H", len(kept)), b""
    start = 8 + 2 + 12 * len(kept) + 4
    for number, tag in kept.items():
        if isinstance(tag.values, bytes):
            data = tag.values
        else:
            data = struct.pack(f"{order}{len(tag.values)}{LETTERS[tag.kind]}", *tag.values)
        count = len(data) // SIZES.get(tag.kind, 1) if tag.count is None else tag.count
        place = struct.pack(f"{order}I", start + len(values))
        directory += struct.pack(f"{order}HHI", number, tag.kind, count)
        directory += data.ljust(4, b"\0") if len(data) <= 4 else place
        values += data if len(data) > 4 else b""
    return directory, values


def draw_pixels(kind: str) -> NDArray[Any]:
    """Return the same pixels each time, (C, 16, 16), with nodata."""
    random = np.random.default_rng(7)
    n_bands, dtype = KINDS[kind]
    pixels = (random.normal(800, 200, (n_bands, SIDE, SIDE)) / 100).astype(dtype)
    pixels[:, :3] = -9999 if kind == "S1" else 0
    return pixels


def write_tiff(kind: str, *, masked: bool = False, **options: Any) -> bytes:
    """Return a georeferenced file that GDAL wrote, with metadata, nodata, a scale and a mask."""
    pixels = draw_pixels(kind)
    profile = {
        "driver": "GTiff",
        "count": len(pixels),
        "height": SIDE,
        "width": SIDE,
        "dtype": pixels.dtype,
        "crs": "EPSG:32634",
        "transform": rasterio.Affine(10, 0, 350_000, 0, -10, 6_900_000),
        "nodata": 0,
    }
    with rasterio.MemoryFile() as memory, rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        with memory.open(**{**profile, **options}) as dataset:
            dataset.write(pixels)
            if masked:
                dataset.scales = [0.0001] * len(pixels)
                dataset.units = ["dB"] * len(pixels)
                dataset.write_mask(np.arange(SIDE**2).reshape(SIDE, SIDE) % 3 > 0)
            dataset.update_tags(AREA="Finland", SCALE="0.0001")
            dataset.set_band_description(1, "first")
        return bytes(memory.read())
