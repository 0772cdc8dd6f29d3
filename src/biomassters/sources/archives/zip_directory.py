"""The central directory of a zip: which members it has, and where.

Knows the end records, zip64, split zips and the directory's entries. Whatever the archive says is
held against its size before it is believed.

The standard library's zipfile does not read the official archives, which are split: it refuses
"zipfiles that span multiple disks". Of any other zip it would keep an object for each member,
wanted or not.

A zip is read from its end. The last record is the end record, with a comment of up to 65,535 bytes
behind it; before it stand, if numbers do not fit into it, the locator of the zip64 record and that
record; before these the central directory, with an entry a member. A disk is a part as the program
that split the archive knew it: "disk 1, byte 30" of parts of 100, 100 and 50 bytes is byte 130 of
the whole.

Source: PKWARE, APPNOTE.TXT 6.3.10, sections 4.3 to 4.5 and 8; Info-ZIP's split archives.
"""

import struct
from collections.abc import Container, Iterator
from typing import Final, NamedTuple

from biomassters.errors import SourceError
from biomassters.sources.archives.index import ZIP_LOCAL_BYTES, Entry, Fault, Method, file_name
from biomassters.sources.archives.parts import (
    Archive,
    PartReader,
    list_part_names,
    refuse,
    refuse_parts,
)

LARGEST_DIRECTORY: Final = 256 * 2**20
"""Bytes; a directory with twenty times the members of the whole dataset is smaller."""

FULL_16: Final = 2**16 - 1
FULL_32: Final = 2**32 - 1
"""What a field says whose value stands in the zip64 record instead."""

_END: Final = struct.Struct("<4s4H2LH")
_END_MARK: Final = b"PK\5\6"
_END_64: Final = struct.Struct("<4sQ2H2L4Q")
_END_64_MARK: Final = b"PK\6\6"
_LOCATOR: Final = struct.Struct("<4sLQL")
_LOCATOR_MARK: Final = b"PK\6\7"
_ENTRY: Final = struct.Struct("<4s6H3L5H2L")
_ENTRY_MARK: Final = b"PK\1\2"
_FIELD: Final = struct.Struct("<2H")
_ZIP64_FIELD: Final = 1
_ENCRYPTED_FLAGS: Final = 1 << 0 | 1 << 6 | 1 << 13
_PATCH_FLAG: Final = 1 << 5
_KIND_BITS: Final = 0o170000
_REGULAR_KINDS: Final = (0, 0o100000)
_BLOCK_BYTES: Final = 2**20


class ZipDirectory(NamedTuple):
    """Where the central directory of a zip lies.

    Attributes:
        start: Its place in the whole archive.
        size: Its bytes.
        n_entries: Its entries.
        disk_starts: Where each disk starts that an entry may name, and the end of the last.
    """

    start: int
    size: int
    n_entries: int
    disk_starts: tuple[int, ...]


class _End(NamedTuple):
    """What the end records say, those of zip64 included."""

    disk: int
    directory_disk: int
    n_here: int
    n_entries: int
    size: int
    offset: int


def find_directory(reader: PartReader) -> ZipDirectory:
    """Find the central directory by the records at the archive's end.

    Raises:
        SourceError: Parts are absent, or the records contradict each other or the archive.
    """
    archive = reader.archive
    position, end = _find_end(reader)
    disk_starts = _find_disks(archive, end.disk)
    position, end = _follow_zip64(reader, position, end, disk_starts)
    if end.directory_disk >= len(disk_starts) - 1:
        raise _refuse_record(archive, "a directory on one of its disks", f"disk {end[1]}")
    start = disk_starts[end.directory_disk] + end.offset
    if start + end.size != position:
        raise _refuse_record(
            archive,
            f"the directory to end at byte {position}",
            f"{start + end.size} (are all parts whole?)",
        )
    if end.size > LARGEST_DIRECTORY:
        raise _refuse_record(
            archive, f"a directory of at most {LARGEST_DIRECTORY} bytes", str(end.size)
        )
    if end.n_here > end.n_entries or (end.disk == 0 and end.n_here != end.n_entries):
        raise _refuse_record(archive, f"{end.n_entries} entries", f"{end.n_here} on one disk")
    return ZipDirectory(start, end.size, end.n_entries, disk_starts)


