"""GeoTIFF: the official chip files, in memory.

Knows the files' layout, and that a file may come from a stranger. A file with the official header
has its pixels in one block behind it, and is read without GDAL, which takes ten times as long;
any other sound GeoTIFF of the same bands is left to GDAL.
"""

import re
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import rasterio
from numpy.typing import DTypeLike, NDArray
from rasterio.errors import CRSError, RasterioError
from rasterio.io import DatasetReader, MemoryFile

from biomassters.dataset.declaration import Declaration, read_declaration
from biomassters.dataset.files import FileError
from biomassters.dataset.tiff_tags import find_fault, measure_mask_block
from biomassters.store.georeference import (
    Georeference,
    allow_nowhere,
    describe_fault,
    read_georeference,
)

LONGEST_REASON: Final = 200
"""Characters of GDAL's own words in an error."""
_MEMORY_NAME: Final = re.compile(r"(/vsimem/)?[0-9a-f-]{36}\S*?\.tif'?:? ?")


class ChipRaster(NamedTuple):
    """A chip file, decoded.

    Attributes:
        bands: (C, H, W), the numbers that stand in the file.
        georeference: Where it lies; the official files do not say.
        declared: What it says of these numbers; None = nothing, as the official files.
    """

    bands: NDArray[Any]
    georeference: Georeference
    declared: Declaration | None = None


def encode_chip_tiff(array: NDArray[np.generic]) -> bytes:
    """Write an official chip file: the bytes that the competition's own files have.

    Law: encoding what `decode_chip_tiff` read from an official file gives its bytes again.

    Args:
        array: Bands, (C, H, W), float32 (S1, AGBM) or uint16 (S2).

    Returns:
        An uncompressed GeoTIFF, bands interleaved by pixel, without CRS and metadata.
    """
    bands, height, width = array.shape
    with allow_nowhere(), MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            count=bands,
            height=height,
            width=width,
            dtype=array.dtype,
            interleave="pixel",
        ) as dataset:
            dataset.write(array)
        return bytes(memory.read())


def read_plain_tiff(
    data: bytes, *, n_bands: int, dtype: DTypeLike, chip_size: int
) -> NDArray[Any] | None:
    """Return the pixels of a file that has the official header and size, or None.

    No tag is interpreted. Two files with the same header, byte for byte, say the same of their
    pixels, and where these lie in a file with this header is known from having written one.

    Law: what it returns is what `decode_chip_tiff` returns, and the file lies nowhere.

    Args:
        data: The file's bytes.
        n_bands: Bands that it must have.
        dtype: Type that all bands must have.
        chip_size: Side that it must have, pixels.

    Returns:
        Bands, (C, H, W): a view of `data` that no one can write to.
    """
    header = _official_header(n_bands, np.dtype(dtype), chip_size)
    n_bytes = n_bands * chip_size**2 * np.dtype(dtype).itemsize
    if not header or len(data) != len(header) + n_bytes or not data.startswith(header):
        return None
    pixels = np.frombuffer(data, dtype, offset=len(header))
    return pixels.reshape(chip_size, chip_size, n_bands).transpose(2, 0, 1)


def decode_chip_tiff(data: bytes, *, n_bands: int, dtype: DTypeLike, chip_size: int) -> ChipRaster:
    """Read a file of the official kind.

    What the file declares is held against what is expected before a pixel is decoded, so that a
    small file that would grow to gigabytes is refused, not decoded. Nothing but the file's bytes
    is read: neither files beside it nor any that it names.

    Args:
        data: The file's bytes.
        n_bands: Bands that it must have.
        dtype: Type that all bands must have.
        chip_size: Side that it must have, pixels.

    Raises:
        FileError: It is no such GeoTIFF, or it is damaged.
    """
    fault = find_fault(data)
    if fault is not None:  # among them a file without bytes, which MemoryFile would write to
        raise FileError("a GeoTIFF", fault)
    mask_block = measure_mask_block(data)
    if mask_block > _largest_block(chip_size):
        raise FileError("a GeoTIFF", f"one with a mask in blocks of {mask_block} pixels")
    try:
        with (
            allow_nowhere(),
            rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"),
            MemoryFile(data) as memory,
            memory.open(driver="GTiff") as dataset,
        ):
            expected = _describe(n_bands, chip_size, str(np.dtype(dtype)))
            got = _describe_dataset(dataset, chip_size)
            if got == _describe(n_bands, chip_size, dataset.dtypes[0]) != expected:
                got += f": write the file anew, as {np.dtype(dtype)}"
            if got != expected:
                raise FileError(expected, got)
            _check_blocks(dataset)
            georeference = read_georeference(dataset)
            fault = describe_fault(georeference)
            if fault is not None:
                raise FileError("a place on Earth, or none", fault)
            bands = dataset.read()
            declared = read_declaration(dataset, bands, has_mask=mask_block > 0)
            return ChipRaster(bands, georeference, declared)
    # Of text that is not UTF-8, such as the name of a CRS, rasterio makes a UnicodeDecodeError.
    except (RasterioError, CRSError, UnicodeDecodeError) as error:
        raise FileError("a GeoTIFF", _tell_reason(error)) from None


def _tell_reason(error: BaseException) -> str:
    """Return what GDAL itself said, on one line and without the name of the file in memory."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = _MEMORY_NAME.sub("", " ".join(str(error).split()))
    return "".join(filter(str.isprintable, text))[:LONGEST_REASON]


def _describe(n_bands: int, chip_size: int, dtype: str) -> str:
    return f"{n_bands} bands of {chip_size} x {chip_size} pixels of {dtype}"


def _largest_block(chip_size: int) -> int:
    """Return the pixels of the largest block that a file of such chips may have."""
    return max(chip_size, 512) ** 2


def _describe_dataset(dataset: DatasetReader, chip_size: int) -> str:
    if dataset.height == dataset.width and len(set(dataset.dtypes)) == 1:
        description = _describe(dataset.count, dataset.width, dataset.dtypes[0])
    else:
        types = ", ".join(sorted(set(dataset.dtypes)))
        description = f"{dataset.count} bands of {dataset.height} x {dataset.width} of {types}"
    # A block is decoded whole, however little of it lies in the image.
    largest = max(height * width for height, width in dataset.block_shapes)
    if largest > _largest_block(chip_size):
        description += f" in blocks of {largest} pixels"
    return description


def _check_blocks(dataset: DatasetReader) -> None:
    """Refuse a file that lacks the pixels of a block, for which GDAL would give zeros."""
    shared = dataset.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE") == "PIXEL"  # by all bands
    for band in (1,) if shared else dataset.indexes:
        height, width = dataset.block_shapes[band - 1]
        for row in range(-(-dataset.height // height)):
            for column in range(-(-dataset.width // width)):
                key = f"BLOCK_OFFSET_{column}_{row}"
                if dataset.get_tag_item(key, "TIFF", bidx=band) in (None, "0"):
                    got = f"none of that in row {row}, column {column}"
                    raise FileError("the pixels of each block", got)


@lru_cache(maxsize=16)
def _official_header(n_bands: int, dtype: np.dtype[Any], chip_size: int) -> bytes:
    """Return what such a file begins with; nothing if its pixels are not one block at its end."""
    n_values = n_bands * chip_size**2
    pixels = (np.arange(n_values) % 65_521).astype(dtype).reshape(chip_size, chip_size, n_bands)
    data = encode_chip_tiff(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    return data.removesuffix(pixels.tobytes()) if data.endswith(pixels.tobytes()) else b""
