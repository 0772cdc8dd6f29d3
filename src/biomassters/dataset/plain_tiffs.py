"""The official chip files, read without GDAL: their pixels lie in one block behind the header.

Knows one layout, that of the files which `rasters.encode_chip_tiff` writes and of all official
ones; any other is for `rasters.decode_chip_tiff`, which is ten times slower.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from biomassters.dataset.chip_tiffs import encode_chip_tiff


def read_plain_tiff(
    data: bytes, *, n_bands: int, dtype: DTypeLike, chip_size: int
) -> NDArray[Any] | None:
    """Return the pixels of a file that has the official header and size, or None.

    No tag is interpreted. Two files with the same header, byte for byte, say the same of their
    pixels, and where these lie in a file with this header is known from having written one.

    Law: what it returns is what `rasters.decode_chip_tiff` returns, and the file lies nowhere.

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


@lru_cache(maxsize=16)
def _official_header(n_bands: int, dtype: np.dtype[Any], chip_size: int) -> bytes:
    """Return what such a file begins with; nothing if its pixels are not one block at its end."""
    n_values = n_bands * chip_size**2
    pixels = (np.arange(n_values) % 65_521).astype(dtype).reshape(chip_size, chip_size, n_bands)
    data = encode_chip_tiff(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    return data.removesuffix(pixels.tobytes()) if data.endswith(pixels.tobytes()) else b""
