import re

import numpy as np
import pytest
from example_chips import simulate_record
from rasterio.io import MemoryFile

from biomassters.dataset.files import FileError
from biomassters.packing.decoding import decode_chip, store_backscatter
from biomassters.simulator.official_files import simulate_files
from biomassters.store.chips import Chip
from biomassters.store.georeference import allow_nowhere

CHIP_ID = "5eed0001"


def test_backscatter_is_rounded_to_the_stores_units() -> None:
    s1_db = np.array([-9999, np.nan, -np.inf, -11.126, 0.004, 6.12, -327.67], np.float32)
    stored = np.empty(7, np.int16)
    store_backscatter(s1_db, stored)
    assert stored.tolist() == [-32768, -32768, -32768, -1113, 0, 612, -32767]


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
    chip, files = simulate_record(CHIP_ID), simulate_files(CHIP_ID, 32)
    other = {name: reencode(data) for name, data in files.items()}

    def forget(record):
        return record and record._replace(size=len(other[record.filename]), cksum=None)

    rewritten = chip._replace(
        s1=tuple(map(forget, chip.s1)), s2=tuple(map(forget, chip.s2)), agbm=forget(chip.agbm)
    )
    one, two = (
        decode_chip(chip, files, 32),
        decode_chip(rewritten, other, 32),
    )
    assert isinstance(one, Chip)
    assert isinstance(two, Chip)
    for left, right in zip(one[1:5], two[1:5], strict=True):
        np.testing.assert_array_equal(left, right)


def reencode(data: bytes) -> bytes:
    with allow_nowhere(), MemoryFile(data) as memory, memory.open() as dataset:
        pixels, profile = dataset.read(), dataset.profile
    profile.update(compress="deflate", tiled=True, blockxsize=16, blockysize=16)
    with allow_nowhere(), MemoryFile() as memory:
        with memory.open(**profile) as dataset:
            dataset.write(pixels)
        return bytes(memory.read())
