import gzip
import tarfile
from pathlib import Path

import pytest
from archive_examples import (
    CHIP,
    check_one_bad_file,
    fetch_one,
    flip,
    is_whole,
    make_tar,
    members_of,
    patch_tar,
    raw_tar,
    tar_header,
)

from biomassters.errors import SourceError
from biomassters.sources.archives import tar_members as tar_index

MEMBERS = members_of(CHIP)
PATH = f"train_features/{CHIP}_S1_03.tif"
NAME = f"{CHIP}_S1_03.tif"
SIZE = len(MEMBERS[PATH])
HEADER = tar_header(PATH, SIZE)
FILE = (HEADER, MEMBERS[PATH])
REST = [(tar_header(path, len(data)), data) for path, data in MEMBERS.items() if path != PATH]
TAR = raw_tar(*REST, FILE)
LINKS = {
    "a symbolic link": tarfile.SYMTYPE,
    "a hard link": tarfile.LNKTYPE,
    "a pipe": tarfile.FIFOTYPE,
    "a character device": tarfile.CHRTYPE,
    "a block device": tarfile.BLKTYPE,
}


def pax(text: bytes, kind: bytes = tarfile.XHDTYPE) -> tuple[tarfile.TarInfo, bytes]:
    return tar_header("pax", len(text), kind), text


def record(key: str, value: str) -> bytes:
    size = len(key) + len(value) + 3
    size += len(str(size + len(str(size))))
    return f"{size} {key}={value}\n".encode()


def long_path(path: str, size: int | None = None) -> tuple[tarfile.TarInfo, bytes]:
    data = path.encode() + b"\0"
    return tar_header("././@LongLink", len(data) if size is None else size, b"L"), data


BAD_TAR_MEMBERS = {
    **{
        name: ([(tar_header(PATH, 0, kind), b"")], "a regular file", "a link, folder or device")
        for name, kind in LINKS.items()
    },
    "a folder": (
        # tarfile would add a slash to the path.
        [(patch_tar(tar_header(PATH).tobuf(tarfile.GNU_FORMAT), 156, tarfile.DIRTYPE), b"")],
        "a regular file",
        "a link, folder or device",
    ),
    "of unknown kind": (
        [(tar_header(PATH, SIZE, b"?"), MEMBERS[PATH])],
        "a regular file",
        "a link",
    ),
    "sparse": ([(tar_header(PATH, SIZE, b"S"), MEMBERS[PATH])], "in one piece", "a sparse file"),
    "sparse in pax": (
        [
            pax(record("GNU.sparse.major", "1") + record("GNU.sparse.name", PATH)),
            (tar_header("GNUSparseFile.0/x", SIZE), MEMBERS[PATH]),
        ],
        "in one piece",
        "a sparse file",
    ),
    "absolute": ([(tar_header(f"/{PATH}", SIZE), MEMBERS[PATH])], "a relative path", "another"),
    "above": ([(tar_header(f"../{PATH}", SIZE), MEMBERS[PATH])], "a relative path", "another"),
    "above in pax": ([pax(record("path", f"../{NAME}")), FILE], "a relative path", "another"),
    "above in a long path": ([long_path(f"../{NAME}"), FILE], "a relative path", "another"),
    "shorter": ([(tar_header(PATH, 9), bytes(9))], f"{SIZE} bytes", "9"),
    "longer in pax": (
        [pax(record("size", str(SIZE + 1))), (HEADER, MEMBERS[PATH] + b"1")],
        f"{SIZE} bytes",
        str(SIZE + 1),
    ),
}


@pytest.mark.parametrize(
    ("members", "expected", "got"), BAD_TAR_MEMBERS.values(), ids=BAD_TAR_MEMBERS.keys()
)
def test_bad_member_of_a_tar_is_named_and_the_others_come(
    members: list[tuple[tarfile.TarInfo, bytes]], expected: str, got: str, tmp_path: Path
) -> None:
    (tmp_path / "a.tar").write_bytes(raw_tar(*members, *REST))
    check_one_bad_file(fetch_one(tmp_path), NAME, f".*{expected}.* in a.tar", f"{got}.*")


def test_extension_headers_give_path_and_size(tmp_path: Path) -> None:
    other = patch_tar(tar_header("x", 0).tobuf(tarfile.GNU_FORMAT), 124, b"%011o\0" % 0)
    text = record("size", str(SIZE)) + record("path", PATH) + record("mtime", "1")
    header, data = pax(text)
    piece = raw_tar((header, data), end=b"") + other
    piece += MEMBERS[PATH] + bytes(-SIZE % 512)
    (tmp_path / "a.tar").write_bytes(piece + raw_tar(*REST))
    assert is_whole(fetch_one(tmp_path))


def with_field(at: int, field: bytes) -> bytes:
    """Return a tar of which the first header has another field."""
    data = raw_tar(FILE, *REST)
    return patch_tar(data[:512], at, field) + data[512:]


def test_size_in_base_256_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(with_field(124, b"\x80" + SIZE.to_bytes(11, "big")))
    assert is_whole(fetch_one(tmp_path))