def iterate_entries(
    reader: PartReader, directory: ZipDirectory, wanted: Container[bytes]
) -> Iterator[Entry]:
    """Yield the entries whose file name is wanted.

    Raises:
        SourceError: The directory is damaged.
    """
    archive = reader.archive
    n_entries, rest, position = 0, b"", directory.start
    end = directory.start + directory.size
    while position < end:
        # A megabyte at a time; the entry that it cuts in two waits in `rest` for the next.
        block = rest + reader.read(position, min(_BLOCK_BYTES, end - position))
        position += len(block) - len(rest)
        at = 0
        while len(block) - at >= _ENTRY.size:
            fields = _ENTRY.unpack_from(block, at)
            if fields[0] != _ENTRY_MARK:
                raise _refuse_record(archive, "an entry in the directory", "other bytes")
            path_end = at + _ENTRY.size + fields[10]
            extra_end = path_end + fields[11]
            next_at = extra_end + fields[12]
            if next_at > len(block):
                break
            path = block[at + _ENTRY.size : path_end]
            if file_name(path) in wanted:
                yield _read_entry(directory, path, fields, block[path_end:extra_end])
            n_entries += 1
            at = next_at
        rest = block[at:]
    if rest or n_entries != directory.n_entries:
        got = f"{n_entries} and {len(rest)} bytes" if rest else str(n_entries)
        raise _refuse_record(archive, f"{directory.n_entries} entries in the directory", got)


def find_zip64(extra: bytes) -> bytes | None:
    """Return the zip64 field of an extra field: b"" where it has none, None where it is damaged."""
    found, at = b"", 0
    while len(extra) - at >= _FIELD.size:
        number, size = _FIELD.unpack_from(extra, at)
        at += _FIELD.size
        if number == _ZIP64_FIELD:
            if found or at + size > len(extra):
                return None
            found = extra[at : at + size]
        at += size
    return found


def _find_end(reader: PartReader) -> tuple[int, _End]:
    """Return the end record that closes the archive, and its place."""
    archive = reader.archive
    size = min(archive.size, _END.size + FULL_16)
    tail = reader.read(archive.size - size, size)
    # Its mark may stand anywhere by chance. Only where the comment behind it, as long as it says,
    # ends with the archive is it the end record.
    places = []
    at = tail.rfind(_END_MARK, 0, max(size - _END.size + len(_END_MARK), 0))
    while at >= 0:
        if at + _END.size + _END.unpack_from(tail, at)[-1] == size:
            places.append(at)
        at = tail.rfind(_END_MARK, 0, at + len(_END_MARK) - 1)
    if not places:
        raise _refuse_record(archive, "a zip's end record at the end", "none")
    # A second one within the comment of the first: each reader would see another archive.
    if len(places) > 1:
        raise _refuse_record(archive, "one end record", str(len(places)))
    _, *fields, _ = _END.unpack_from(tail, places[0])
    return archive.size - size + places[0], _End(*fields)


def _find_disks(archive: Archive, last_disk: int) -> tuple[int, ...]:
    """Return where each disk starts: parts that a plain cut made are one disk together."""
    n_parts = len(archive.parts)
    if last_disk == 0:
        return (0, archive.size)
    if last_disk == n_parts - 1:
        return archive.starts
    if last_disk == FULL_16:
        raise _refuse_record(archive, "fewer than 65,536 parts", "more")
    expected = list_part_names(archive, last_disk + 1)
    found = {part.name.lower() for part in archive.parts}
    absent = [name for name in expected if name.lower() not in found]
    if absent:
        raise refuse_parts(archive.path, absent, archive.parts)
    raise refuse(
        archive.path,
        f"{last_disk + 1} parts up to {expected[-2]} and {expected[-1]}",
        f"{n_parts}, up to {archive.parts[-2].name}",
        "remove the parts of another archive",
    )


