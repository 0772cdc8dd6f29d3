import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest
from archive_examples import (
    CHIP,
    END_MARK,
    change_end,
    change_entry,
    change_local,
    check_one_bad_file,
    fetch_one,
    find_entry,
    find_local,
    flip,
    is_whole,
    make_zip,
    members_of,
    raw_tar,
    tar_header,
)

from biomassters.dataset.files import FileError
from biomassters.errors import SourceError
from biomassters.sources.archives import archive_source as archives
from biomassters.sources.archives.zip_members import inflate

MEMBERS = members_of(CHIP)
PATH = f"train_features/{CHIP}_S1_03.tif"
NEXT = f"train_features/{CHIP}_S1_04.tif"
NAME = f"{CHIP}_S1_03.tif"
SIZE = len(MEMBERS[PATH])
ZIP = make_zip(MEMBERS)
STREAMED = make_zip(MEMBERS, streamed=True)
STORED = make_zip(MEMBERS, stored=True)
OTHERS = {path: data for path, data in MEMBERS.items() if path != PATH}
END = ZIP.rindex(END_MARK)
SYMLINK, FOLDER, DEVICE = 0o120777 << 16, 0o040755 << 16, 0o060644 << 16


def rename(path: str) -> bytes:
    """Return a zip with one member under another path."""
    return make_zip({**OTHERS, path: MEMBERS[PATH]})


def deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(9, wbits=-15)
    return stream.compress(data) + stream.flush()


def add_extra(extra: bytes, **fields: int) -> bytes:
    """Return a zip of which one entry has an extra field."""
    data = change_entry(ZIP, PATH, **fields)
    at = find_entry(data, PATH)
    data = data[: at + 30] + struct.pack("<H", len(extra)) + data[at + 32 :]
    end = at + 46 + len(PATH)
    data = data[:end] + extra + data[end:]
    size = struct.unpack_from("<L", data, data.rindex(END_MARK) + 12)[0]
    return change_end(data, size=size + len(extra))


def put_deflated(stream: bytes, size: int = SIZE) -> bytes:
    """Return a zip in which one member is this stream, said to give `size` bytes."""
    data = make_zip({**OTHERS, PATH: stream}, stored=True)
    fields = {"method": 8, "compressed_size": len(stream), "size": size, "crc": 0}
    return change_local(change_entry(data, PATH, **fields), PATH, **fields)


BAD_MEMBERS = {
    "encrypted": (change_entry(ZIP, PATH, flags=1), "without password", "encrypted"),
    "encrypted strongly": (change_entry(ZIP, PATH, flags=1 << 6), "without password", "encrypted"),
    "encrypted, in its header": (change_local(ZIP, PATH, flags=1), "without password", "encrypted"),
    "deflate64": (change_entry(ZIP, PATH, method=9), "stored or deflated", "another"),
    "a patch": (change_entry(ZIP, PATH, flags=1 << 5), "stored or deflated", "another"),
    "a link": (change_entry(ZIP, PATH, attributes=SYMLINK), "a regular file", "a link"),
    "a folder": (change_entry(ZIP, PATH, attributes=FOLDER), "a regular file", "a link"),
    "a device": (change_entry(ZIP, PATH, attributes=DEVICE), "a regular file", "a link"),
    "absolute": (rename(f"/etc/{NAME}"), "a relative path", "another"),
    "above": (rename(f"train_features/../../{NAME}"), "a relative path", "another"),
    "with backslashes": (rename(f"train_features\\{NAME}"), "a relative path", "another"),
    "on a drive": (rename(f"C:/{NAME}"), "a relative path", "another"),
    "beyond": (change_entry(ZIP, PATH, offset=2**31), "within its archive", "beyond"),
    "in the directory": (change_entry(ZIP, PATH, offset=END - 99), "within its archive", "beyond"),
    "on another disk": (change_entry(ZIP, PATH, disk=1), "within its archive", "beyond"),
    "endless": (change_entry(ZIP, PATH, compressed_size=2**31), "within its archive", "beyond"),
    "of another size": (change_entry(ZIP, PATH, size=SIZE + 1), f"{SIZE} bytes", str(SIZE + 1)),
    "with other bytes for a header": (change_local(ZIP, PATH, mark=0), "the header", "other"),
    "of another's path": (flip(ZIP, find_local(ZIP, PATH) + 33), "its own path", "another"),
    "of another method": (change_local(ZIP, PATH, method=0), "method 8 in its", "method 0"),
    "with another crc in its header": (change_local(ZIP, PATH, crc=7), r"CRC-32 in its", "7"),
    "with another size in its header": (change_local(ZIP, PATH, size=7), "bytes in its", "7"),
    "with other packed bytes": (change_local(ZIP, PATH, compressed_size=7), "packed bytes", "7"),
    "with a long extra field": (change_local(ZIP, PATH, extra_size=65_535), "its own", "overlaps"),
    "with a long path": (change_local(ZIP, PATH, path_size=65_535), "its own path", "another"),
    "with another crc": (change_entry(STREAMED, PATH, crc=7), "CRC-32 00000007", "[0-9a-f]{8}"),
    "cut short": (change_entry(STREAMED, PATH, compressed_size=99), f"{SIZE} bytes", "no end"),
    "stored with a flipped bit": (flip(STORED, find_local(STORED, PATH) + 999), "CRC-32", ".{8}"),
    "stored and shorter": (
        change_local(change_entry(STORED, PATH, compressed_size=9), PATH, compressed_size=9),
        f"{SIZE} bytes",
        "9",
    ),
    "no deflated data": (put_deflated(b"\xff" * 99), "a deflated member", "Error -3"),
    "followed by bytes": (put_deflated(deflate(bytes(SIZE)) + b"1"), "the end of", "1 bytes more"),
    "a bomb": (put_deflated(deflate(bytes(2**24))), f"{SIZE} bytes", "more"),
    "an honest bomb": (put_deflated(deflate(bytes(2**27)), 2**27), f"{SIZE} bytes", str(2**27)),
    "empty blocks": (put_deflated(b"\0\0\0\xff\xff" * 99_999), "at most .* packed bytes", "499995"),
    "zip64 twice": (add_extra(struct.pack("<2HQ", 1, 8, 0) * 2, offset=2**32 - 1), "within", ""),
    "zip64 cut off": (add_extra(struct.pack("<2HL", 1, 4, 0), offset=2**32 - 1), "within", ""),
    "zip64 too long": (add_extra(struct.pack("<2HQ", 1, 99, 0), offset=2**32 - 1), "within", ""),
    "zip64 beyond": (
        add_extra(struct.pack("<2HQ", 1, 8, 2**64 - 1), offset=2**32 - 1),
        "within its archive",
        "beyond",
    ),
    "zip64 and of another size": (
        add_extra(struct.pack("<2HQ", 1, 8, 2**64 - 1), size=2**32 - 1),
        f"{SIZE} bytes",
        str(2**64 - 1),
    ),
}


