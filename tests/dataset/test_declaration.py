"""Rasters that declare something of their values, written by rasterio as users write them."""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import rasterio
from hostile_tiffs import build_tiff

from biomassters.dataset.chip_tiffs import ChipRaster, decode_chip_tiff, encode_chip_tiff
from biomassters.dataset.declaration import follow_agbm, follow_s1, follow_s2
from biomassters.dataset.files import FileError
from biomassters.dataset.tiff_tags import MOST_DIRECTORIES, measure_mask_block
from biomassters.store.bands import S1_BANDS, S2_BANDS

SIDE = 16
AGBM = np.full((1, SIDE, SIDE), 120, np.float32)
S1 = np.full((4, SIDE, SIDE), -11.5, np.float32)
S2 = np.full((11, SIDE, SIDE), 2400, np.uint16)
S2[10] = 30


def write(
    pixels: np.ndarray, mask: np.ndarray | None = None, *, tags: dict | None = None, **options: Any
) -> bytes:
    with rasterio.MemoryFile() as memory, rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        with memory.open(
            driver="GTiff",
            count=len(pixels),
            height=SIDE,
            width=SIDE,
            dtype=pixels.dtype,
            transform=rasterio.Affine(10, 0, 350_000, 0, -10, 6_900_000),
            **options,
        ) as dataset:
            dataset.write(pixels)
            for name, value in (tags or {}).items():
                setattr(dataset, name, value)
            if mask is not None:
                dataset.write_mask(mask)
        return bytes(memory.read())


def decode(data: bytes, like: np.ndarray) -> ChipRaster:
    return decode_chip_tiff(data, n_bands=len(like), dtype=like.dtype, chip_size=SIDE)


def follow(pixels: np.ndarray, mask: np.ndarray | None = None, **options: Any) -> np.ndarray:
    """Write a file, read it, and return its values in the catalogue's units."""
    raster = decode(write(pixels, mask, **options), pixels)
    to_units = {1: follow_agbm, 4: follow_s1, 11: follow_s2}[len(pixels)]
    return to_units(raster.bands, raster.declared)


def tag(n_bands: int, scale: float, offset: float) -> dict[str, Sequence[float]]:
    return {"scales": [scale] * n_bands, "offsets": [offset] * n_bands}


@pytest.mark.parametrize("array", [AGBM, S1, S2])
def test_file_that_declares_nothing_has_no_declaration(array: np.ndarray) -> None:
    assert decode(encode_chip_tiff(array), array).declared is None
    assert decode(write(array), array).declared is None


@pytest.mark.parametrize("value", [-9999.0, 0.0, -3.4028234663852886e38, 1e20, 65535.0, np.nan])
def test_declared_nodata_of_a_target_is_nan(value: float) -> None:
    agbm = AGBM.copy()
    agbm[0, :4] = value
    got = follow(agbm, nodata=value)
    np.testing.assert_array_equal(np.isnan(got[0]), np.arange(SIDE)[:, None] < [4] * SIDE)
    assert (got[0, 4:] == 120).all()


def test_nodata_value_that_no_pixel_has_changes_nothing() -> None:
    data = write(AGBM, nodata=-9999)
    assert decode(data, AGBM).declared is None


def test_nodata_value_that_the_type_cannot_hold_marks_no_pixel() -> None:
    """55,537 is what -9999 wraps to in uint16."""
    s2 = S2.copy()
    s2[0, 0] = 55_537
    data = write(s2, nodata=12345)
    assert data.count(b"12345\0") == 1
    assert decode(data.replace(b"12345\0", b"-9999\0"), s2).declared is None


@pytest.mark.parametrize(
    "options", [{}, {"compress": "deflate"}, {"tiled": True, "blockxsize": 16, "blockysize": 16}]
)
@pytest.mark.parametrize(
    ("array", "nodata"), [(AGBM, np.nan), (S1, -9999), (S2, 65535)], ids=["agbm", "s1", "s2"]
)
def test_masked_pixels_are_nodata_in_all_bands(array, nodata, options) -> None:
    mask = np.full((SIDE, SIDE), 255, np.uint8)
    mask[2, 3:8] = 0
    got = follow(array, mask, **options)
    np.testing.assert_array_equal(got[:, 2, 3:8], np.full((len(array), 5), nodata, array.dtype))
    np.testing.assert_array_equal(got[:, mask > 0], array[:, mask > 0])


def test_declared_nodata_of_backscatter_is_nodata_and_so_is_the_convention() -> None:
    s1 = S1.copy()
    s1[1, 0], s1[2, 1] = -50, -9999
    got = follow(s1, nodata=-50)
    assert (got[1, 0] == -9999).all()
    assert (got[2, 1] == -9999).all()
    assert np.count_nonzero(got == -9999) == 2 * SIDE


def test_backscatter_is_scaled_to_db_and_nodata_before_that() -> None:
    s1 = np.full((4, SIDE, SIDE), -1150, np.float32)
    s1[0, 0] = -9999
    got = follow(s1, tags=tag(4, 0.01, 0.5))
    assert got[0, 1:].ravel().tolist() == pytest.approx([-11.0] * (15 * SIDE))
    assert (got[0, 0] == -9999).all()


def test_target_is_scaled_and_nodata_is_not() -> None:
    agbm = AGBM.copy()
    agbm[0, 0] = -1
    got = follow(agbm, nodata=-1, tags={**tag(1, 0.1, 2), "units": ["Mg ha^-1"]})
    assert np.isnan(got[0, 0]).all()
    assert got[0, 1:].ravel().tolist() == pytest.approx([14.0] * (15 * SIDE))