def _follow_zip64(
    reader: PartReader, position: int, end: _End, disk_starts: tuple[int, ...]
) -> tuple[int, _End]:
    """Return the zip64 end record and its place, or what was given where there is none."""
    archive = reader.archive
    if position < _LOCATOR.size:
        return position, end
    located = position - _LOCATOR.size
    mark, disk, offset, n_disks = _LOCATOR.unpack(reader.read(located, _LOCATOR.size))
    if mark != _LOCATOR_MARK:
        return position, end
    if disk >= len(disk_starts) - 1 or n_disks > len(disk_starts) - 1:
        raise _refuse_record(archive, "a zip64 record on one of its disks", f"disk {disk}")
    start = disk_starts[disk] + offset
    if start + _END_64.size > located:
        raise _refuse_record(archive, f"a zip64 record before byte {located}", f"at {start}")
    mark, size, _, _, *fields = _END_64.unpack(reader.read(start, _END_64.size))
    # Its size does not count its own first 12 bytes; what the record is longer by has no meaning.
    if mark != _END_64_MARK or start + 12 + size != located:
        raise _refuse_record(archive, f"a zip64 record from byte {start} to {located}", "none")
    full = (FULL_16, FULL_16, FULL_16, FULL_16, FULL_32, FULL_32)
    for narrow, wide, stand_in in zip(end, fields, full, strict=True):
        if narrow not in (wide, stand_in):
            raise _refuse_record(archive, f"{wide} in both end records", f"{narrow} in one")
    return start, _End(*fields)


def _read_entry(
    directory: ZipDirectory, path: bytes, fields: tuple[int, ...], extra: bytes
) -> Entry:
    _, _, _, flags, method, _, _, crc, *wide, _, _, _, disk, _, attributes, offset = fields
    values = _widen(find_zip64(extra), [wide[1], wide[0], offset, disk])
    if values is None:
        return _refused(path, Fault.PLACE)
    size, compressed_size, offset, disk = values
    starts = directory.disk_starts
    if disk >= len(starts) - 1 or offset >= starts[disk + 1] - starts[disk]:
        return _refused(path, Fault.PLACE)
    offset += starts[disk]
    end = offset + ZIP_LOCAL_BYTES + len(path) + compressed_size
    if end > directory.start:
        return _refused(path, Fault.PLACE)
    if flags & _ENCRYPTED_FLAGS:
        return _refused(path, Fault.ENCRYPTED)
    if flags & _PATCH_FLAG or method not in (Method.STORED, Method.DEFLATED):
        return _refused(path, Fault.METHOD)
    if (attributes >> 16) & _KIND_BITS not in _REGULAR_KINDS:
        return _refused(path, Fault.KIND)
    return Entry(path, method, offset, compressed_size, size, crc)


def _widen(zip64: bytes | None, values: list[int]) -> list[int] | None:
    """Take from a zip64 field, in order, the values that have no room outside it.

    Args:
        zip64: The field, which has no others: 8 bytes if only the size has no room outside.
        values: As the entry has them: size, compressed size, offset, disk.

    Returns:
        All four; None where the field is damaged.
    """
    if zip64 is None:
        return None
    at = 0
    for index, (full, layout) in enumerate(
        [(FULL_32, "<Q"), (FULL_32, "<Q"), (FULL_32, "<Q"), (FULL_16, "<L")]
    ):
        if values[index] != full:
            continue
        size = struct.calcsize(layout)
        if at + size > len(zip64):
            return None
        (values[index],) = struct.unpack_from(layout, zip64, at)
        at += size
    return values


def _refused(path: bytes, fault: Fault) -> Entry:
    return Entry(path, Method.STORED, 0, 0, 0, 0, fault)


def _refuse_record(archive: Archive, expected: str, got: str) -> SourceError:
    return refuse(archive.path, expected, got)