@pytest.mark.parametrize(("data", "expected", "got"), BAD_MEMBERS.values(), ids=BAD_MEMBERS.keys())
def test_bad_member_of_a_zip_is_named_and_the_others_come(
    data: bytes, expected: str, got: str, tmp_path: Path
) -> None:
    (tmp_path / "a.zip").write_bytes(data)
    tracemalloc.start()
    fetched = fetch_one(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    check_one_bad_file(fetched, NAME, f".*{expected}.* in a.zip", f".*{got}.*")
    assert peak < 8 * 2**20


def test_overlapping_members_are_refused(tmp_path: Path) -> None:
    offset = find_local(ZIP, PATH)
    (tmp_path / "a.zip").write_bytes(change_entry(ZIP, NEXT, offset=offset))
    bad_files = fetch_one(tmp_path).bad_files
    assert [bad.filename for bad in bad_files] == [NAME, Path(NEXT).name]
    assert {bad[2:] for bad in bad_files} == {
        ("a member with bytes of its own in a.zip", "one that overlaps another")
    }


def test_bad_members_that_nobody_needs_are_ignored(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("train_features/link.tif")
    link.external_attr = SYMLINK
    extra = [("/etc/passwd", b"x"), ("../../x.tif", b"x"), ("a\\b", b"x"), (link, b"/etc/passwd")]
    (tmp_path / "a.zip").write_bytes(make_zip([*MEMBERS.items(), *extra]))
    assert is_whole(fetch_one(tmp_path))


def test_good_member_is_taken_before_a_bad_one_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(make_zip([(f"/{PATH}", b"x"), *MEMBERS.items()]))
    (tmp_path / "b.tar").write_bytes(raw_tar((tar_header(PATH, 0, tarfile.SYMTYPE), b"")))
    assert is_whole(fetch_one(tmp_path))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_path_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(make_zip([*MEMBERS.items(), (PATH, b"another")]))
    with pytest.raises(SourceError, match=f"got 1 files in several, at {NAME} in a.zip and a.zip;"):
        fetch_one(tmp_path)


def test_member_larger_than_memory_should_take_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.zip").write_bytes(ZIP)
    monkeypatch.setattr(archives, "LARGEST_FILE", 1)
    bad_files = fetch_one(tmp_path).bad_files
    assert len(bad_files) == len(MEMBERS)
    assert bad_files[0].expected == "at most 1 bytes"


def test_inflate_stops_one_byte_beyond() -> None:
    assert inflate(deflate(b"0123456789"), 10, "here") == b"0123456789"
    with pytest.raises(FileError, match="9 bytes here"):
        inflate(deflate(b"0123456789"), 9, "here")
