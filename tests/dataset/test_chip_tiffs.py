from pathlib import Path

import numpy as np
import pytest
import rasterio
from example_chips import read_real_files

from biomassters.dataset.chip_tiffs import decode_chip_tiff, encode_chip_tiff, read_plain_tiff
from biomassters.dataset.files import FileError
from biomassters.store.georeference import NOWHERE

S1 = np.random.default_rng(0).normal(-15, 5, (4, 64, 64)).astype(np.float32)
S1[2:, 10:20] = -9999
LAYOUTS = [(4, "float32"), (11, "uint16"), (1, "float32")]


def decode_s1(data: bytes, chip_size: int = 64) -> np.ndarray:
    return decode_chip_tiff(data, n_bands=4, dtype=np.float32, chip_size=chip_size).bands


def encode_with_gdal(array: np.ndarray, **options: object) -> bytes:
    bands, height, width = array.shape
    with rasterio.MemoryFile() as memory:
        with memory.open(
            driver=options.pop("driver", "GTiff"),
            count=bands,
            height=height,
            width=width,
            dtype=array.dtype,
            transform=rasterio.Affine(10, 0, 0, 0, -10, 0),
            **options,
        ) as dataset:
            dataset.write(array)
        return memory.read()


@pytest.mark.parametrize(
    ("bands", "dtype", "size"),
    [(4, np.float32, 1_049_524), (11, np.uint16, 1_443_550), (1, np.float32, 262_482)],
)
def test_encoded_chip_has_the_official_size(bands: int, dtype: type, size: int) -> None:
    assert len(encode_chip_tiff(np.ones((bands, 256, 256), dtype))) == size


def test_official_files_are_reproduced_byte_for_byte(shared_folder: Path) -> None:
    files = read_real_files(shared_folder, "288afc34")
    kinds = {"_S1_": (4, np.float32), "_S2_": (11, np.uint16), "_agbm": (1, np.float32)}
    assert len(files) == 25
    for name, data in files.items():
        bands, dtype = next(kind for key, kind in kinds.items() if key in name)
        raster = decode_chip_tiff(data, n_bands=bands, dtype=dtype, chip_size=256)
        assert encode_chip_tiff(raster.bands) == data
        assert raster.georeference == NOWHERE


def test_decoding_undoes_encoding() -> None:
    np.testing.assert_array_equal(decode_s1(encode_chip_tiff(S1)), S1)


@pytest.mark.parametrize(
    ("array", "got"),
    [
        (S1[:3], "3 bands"),
        (S1.astype(np.float64), "float64"),
        (S1[:, :32, :32], "32 x 32"),
        (S1[:, :, :32], "64 x 32"),
    ],
)
def test_other_bands_type_or_shape_are_refused(array: np.ndarray, got: str) -> None:
    with pytest.raises(FileError, match=f"expected 4 bands.*, got .*{got}"):
        decode_s1(encode_chip_tiff(array))


def test_another_type_is_refused_with_what_helps() -> None:
    with pytest.raises(FileError, match=r"of float64: write the file anew, as float32$"):
        decode_s1(encode_chip_tiff(S1.astype(np.float64)))


@pytest.mark.parametrize("kept", [0, 3, 8, 150, 900, 30_000, 65_000])
def test_truncated_file_is_refused(kept: int) -> None:
    with pytest.raises(FileError, match="expected a GeoTIFF, got "):
        decode_s1(encode_chip_tiff(S1)[:kept])


def test_another_format_is_refused() -> None:
    picture = encode_with_gdal(np.zeros((3, 64, 64), np.uint8), driver="PNG")
    with pytest.raises(FileError, match="expected a GeoTIFF, got "):
        decode_s1(picture)


def test_small_file_of_a_huge_image_is_refused_undecoded() -> None:
    huge = encode_with_gdal(np.zeros((4, 64, 64), np.float32), compress="deflate", tiled=True)
    grown = bytearray(huge)
    for tag in (256, 257):  # width and height: the value lies 8 bytes after the tag
        start = grown.index(tag.to_bytes(2, "little") + b"\x03\x00\x01\x00\x00\x00")
        grown[start + 8 : start + 12] = (65_000).to_bytes(4, "little")
    with pytest.raises(FileError, match="65000 x 65000"):
        decode_s1(bytes(grown))


def test_image_in_one_huge_tile_is_refused_undecoded() -> None:
    data = encode_with_gdal(S1, tiled=True, blockxsize=2048, blockysize=2048, compress="deflate")
    with pytest.raises(FileError, match="blocks of 4194304 pixels"):
        decode_s1(data)


def test_compressed_chip_is_read() -> None:
    np.testing.assert_array_equal(decode_s1(encode_with_gdal(S1, compress="deflate")), S1)


def draw_bands(n_bands: int, dtype: str, side: int = 32) -> np.ndarray:
    return (np.random.default_rng(n_bands).random((n_bands, side, side)) * 1000).astype(dtype)


@pytest.mark.parametrize(("n_bands", "dtype"), LAYOUTS)
@pytest.mark.parametrize("side", [32, 64, 256])
def test_plain_file_is_read_as_gdal_reads_it(n_bands: int, dtype: str, side: int) -> None:
    data = encode_chip_tiff(draw_bands(n_bands, dtype, side))
    layout = {"n_bands": n_bands, "dtype": dtype, "chip_size": side}
    plain = read_plain_tiff(data, **layout)
    np.testing.assert_array_equal(plain, decode_chip_tiff(data, **layout).bands)
    assert not plain.flags.writeable


@pytest.mark.parametrize(("n_bands", "dtype"), LAYOUTS)
def test_another_header_or_size_is_left_to_gdal(n_bands: int, dtype: str) -> None:
    data = encode_chip_tiff(draw_bands(n_bands, dtype))
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
