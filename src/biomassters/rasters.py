"""GeoTIFF: the official chip files, in memory.

Knows the files' layout; knows nothing of sensors, catalogues and stores.
"""

from typing import Any, NamedTuple

import numpy as np
import rasterio
from numpy.typing import DTypeLike, NDArray
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader, MemoryFile

from biomassters.errors import ChipDataError
from biomassters.georeference import Georeference, allow_nowhere, read_georeference


class ChipRaster(NamedTuple):
    """A chip file, decoded.

    Attributes:
        bands: (C, H, W).
        georeference: Where it lies; the official files do not say.
    """

    bands: NDArray[Any]
    georeference: Georeference


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


def decode_chip_tiff(
    data: bytes, *, n_bands: int, dtype: DTypeLike, chip_size: int, where: str
) -> ChipRaster:
    """Read a file of the official kind.

    What the file declares is held against what is expected before a pixel is decoded, so that a
    small file that would grow to gigabytes is refused, not decoded.

    Args:
        data: The file's bytes.
        n_bands: Bands that it must have.
        dtype: Type that all bands must have.
        chip_size: Side that it must have, pixels.
        where: Name of the file, for errors.

    Raises:
        ChipDataError: It is no such GeoTIFF, or it is damaged.
    """
    if not data:  # which MemoryFile would take for a file to be written
        raise ChipDataError(f"expected a GeoTIFF, got no bytes, at {where}; fetch the file again")
    try:
        with (
            allow_nowhere(),
            rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"),
            MemoryFile(data) as memory,
            memory.open(driver="GTiff") as dataset,
        ):
            expected = _describe(n_bands, chip_size, str(np.dtype(dtype)))
            got = _describe_dataset(dataset, chip_size)
            if got != expected:
                raise ChipDataError(
                    f"expected {expected}, got {got}, at {where};"
                    " fetch the file again, or mend data.chip_size"
                )
            return ChipRaster(dataset.read(), read_georeference(dataset))
    except RasterioError as error:
        raise ChipDataError(
            f"expected a GeoTIFF, got {' '.join(str(error).split())}, at {where};"
            " fetch the file again"
        ) from None


def _describe(n_bands: int, chip_size: int, dtype: str) -> str:
    return f"{n_bands} bands of {chip_size} x {chip_size} pixels of {dtype}"


def _describe_dataset(dataset: DatasetReader, chip_size: int) -> str:
    if dataset.height == dataset.width and len(set(dataset.dtypes)) == 1:
        description = _describe(dataset.count, dataset.width, dataset.dtypes[0])
    else:
        types = ", ".join(sorted(set(dataset.dtypes)))
        description = f"{dataset.count} bands of {dataset.height} x {dataset.width} of {types}"
    # A block is decoded whole, however little of it lies in the image.
    largest = max(height * width for height, width in dataset.block_shapes)
    if largest > max(chip_size, 512) ** 2:
        description += f" in blocks of {largest} pixels"
    return description
