"""Which members of the archives a run needs, and where each of them lies.

Knows paths, copies, overlaps and why a member is refused; knows nothing of how zips and tars write
their members down.
"""

import zlib
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from biomassters.dataset.files import FileRecord
from biomassters.errors import SourceError

ZIP_LOCAL_BYTES: Final = 30
"""Of a zip member's local header, without name and extra field."""

_COPIES_SHOWN: Final = 3


class Fault(IntEnum):
    """Why a member is refused, though its archive is read."""

    NONE = 0
    PATH = 1
    KIND = 2
    ENCRYPTED = 3
    METHOD = 4
    SPARSE = 5
    PLACE = 6
    OVERLAP = 7


FAULTS: Final = {
    Fault.PATH: ("a relative path without '..' and backslashes", "another"),
    Fault.KIND: ("a regular file", "a link, folder or device"),
    Fault.ENCRYPTED: ("a member without password", "an encrypted one"),
    Fault.METHOD: ("a member stored or deflated", "another compression"),
    Fault.SPARSE: ("a member in one piece", "a sparse file"),
    Fault.PLACE: ("a member within its archive", "one that reaches beyond"),
    Fault.OVERLAP: ("a member with bytes of its own", "one that overlaps another"),
}
"""What is expected instead, and what is there."""


class Method(IntEnum):
    """How a member's bytes are written."""

    STORED = 0
    DEFLATED = 8
    TAR = 255


class Entry(NamedTuple):
    """A member as its archive describes it.

    Attributes:
        path: Its path.
        method: How its bytes are written; without meaning beside a fault.
        offset: Where it starts in the archive: its local header in a zip, its bytes in a tar.
        compressed_size: Bytes that it takes there.
        size: Its own bytes.
        crc: CRC-32 of them; 0 in a tar, which has none.
        fault: Why it is refused.
    """

    path: bytes
    method: int
    offset: int
    compressed_size: int
    size: int
    crc: int
    fault: Fault = Fault.NONE


class Member(NamedTuple):
    """A member that a run needs, as the index keeps it.

    Attributes:
        archive: Number of its archive.
        offset: As in `Entry`.
        compressed_size: As in `Entry`.
        size: As in `Entry`.
        limit: Where its bytes must have ended in the archive.
        crc: As in `Entry`.
        path_crc: CRC-32 of its path, which its local header repeats.
        path_size: Bytes of its path.
        method: As in `Entry`.
        fault: As in `Entry`.
        rank: How well its path fits the record, 1 to 3; 0 = no such member.
        twin: Number of another archive, plus 1, that has one that fits as well; 0 = none.
    """

    archive: int
    offset: int
    compressed_size: int
    size: int
    limit: int
    crc: int
    path_crc: int
    path_size: int
    method: int
    fault: int
    rank: int
    twin: int


_ROW: Final = np.dtype(
    list(
        zip(
            Member._fields,
            ("u4", "u8", "u8", "u8", "u8", "u4", "u4", "u2", "u1", "u1", "u1", "u4"),
            strict=True,
        )
    )
)


class MemberIndex(NamedTuple):
    """The members by file name, 80 bytes each.

    Attributes:
        names: Of the files, bytes, sorted.
        rows: Their members.
    """

    names: NDArray[np.bytes_]
    rows: NDArray[Any]

    def find(self, filename: str) -> Member | None:
        """Return the member for a file, or None."""
        name = filename.encode()
        if len(name) > self.names.dtype.itemsize:
            return None
        # A sorted array of names, not a dict: 80 bytes a file, where a dict of tuples has hundreds,
        # and it goes to every worker.
        position = int(np.searchsorted(self.names, np.array(name, self.names.dtype)))
        if position == len(self.names) or self.names[position] != name:
            return None
        member = Member(*self.rows[position].item())
        return member if member.rank else None


