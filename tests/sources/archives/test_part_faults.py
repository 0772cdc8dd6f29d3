import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from archive_examples import (
    CHIP,
    check_one_bad_file,
    cut,
    fetch_one,
    find_local,
    is_whole,
    make_zip,
    members_of,
    split_zip,
    write_numbered,
    write_split,
)
from example_chips import simulate_record

from biomassters.errors import SourceError
from biomassters.sources.archives.archive_source import ArchiveSource

MEMBERS = members_of(CHIP)
PATH = f"train_features/{CHIP}_S1_03.tif"
NAME = f"{CHIP}_S1_03.tif"
ZIP = make_zip(MEMBERS)
STORED = make_zip(MEMBERS, stored=True)


def write_all(folder: Path) -> None:
    write_split(folder, "a", split_zip(ZIP, 5))


def remove(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        write_all(folder)
        for name in names:
            (folder / name).unlink()

    return change


def add(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        write_all(folder)
        (folder / name).write_bytes(b"x")

    return change


def write_cut(absent: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        write_numbered(folder, "a.zip", cut(ZIP, 5))
        (folder / f"a.zip.{absent:03d}").unlink()

    return change


def write_cut_without_the_last_z(folder: Path) -> None:
    write_split(folder, "a", cut(ZIP, 5))
    (folder / "a.z04").unlink()


def swap(folder: Path) -> None:
    write_all(folder)
    first, second = (folder / "a.z01").read_bytes(), (folder / "a.zip").read_bytes()
    (folder / "a.z01").write_bytes(second)
    (folder / "a.zip").write_bytes(first)


BAD_PARTS = {
    "the first": (remove("a.z01"), r"also a\.z01, got only a\.z02, a\.z03, a\.z04, a\.zip, at"),
    "the second": (remove("a.z02"), r"also a\.z02, got only a\.z01, a\.z03, a\.z04, a\.zip, at"),
    "one but the last": (remove("a.z04"), r"also a\.z04, got only a\.z01, a\.z02, a\.z03, a\.zip,"),
    "the last": (remove("a.zip"), r"also a\.zip, got only a\.z01, a\.z02, a\.z03, a\.z04, at"),
    "two": (remove("a.z01", "a.z03"), r"also a\.z01, a\.z03, got only a\.z02, a\.z04, a\.zip, at"),
    "all but the last": (remove(*[f"a.z0{n}" for n in range(1, 5)]), r"a\.z04, got only a\.zip"),
    "none, but one more": (add("a.z05"), r"5 parts up to a\.z04 and a\.zip, got 6, up to a\.z05"),
    "none, but 0": (add("a.z00"), r"parts from 01, got a\.z00, at"),
    "none, but one twice": (add("a.Z01"), r"each part once, got a\.Z01 and a\.z01, at"),
    "none, but the last twice": (add("a.ZIP"), r"each part once, got a\.ZIP and a\.zip, at"),
    "none, but in disorder": (swap, "end record at the end, got none"),
    "the first of a cut one": (write_cut(1), r"also a\.zip\.001, got only a\.zip\.002, .*005, at"),
    "the third of a cut one": (write_cut(3), r"also a\.zip\.003, got only a\.zip\.001, .*005, at"),
    "the last of a cut one": (write_cut(5), "end record at the end, got none"),
    "a z of a cut one": (write_cut_without_the_last_z, r"the directory to end at.*are all parts"),
}


@pytest.mark.parametrize(("change", "message"), BAD_PARTS.values(), ids=BAD_PARTS.keys())
def test_absent_part_is_named(change: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    change(tmp_path)
    with pytest.raises(SourceError, match=message):
        fetch_one(tmp_path)


def test_part_that_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    write_all(tmp_path)
    (tmp_path / "a.z02").unlink()
    os.mkfifo(tmp_path / "a.z02")
    with pytest.raises(SourceError, match=r"a regular file, got something else, at .*/a\.z02"):
        fetch_one(tmp_path)
    (tmp_path / "a.z02").unlink()
    (tmp_path / "a.z02").mkdir()
    with pytest.raises(SourceError, match=r"a regular file, got a folder, at .*/a\.z02; remove"):
        fetch_one(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda part: part.write_bytes(b"x"), r"expected \d+ bytes as at the start, got 1, at"),
        (lambda part: part.unlink(), "expected a readable file, got no such file or directory, at"),
    ],
)
def test_part_that_changes_meanwhile_ends_the_run(
    change: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    write_all(tmp_path)
    chip = simulate_record(CHIP)
    source = ArchiveSource(tmp_path)
    source.prepare([chip])
    change(tmp_path / "a.z02")
    with pytest.raises(SourceError, match=rf"{message} {tmp_path}/a\.z02; "):
        list(source.fetch_chips([chip]))


def test_part_that_shrinks_while_it_is_read_names_its_files(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(STORED)
    chip = simulate_record(CHIP)
    source = ArchiveSource(tmp_path)
    source.prepare([chip])
    fetched = source.fetch_chips([chip, chip])
    assert is_whole(next(fetched))
    os.truncate(tmp_path / "a.zip", len(STORED) // 2)
    bad = next(fetched).bad_files[-1]
    assert bad.expected.endswith("bytes in a.zip")
    assert bad.got == "the archive's end"


def test_bytes_that_the_disk_cannot_read_name_their_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.zip").write_bytes(STORED)
    chip = simulate_record(CHIP)
    source = ArchiveSource(tmp_path)
    source.prepare([chip])
    read, bad_place = os.pread, find_local(STORED, PATH)

    def fail(file: int, size: int, offset: int) -> bytes:
        if offset <= bad_place < offset + size:
            raise OSError(errno.EIO, "Input/output error")
        return read(file, size, offset)

    monkeypatch.setattr(os, "pread", fail)
    [fetched] = source.fetch_chips([chip])
    check_one_bad_file(fetched, NAME, r"readable bytes in a\.zip", "input/output error")
    bad_place = len(STORED) - 1
    with pytest.raises(SourceError, match=r"got input/output error, at .*/a\.zip; check the disk"):
        source.prepare([chip])


def test_folder_without_archives_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train_features.tar.gz").write_bytes(b"x")
    with pytest.raises(
        SourceError, match=rf"got none, at {tmp_path}; put .* \(decompress \.tar\.gz"
    ):
        fetch_one(tmp_path)
    with pytest.raises(SourceError, match=r"got no such file or directory, at .*/none; name"):
        fetch_one(tmp_path / "none")