def test_nodata_of_0_marks_dark_bands_but_no_clear_sky() -> None:
    """GeoTIFF has one nodata value for all bands, and a cloud probability of 0 is the best."""
    s2 = S2.copy()
    s2[3, 0] = 0  # one band alone
    s2[10, 1] = 0  # a clear sky
    s2[:, 2] = 0  # no image
    got = follow(s2, nodata=0)
    assert (got[3, 0] == 65535).all()
    assert (got[10, 1] == 0).all()
    assert (got[:, 2] == 65535).all()
    assert np.count_nonzero(got == 65535) == (1 + 11) * SIDE


@pytest.mark.parametrize(("scale", "offset"), [(1e-4, -0.1), (1, -1000)])
def test_offset_of_baseline_04_00_is_applied(scale: float, offset: float) -> None:
    """DN 2,400 of such a file is a reflectance of 0.14."""
    s2 = S2.copy()
    s2[0, 0] = 900  # below 0: nothing that can be stored
    tags = {"scales": [scale] * 10 + [1], "offsets": [offset] * 10 + [0]}
    got = follow(s2, tags=tags)
    assert (got[:10, 1:] == 1400).all()
    assert (got[0, 0] == 0).all()
    assert (got[10] == 30).all()


def test_scale_that_says_that_values_are_dn_changes_nothing() -> None:
    np.testing.assert_array_equal(follow(S2, tags={"scales": [1e-4] * 10 + [0.01]}), S2)


@pytest.mark.parametrize(
    ("array", "tags", "message"),
    [
        (
            S2,
            tag(11, 0.0002, 0),
            "reflectance in DN, or a scale of 0.0001 .*, got a scale of 0.0002",
        ),
        (S2, tag(11, 1, -0.1), "reflectance in DN.*, got a scale of 1, an offset of -0.1"),
        (
            S2,
            tag(11, 1e-4, 0),
            "cloud probability in %, or a scale of 0.01 .*got a scale of 0.0001",
        ),
        (S2, tag(11, float("nan"), 0), "got a scale of nan"),
        (S1, tag(4, 0, 3), "a scale other than 0 and a finite offset, got a scale of 0"),
        (AGBM, tag(1, 1, float("inf")), "got a scale of 1, an offset of inf"),
        (AGBM, {"units": ["kg/m2"]}, "expected values in t/ha, got the declared unit 'kg/m2'"),
        (
            S1,
            {"units": ["dB", "dB", "1", "dB"]},
            "expected values in dB, got the declared unit '1'",
        ),
        (S2, {"descriptions": ["B04", "B03", *S2_BANDS[2:]]}, "B2 as band 1, got .* name 'B04'"),
        (S1, {"descriptions": ["VV", "VV", "VH", "VH"]}, "VH ascending as band 2, got .*'VV'"),
        (S1, {"descriptions": ["VV desc", "VH", "VV", "VH"]}, "VV ascending as band 1, got"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(array, tags, message) -> None:
    with pytest.raises(FileError, match=message):
        follow(array, tags=tags)


@pytest.mark.parametrize("unit", ["t/ha", "Mg/ha", "t ha-1", "Mg ha**-1", "tonnes per hectare"])
def test_spellings_of_the_catalogues_unit_are_accepted(unit: str) -> None:
    np.testing.assert_array_equal(follow(AGBM, tags={"units": [unit]}), AGBM)


def test_bands_named_in_the_catalogues_order_are_accepted() -> None:
    zeros = [name.replace("B", "B0") if len(name) == 2 else name for name in S2_BANDS]
    np.testing.assert_array_equal(follow(S2, tags={"descriptions": zeros}), S2)
    np.testing.assert_array_equal(follow(S1, tags={"descriptions": S1_BANDS}), S1)
    np.testing.assert_array_equal(follow(S1, tags={"descriptions": ["a", "b", "c", "d"]}), S1)


@pytest.mark.parametrize("array", [S1, S2])
def test_transparency_in_place_of_a_band_is_refused(array: np.ndarray) -> None:
    with pytest.raises(FileError, match=r"bands of data alone, got band \d+ as transparency"):
        decode(write(array, alpha="yes"), array)


def add_directory(kind: int, **tile: int) -> bytes:
    """Return a sound S1 file with a second directory, of an image of another kind."""
    start = len(build_tiff())
    tags = {254: kind, 256: SIDE, 257: SIDE, **{int(name[1:]): n for name, n in tile.items()}}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, n) for tag, n in sorted(tags.items()))
    return build_tiff(next_directory=start) + struct.pack("<H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize(("kind", "size"), [(0, 0), (1, 0), (4, 64 * 32), (5, 64 * 32)])
def test_only_a_mask_counts_among_the_directories(kind: int, size: int) -> None:
    assert measure_mask_block(add_directory(kind, t322=64, t323=32)) == size


def test_mask_that_would_grow_to_gigabytes_is_refused() -> None:
    data = add_directory(4, t322=65_536, t323=65_536)
    like = np.zeros((4, SIDE, SIDE), np.float32)
    with pytest.raises(FileError, match="one with a mask in blocks of 4294967296 pixels"):
        decode(data, like)


def test_directories_without_end_are_not_followed() -> None:
    start, size = len(build_tiff()), 18
    n_more = MOST_DIRECTORIES + 1
    more = b"".join(
        struct.pack("<HHHIII", 1, 254, 4, 1, 4, start + size * number)
        for number in range(1, n_more + 1)
    )
    assert measure_mask_block(build_tiff(next_directory=start) + more) == 0
    assert measure_mask_block(build_tiff(next_directory=8)) == 0
