"""TIFFs from strangers: an array as asked for, or one error of one line; never anything else."""

import json
import os
import pickle
import re
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hostile_tiffs import SIDE, Tag, build_tiff, draw_pixels, write_tiff

from biomassters.dataset.chip_tiffs import ChipRaster, decode_chip_tiff
from biomassters.dataset.files import FileError
from biomassters.dataset.tiff_tags import find_fault
from biomassters.store.georeference import allow_nowhere
from repository_copy import ROOT

FUZZER = ROOT / "tests/fuzzing/fuzz_tiffs.py"
MODULES = (ROOT / "src", ROOT / "tests/support")
PIXELS = draw_pixels("S1")
LOCAL_CRS = ((1024, 0, 1, 1), (3072, 0, 1, 32767))


def decode(data: bytes) -> ChipRaster:
    return decode_chip_tiff(data, n_bands=4, dtype=np.float32, chip_size=SIDE)


def add_metadata(xml: bytes) -> dict[int, Tag | None]:
    return {42112: Tag(2, xml + b"\0")}


def add_keys(*keys: tuple[int, int, int, int], text: bytes = b"") -> dict[int, Tag | None]:
    """GeoTIFF's keys; those with 34737 in the second place count characters of the text."""
    directory = [1, 1, 0, len(keys), *(number for key in keys for number in key)]
    tags: dict[int, Tag | None] = {34735: Tag(3, directory)}
    return tags | ({34737: Tag(2, text)} if text else {})


def test_fuzzed_files_are_read_or_refused_and_nothing_else() -> None:
    """Some 2,000; the fuzzer's own docstring says how to try more."""
    done = subprocess.run(
        [sys.executable, FUZZER, "2000"],
        env={"PYTHONPATH": os.pathsep.join(map(str, MODULES))},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), "the last lines name the file"
    found = json.loads(done.stdout)
    assert found["read"] > 200
    assert found["refused"] > 200
    assert found["grown"] < 64 * 2**20


@pytest.mark.parametrize("order", "<>")
def test_sound_file_is_read_in_either_byte_order(order: str) -> None:
    np.testing.assert_array_equal(decode(build_tiff(order=order)).bands, PIXELS)


@pytest.mark.parametrize("options", [{"BIGTIFF": "YES"}, {"compress": "zstd"}, {"tiled": True}])
def test_other_sound_layouts_are_read(options: Mapping[str, object]) -> None:
    np.testing.assert_array_equal(decode(write_tiff("S1", **options)).bands, PIXELS)


def test_nodata_of_nan_changes_no_pixel() -> None:
    data = build_tiff({42113: Tag(2, b"nan\0")})
    np.testing.assert_array_equal(decode(data).bands, PIXELS)


def test_directory_that_leads_to_itself_is_read_once() -> None:
    np.testing.assert_array_equal(decode(build_tiff(next_directory=8)).bands, PIXELS)


def test_many_directories_behind_the_first_are_not_read() -> None:
    start = len(build_tiff())
    n_more, size = 50_000, 18
    more = b"".join(
        struct.pack("<HHHIII", 1, 254, 4, 1, 1, start + size * number)
        for number in range(1, n_more + 1)
    )
    data = build_tiff(next_directory=start) + more
    np.testing.assert_array_equal(decode(data).bands, PIXELS)


