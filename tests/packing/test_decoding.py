import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from example_chips import simulate_record
from rasterio.io import MemoryFile

from biomassters.dataset.files import BadFile, FileError, FileRecord
from biomassters.packing.decoding import (
    check_agbm,
    decode_chip,
    mark_missing_clouds,
    store_backscatter,
)
from biomassters.packing.staging import gather_facts
from biomassters.simulator.official_files import simulate_files
from biomassters.store.chips import Chip
from biomassters.store.georeference import allow_nowhere

CHIP_ID = "5eed0001"


def test_backscatter_is_rounded_to_the_stores_units() -> None:
    s1_db = np.array([-9999, np.nan, -np.inf, -11.126, 6.12, -327.67], np.float32)
    stored = np.empty(6, np.int16)
    store_backscatter(s1_db, stored)
    assert stored.tolist() == [-32768, -32768, -32768, -1113, 612, -32767]


def test_only_backscatter_of_exactly_0_db_is_stored_as_0() -> None:
    s1_db = np.array([0, -0.0, -0.004, 0.004, 0.005, -1e-30, 0.006, -0.014], np.float32)
    stored = np.empty(8, np.int16)
    store_backscatter(s1_db, stored)
    assert stored.tolist() == [0, 0, -1, 1, 1, -1, 1, -1]


@pytest.mark.parametrize("value", [-327.7, 400.0, -9998.0, 3e38])
def test_backscatter_beyond_the_stores_range_is_refused(value: float) -> None:
    s1_db = np.array([-10, -9999, np.nan, value, 328], np.float32)
    with pytest.raises(FileError) as refusal:
        store_backscatter(s1_db, np.empty(5, np.int16))
    assert (
        refusal.value.expected == "backscatter within 327.67 dB of 0 or, where there is none, -9999"
    )
    assert refusal.value.got == f"{value if abs(value) > 328 else 328:g} dB"


@pytest.mark.parametrize(
    ("name", "spoil", "expected"),
    [
        ("5eed0001_S1_03.tif", lambda data: data[:-1], r"^\d+ bytes$"),
        ("5eed0001_agbm.tif", lambda data: data[:-1] + b"?", r"^cksum \d+$"),
    ],
)
def test_decoding_names_every_bad_file_of_a_chip(name, spoil, expected) -> None:
    chip, files = simulate_record(CHIP_ID), simulate_files(CHIP_ID, 32)
    others = {"5eed0001_S1_07.tif": b""}
    bad_files = decode_chip(chip, {**files, name: spoil(files[name]), **others}, 32)
    assert isinstance(bad_files, list)
    assert {bad.filename for bad in bad_files} == {name, *others}
    [bad] = [bad for bad in bad_files if bad.filename == name]
    assert re.search(expected, bad.expected)


def test_plain_and_other_tiffs_of_the_same_pixels_decode_alike() -> None:
    """Deflate in tiles of 16 is no official layout: GDAL decodes it."""
    one, two = decode(simulate_files(CHIP_ID, 32)), decode_rewritten()
    assert isinstance(one, Chip)
    assert isinstance(two, Chip)
    for left, right in zip(one[1:5], two[1:5], strict=True):
        np.testing.assert_array_equal(left, right)


def test_missing_cloud_probability_is_nodata_and_reflectance_only_where_it_is_0() -> None:
    s2 = np.full((11, 2, 2), 2000, np.uint16)
    s2[:, 0, 0] = [0] * 10 + [255]
    s2[10, 0, 1] = 255
    s2[:, 1, 0] = 0  # dark, under a clear sky
    mark_missing_clouds(s2)
    assert s2[:, 0, 0].tolist() == [65535] * 11
    assert s2[:, 0, 1].tolist() == [2000] * 10 + [65535]
    assert s2[:, 1, 0].tolist() == [0] * 11
    assert s2[:, 1, 1].tolist() == [2000] * 11


def test_nodata_that_a_chips_files_declare_is_that_of_the_store() -> None:
    """A quarter of the target, a month's reflectance and backscatter of -50 dB."""

    def spoil(name: str, pixels: np.ndarray) -> dict[str, float]:
        if "_S1_02" in name:
            pixels[1, :3] = -50
            return {"nodata": -50}
        if "_S2_10" in name:
            pixels[:10, 5] = 0
            return {"nodata": 0}
        if "_agbm" in name:
            pixels[0, :16, :16] = -9999
            return {"nodata": -9999}
        return {}

    chip, plain = decode_rewritten(spoil), decode_rewritten()
    assert (chip.s1[2, 1, :3] == -32768).all()
    assert (chip.s2[10, :10, 5] == 65535).all()
    assert np.isnan(chip.agbm[:16, :16]).all()
    np.testing.assert_array_equal(chip.agbm[16:], plain.agbm[16:])
    assert gather_facts(chip)["agbm_nodata"] == 256
    assert gather_facts(chip)["agbm_mean"] > 0


@pytest.mark.parametrize(
    ("value", "got"), [(-9999, "-9999"), (-1, "-1"), (12_345, "12345"), (np.inf, "inf")]
)
def test_target_that_no_forest_has_is_refused_whatever_its_tags_say(value: float, got: str) -> None:
    def spoil(name: str, pixels: np.ndarray) -> dict[str, float]:
        if "_agbm" in name:
            pixels[0, 3, :7] = value
        return {"nodata": -32768} if "_agbm" in name else {}

    [bad] = decode_rewritten(spoil)
    assert bad.filename == f"{CHIP_ID}_agbm.tif"
    assert bad.expected.startswith("AGBM of 0 to 10,000 t/ha and, where there is none, NaN or")
    assert bad.got == f"{got} t/ha (7 of 1024 pixels)"


def test_target_that_rounds_to_0_or_is_at_the_limit_is_kept() -> None:
    check_agbm(np.array([[-0.5, -1e-6, 0, 10_000, np.nan]], np.float32))


def decode(files: Mapping[str, bytes]) -> Chip | list[BadFile]:
    """Decode files of the example chip that have no checksum."""
    chip = simulate_record(CHIP_ID)

    def forget(record: FileRecord | None) -> FileRecord | None:
        return record and record._replace(size=len(files[record.filename]), cksum=None)

    record = chip._replace(
        s1=tuple(map(forget, chip.s1)), s2=tuple(map(forget, chip.s2)), agbm=forget(chip.agbm)
    )
    return decode_chip(record, files, 32)


def decode_rewritten(spoil: Callable[[str, np.ndarray], dict] = lambda *_: {}) -> Any:
    """Decode the example chip from files of another layout, changed by `spoil`, which gives tags.

    Args:
        spoil: Gets a file's name and its pixels, which it may change, and returns options.
    """
    rewritten = {}
    for name, data in simulate_files(CHIP_ID, 32).items():
        with allow_nowhere(), MemoryFile(data) as memory, memory.open() as dataset:
            pixels, profile = dataset.read(), dataset.profile
        profile.update(compress="deflate", tiled=True, blockxsize=16, blockysize=16)
        profile.update(spoil(name, pixels))
        with allow_nowhere(), MemoryFile() as memory:
            with memory.open(**profile) as dataset:
                dataset.write(pixels)
            rewritten[name] = bytes(memory.read())
    return decode(rewritten)