def test_sum_of_signed_bytes_is_accepted(tmp_path: Path) -> None:
    block = bytearray(TAR[:512])
    block[400] = 0xFF
    total = sum(block[:148] + b" " * 8 + block[156:]) - 256
    block[148:156] = b"%06o\0 " % total
    (tmp_path / "a.tar").write_bytes(bytes(block) + TAR[512:])
    assert is_whole(fetch_one(tmp_path))


BAD_TARS = {
    "empty": (b"", "a header or the end mark"),
    "compressed": (gzip.compress(TAR), "a tar header, got other bytes|a header or the end mark"),
    "a page": (b"<html>not found</html>" * 99, "a tar header, got other bytes"),
    "cut in a header": (TAR[:-1024][: -SIZE // 512 * 512 - 300], "bytes of a member|a header or"),
    "cut in a member": (TAR[: -1024 - 512], "bytes of a member, got the archive's end"),
    "without end mark": (TAR[:-1024], "a header or the end mark of a tar, got neither"),
    "with a flipped bit": (flip(TAR, 3), r"a tar header, got other bytes \(byte 0\)"),
    "with a flipped bit behind": (
        flip(TAR, TAR.index(PATH.encode())),
        rf"a tar header, got other bytes \(byte {TAR.index(PATH.encode())}\)",
    ),
    "of negative size": (
        with_field(124, b"\xff" * 12),
        "a number of bytes, got -1|a tar header, got other bytes",
    ),
    "of size 2^88": (with_field(124, b"\x80" + b"\xff" * 11), "bytes of a member, got the arch"),
    "of no size": (with_field(124, b"0x1c8\0"), "a tar header, got other bytes"),
    "with a link that has bytes": (
        raw_tar((tar_header("x", 9, tarfile.LNKTYPE), bytes(9)), FILE, *REST),
        "no bytes of a link, folder or device, got 9",
    ),
    "with a folder that has bytes": (
        raw_tar((tar_header("x/", 9), bytes(9)), FILE, *REST),
        "no bytes of a link, folder or device, got 9",
    ),
    "with an endless path": (raw_tar(long_path("x", 2**30)), r"at most 1048576 bytes of a long"),
    "with a path of nothing": (raw_tar(*REST, FILE, long_path("x")), "a tar header, got other by"),
    "with pax records of zero": (raw_tar(pax(b"0 path=x\n"), FILE), "a tar header, got other by"),
    "with a negative pax size": (
        raw_tar(pax(record("size", "-1")), FILE),
        "a number of bytes, got -1|a tar header, got other bytes",
    ),
    "with a pax size beyond": (raw_tar(pax(record("size", "9" * 20)), FILE), "9{20} bytes of a"),
    "with a path for all": (
        raw_tar(pax(record("path", "x"), tarfile.XGLTYPE), FILE, *REST),
        "path and size of single members, got of all",
    ),
    "sparse without end": (
        patch_tar(tar_header("x", 0, b"S").tobuf(tarfile.GNU_FORMAT), 482, b"\1")
        + (bytes(504) + b"\1" + bytes(7)) * 9,
        "a header or the end mark of a tar, got neither",
    ),
    "with headers of headers": (raw_tar(*[pax(record("mtime", "1"))] * 1000, FILE), "a tar header"),
    "with pax headers of a megabyte": (
        raw_tar(*[pax(record("comment", "x" * 2**18))] * 5, FILE),
        "at most 1048576 bytes of a long header, got 1",
    ),
    "with an endless map of a sparse file": (
        raw_tar(
            pax(record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0")),
            (tar_header("x", 2**21), b"%d\n" % 2**40 + b"1\n" * 2**20),
            FILE,
        ),
        "at most 1048576 bytes of a long header, got 1",
    ),
}


DOUBTFUL_TARS = {
    "two paths": raw_tar(long_path("x"), long_path("y"), FILE, *REST),
    "a path of two kinds": raw_tar(long_path("x"), pax(record("path", "y")), FILE, *REST),
    "two pax paths": raw_tar(pax(record("path", "x") + record("path", "y")), FILE, *REST),
    "pax records too long": raw_tar(pax(b"99 path=x\n"), FILE, *REST),
    "pax records too short": raw_tar(pax(b"7 path=x\n"), FILE, *REST),
}


@pytest.mark.parametrize("data", DOUBTFUL_TARS.values(), ids=DOUBTFUL_TARS.keys())
def test_doubtful_path_costs_its_file_or_the_tar(data: bytes, tmp_path: Path) -> None:
    """Releases of tarfile differ in what they take for a header."""
    (tmp_path / "a.tar").write_bytes(data)
    told = ""
    try:
        fetched = fetch_one(tmp_path)
    except SourceError as error:
        told = str(error)
    else:
        check_one_bad_file(fetched, NAME, "a member of the archives", "none")
    assert not told or told.startswith("expected a tar header, got other bytes (byte 512), at ")


@pytest.mark.parametrize(("data", "message"), BAD_TARS.values(), ids=BAD_TARS.keys())
def test_bad_tar_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(SourceError, match=rf"^expected .*({message}).*, at {tmp_path}/a\.tar; "):
        fetch_one(tmp_path)


def test_endless_tar_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_index, "MOST_MEMBERS", 10)
    (tmp_path / "a.tar").write_bytes(make_tar(MEMBERS))
    with pytest.raises(SourceError, match="at most 10 members, got more"):
        fetch_one(tmp_path)