class IndexBuilder:
    """Takes in the entries of archive after archive.

    Attributes:
        positions: Place of each file's member among the rows, by file name.
    """

    def __init__(self, records: Iterable[FileRecord]) -> None:
        folders = {record.filename.encode(): record.folder for record in records}
        # One string for each folder, not one for each file.
        encoded = {folder: folder.encode() for folder in set(folders.values())}
        names = sorted(folders)
        self.positions = {name: position for position, name in enumerate(names)}
        self._folders = [encoded[folders[name]] for name in names]
        self._rows = np.zeros(len(names), _ROW)

    def count_absent(self) -> int:
        """Return the number of files that no archive had so far."""
        return int((self._rows["rank"] == 0).sum())

    def save(self) -> NDArray[Any]:
        """Return all that is known, for `restore`."""
        return self._rows.copy()

    def restore(self, saved: NDArray[Any]) -> None:
        """Forget what was taken in since `save`."""
        self._rows = saved

    def add(self, archive: int, entry: Entry) -> None:
        """Take in an entry whose file name is among `positions`."""
        position = self.positions[file_name(entry.path)]
        # Rank 1 = refused, 2 = the file's name fits, 3 = its folder fits too. A better one replaces
        # what is known; one as good makes it doubtful which of them is meant.
        fault = entry.fault if path_is_plain(entry.path) else Fault.PATH
        rank = 1 if fault else 2 + (self._folders[position] in entry.path.split(b"/")[:-1])
        known = int(self._rows["rank"][position])
        if rank < known:
            return
        if rank == known:
            self._rows["twin"][position] = archive + 1
            return
        self._rows[position] = _make_row(archive, entry, fault, rank)

    def limit(self, archive: int, end: int) -> None:
        """Say where the members of a zip end, and refuse those that overlap."""
        ours = np.flatnonzero((self._rows["archive"] == archive) & (self._rows["rank"] > 1))
        if not ours.size:
            return
        # An honest zip has its members one behind the other. Members that share bytes make a small
        # archive of any number of large files; so each may reach to the start of the next one, and
        # what reaches further, or starts within any earlier one, is refused.
        order = ours[np.argsort(self._rows["offset"][ours], kind="stable")]
        rows = self._rows[order]
        ends = rows["offset"] + rows["compressed_size"] + ZIP_LOCAL_BYTES + rows["path_size"]
        limits = np.append(rows["offset"][1:], np.uint64(end))
        overlap = ends > limits
        overlap[1:] |= rows["offset"][1:] < np.maximum.accumulate(ends)[:-1]
        self._rows["limit"][order] = limits
        self._rows["fault"][order[overlap]] = Fault.OVERLAP

    def finish(self, archives: Sequence[str]) -> MemberIndex:
        """Return the index.

        Args:
            archives: The names of the archives, for the error.

        Raises:
            SourceError: A file is there twice, and no path tells which is meant.
        """
        twice = np.flatnonzero(self._rows["twin"])
        if twice.size:
            raise self._refuse_copies(twice.tolist(), archives)
        return MemberIndex(np.array(list(self.positions), np.bytes_), self._rows)

    def _refuse_copies(self, twice: list[int], archives: Sequence[str]) -> SourceError:
        names = list(self.positions)
        shown = [
            f"{names[position].decode()} in {archives[archive]} and {archives[twin - 1]}"
            for position in twice[:_COPIES_SHOWN]
            for archive, twin in [self._rows[["archive", "twin"]][position].item()]
        ]
        return SourceError(
            f"expected each file in one member, got {len(twice)} files in several, at"
            f" {'; at '.join(shown)}; remove the archives that are not needed"
        )


def file_name(path: bytes) -> bytes:
    """Return the last part of a member's path, whichever slashes it is written with."""
    return path[max(path.rfind(b"/"), path.rfind(b"\\")) + 1 :]


def path_is_plain(path: bytes) -> bool:
    """Tell whether a path is relative and stays within its folder, on any system."""
    return not (
        path.startswith(b"/")
        or b"\\" in path
        or b"\0" in path
        or b":" in path.split(b"/")[0]
        or b".." in path.split(b"/")
    )


def _make_row(archive: int, entry: Entry, fault: Fault, rank: int) -> tuple[int, ...]:
    path = (zlib.crc32(entry.path), len(entry.path))
    if fault:
        # What a refused entry says of itself may not even fit the row.
        return (archive, 0, 0, 0, 0, 0, *path, 0, fault, rank, 0)
    place = (entry.offset, entry.compressed_size, entry.size, 0, entry.crc)
    return (archive, *place, *path, entry.method, fault, rank, 0)
