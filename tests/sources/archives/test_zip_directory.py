import struct
from pathlib import Path

import pytest
from archive_examples import (
    CHIP,
    END_MARK,
    change_end,
    fetch_one,
    find_entry,
    flip,
    is_whole,
    make_zip,
    members_of,
)

from biomassters.errors import SourceError
from biomassters.sources.archives import zip_directory as zip_index

MEMBERS = members_of(CHIP)
PATH = f"train_features/{CHIP}_S1_03.tif"
ZIP = make_zip(MEMBERS)
END = ZIP.rindex(END_MARK)


def zip64_end(size: int = 44, **fields: int) -> bytes:
    """Return a zip with a zip64 end record."""
    _, *values, _ = struct.unpack_from("<4s4H2LH", ZIP, END)
    names = ["disk", "directory_disk", "n_here", "n_entries", "size", "offset"]
    values = [fields.get(name, value) for name, value in zip(names, values, strict=True)]
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", size, 45, 45, *values)
    return ZIP[:END] + record + locator(END) + ZIP[END:]


def locator(offset: int, disk: int = 0, n_disks: int = 1) -> bytes:
    return struct.pack("<4sLQL", b"PK\6\7", disk, offset, n_disks)


BAD_ZIPS = {
    "empty": (b"", "end record at the end, got none"),
    "a page": (b"<html>not found</html>", "end record at the end, got none"),
    "cut off": (ZIP[:-1], "end record at the end, got none"),
    "cut in half": (ZIP[: END // 2], "end record at the end, got none"),
    "without its start": (ZIP[100:], r"the directory to end at byte \d+, got \d+ \(are all parts"),
    "followed by a byte": (ZIP + b"1", "end record at the end, got none"),
    "with two ends": (
        make_zip(MEMBERS, comment=END_MARK + bytes(18)),
        "one end record, got 2",
    ),
    "one entry more": (change_end(ZIP, n_here=99, n_entries=99), r"99 entries in .*, got \d\d"),
    "one entry less": (change_end(ZIP, n_here=1, n_entries=1), r"1 entries in .*, got \d\d"),
    "entries elsewhere": (change_end(ZIP, n_here=1), r"\d\d entries, got 1 on one disk"),
    "directory elsewhere": (change_end(ZIP, offset=0), "the directory to end at byte"),
    "directory of no size": (change_end(ZIP, size=0, offset=END), r"\d\d entries in .*, got 0"),
    "directory moved": (change_end(ZIP, size=END, offset=0), "an entry in the directory"),
    "directory beyond": (change_end(ZIP, offset=2**32 - 1), "the directory to end at byte"),
    "directory on another disk": (change_end(ZIP, directory_disk=1), "a directory on one of its"),
    "on disk 3": (change_end(ZIP, disk=2), "all parts, also a.z01, a.z02, got only a.zip"),
    "on disk 65535": (change_end(ZIP, disk=65_535), "fewer than 65,536 parts"),
    "damaged entry": (flip(ZIP, find_entry(ZIP, PATH) + 1), "an entry in the directory"),
    "longer path": (flip(ZIP, find_entry(ZIP, PATH) + 28), "the directory, got "),
    "zip64 of itself": (ZIP[:END] + locator(END) + ZIP[END:], "a zip64 record before byte"),
    "zip64 at its start": (ZIP[:END] + locator(0) + ZIP[END:], "a zip64 record from byte 0"),
    "zip64 beyond": (ZIP[:END] + locator(2**64 - 1) + ZIP[END:], "a zip64 record before byte"),
    "zip64 on disk 2": (ZIP[:END] + locator(0, 1) + ZIP[END:], "a zip64 record on one of its"),
    "zip64 of many disks": (ZIP[:END] + locator(0, 0, 9) + ZIP[END:], "a zip64 record on one"),
    "zip64 without end": (zip64_end(2**64 - 1), "a zip64 record from byte"),
    "zip64 of its own mind": (zip64_end(n_entries=7), r"7 in both end records, got \d\d in one"),
}


@pytest.mark.parametrize(("data", "message"), BAD_ZIPS.values(), ids=BAD_ZIPS.keys())
def test_bad_zip_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(SourceError, match=rf"^expected .*{message}.*, at {tmp_path}/a\.zip; "):
        fetch_one(tmp_path)


def test_zip64_end_record_that_agrees_is_followed(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(change_end(zip64_end(), n_here=65_535, offset=2**32 - 1))
    assert is_whole(fetch_one(tmp_path))


def test_endless_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_index, "LARGEST_DIRECTORY", 999)
    (tmp_path / "a.zip").write_bytes(ZIP)
    with pytest.raises(SourceError, match=r"a directory of at most 999 bytes, got \d+"):
        fetch_one(tmp_path)