@pytest.mark.parametrize(
    ("changes", "got"),
    [
        ({256: Tag(4, [2**31 - 1])}, f"4 bands of {SIDE} x 2147483647 of float32"),
        ({257: Tag(4, [2**31 - 1])}, f"4 bands of 2147483647 x {SIDE} of float32"),
        ({277: Tag(3, [65_535]), 258: Tag(3, [32]), 339: Tag(3, [3]), 338: None}, "65535 bands"),
        ({273: Tag(4, [0]), 279: Tag(4, [0])}, "none of that in row 0, column 0"),
        ({273: Tag(4, [0])}, "none of that in row 0, column 0"),
        ({273: Tag(4, [0], 2**31)}, "one whose tag 273 has 8589934592 bytes"),
        ({279: Tag(4, [0], 2**32 - 1)}, "one whose tag 279 has 17179869180 bytes"),
        ({270: Tag(2, b"x" * 70_000)}, "one whose tag 270 has 70000 bytes"),
        (add_metadata(b"<a>" * 40_000), "one whose tag 42112 has 120001 bytes"),
        ({34712: Tag(3, [1]), 259: Tag(3, [34_712])}, "missing codec"),
        ({259: Tag(3, [7])}, "Not a JPEG file"),
        (
            add_keys((1024, 0, 1, 1), (1026, 34737, 4, 0), text=b"\xff\xfe\x1b|\0"),
            "text that is not UTF-8",
        ),
        (
            add_keys(*LOCAL_CRS, (1026, 34737, 5, 0), text=b"a\x1b[3m|\0"),
            r"a CRS with the character '\x1b'",
        ),
        ({34264: Tag(12, [10.0, 0, 0, float("inf"), 0, -10, 0, 0, *[0.0] * 7, 1])}, "a transform"),
    ],
)
def test_lying_tags_are_refused_by_name(changes: Mapping[int, Tag | None], got: str) -> None:
    with pytest.raises(FileError) as caught:
        decode(build_tiff(changes))
    assert got in caught.value.got
    assert str(caught.value) == f"expected {caught.value.expected}, got {caught.value.got}"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"II*\0",
        b"\x89PNG\r\n\x1a\n" + bytes(60),
        b'<VRTDataset rasterXSize="16" rasterYSize="16"><VRTRasterBand dataType="Float32" band="1">'
        b"<SimpleSource><SourceFilename>/etc/hostname</SourceFilename></SimpleSource>"
        b"</VRTRasterBand></VRTDataset>",
        b"/vsicurl/http://127.0.0.1/x.tif",
        b"II+\0\x08\0\0\0" + b"\xff" * 60,
        b"MM\0*" + b"\xff" * 60,
        b"II*\0\x08\0\0\0" + b"\xff" * 60,
    ],
    ids=lambda data: repr(data[:12]),
)
def test_what_is_no_tiff_never_reaches_gdal(data: bytes) -> None:
    assert find_fault(data) is not None
    with pytest.raises(FileError, match=r"expected a GeoTIFF, got .+"):
        decode(data)


def test_block_that_was_never_written_is_refused_and_not_read_as_zeros() -> None:
    data = bytearray(write_tiff("S2", blockysize=2))
    with rasterio.MemoryFile(bytes(data)) as memory, memory.open() as dataset:
        assert dataset.block_shapes[0] == (2, SIDE)
        third = int(dataset.get_tag_item("BLOCK_OFFSET_0_2", "TIFF", bidx=1))
    for place in find_all(bytes(data), third.to_bytes(4, "little")):
        data[place : place + 4] = bytes(4)
    with pytest.raises(FileError, match="each block, got none of that in row 2, column 0"):
        decode_chip_tiff(bytes(data), n_bands=11, dtype=np.uint16, chip_size=SIDE)


def find_all(data: bytes, part: bytes) -> list[int]:
    return [place for place in range(len(data)) if data.startswith(part, place)]


def test_file_that_names_another_has_it_not_read(tmp_path: Path) -> None:
    """GDAL reads it, from wherever, when it is asked for overviews; the gate never asks."""
    with serving(tmp_path) as (address, log):
        item = f'<Item name="OVERVIEW_FILE" domain="OVERVIEWS">/vsicurl/{address}/x.tif</Item>'
        data = build_tiff(add_metadata(f"<GDALMetadata>{item}</GDALMetadata>".encode()))
        np.testing.assert_array_equal(decode(data).bands, PIXELS)
        assert "x.tif" not in log.read_text()
        with allow_nowhere(), rasterio.MemoryFile(data) as memory, memory.open() as dataset:
            dataset.overviews(1)
        assert "x.tif" in log.read_text(), "the attack is real"


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, Path]]:
    """Serve an empty folder; give the address, and the log of who asked for what.

    In a process of its own: rasterio lets no other thread run while GDAL reads.
    """
    log = folder / "log"
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as server,
    ):
        assert server.stdout is not None
        match = re.search(r"http://127\.0\.0\.1:\d+", server.stdout.readline())
        assert match is not None
        yield match[0], log
        server.kill()


def test_error_says_the_same_in_another_process() -> None:
    with pytest.raises(FileError) as caught:
        decode(b"")
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301  # our own
    assert (str(copy), copy.got) == (str(caught.value), caught.value.got)


def test_reason_is_gdals_own_without_the_name_of_the_file_in_memory() -> None:
    with pytest.raises(FileError) as caught:
        decode(build_tiff({273: Tag(4, [2**31])}))
    assert caught.value.got.startswith("TIFFReadEncodedStrip:Read error")
    assert "vsimem" not in str(caught.value)
