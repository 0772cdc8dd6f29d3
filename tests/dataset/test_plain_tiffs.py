from pathlib import Path

import numpy as np
import pytest
from example_chips import read_real_files

from biomassters.dataset.chip_tiffs import decode_chip_tiff, encode_chip_tiff
from biomassters.dataset.plain_tiffs import read_plain_tiff

LAYOUTS = [(4, "float32"), (11, "uint16"), (1, "float32")]


def make(n_bands: int, dtype: str, side: int = 32) -> np.ndarray:
    return (np.random.default_rng(n_bands).random((n_bands, side, side)) * 1000).astype(dtype)


@pytest.mark.parametrize(("n_bands", "dtype"), LAYOUTS)
@pytest.mark.parametrize("side", [32, 64, 256])
def test_it_reads_what_gdal_reads(n_bands: int, dtype: str, side: int) -> None:
    data = encode_chip_tiff(make(n_bands, dtype, side))
    layout = {"n_bands": n_bands, "dtype": dtype, "chip_size": side}
    plain = read_plain_tiff(data, **layout)
    np.testing.assert_array_equal(plain, decode_chip_tiff(data, **layout, where="a.tif").bands)
    assert not plain.flags.writeable


@pytest.mark.parametrize(("n_bands", "dtype"), LAYOUTS)
def test_another_header_or_size_is_left_to_gdal(n_bands: int, dtype: str) -> None:
    data = encode_chip_tiff(make(n_bands, dtype))
    layout = {"n_bands": n_bands, "dtype": dtype, "chip_size": 32}
    header = len(data) - n_bands * 32 * 32 * np.dtype(dtype).itemsize
    for place in range(header):
        other = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        assert read_plain_tiff(other, **layout) is None
    assert read_plain_tiff(data[:-1], **layout) is None
    assert read_plain_tiff(data + b"\0", **layout) is None
    assert read_plain_tiff(b"", **layout) is None


def test_every_official_file_is_plain(shared_folder: Path) -> None:
    for name, data in read_real_files(shared_folder, "288afc34").items():
        n_bands, dtype = LAYOUTS[0 if "_S1_" in name else 1 if "_S2_" in name else 2]
        assert read_plain_tiff(data, n_bands=n_bands, dtype=dtype, chip_size=256) is not None
