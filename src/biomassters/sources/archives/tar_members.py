"""The members of a tar: one walk from header to header, past the bytes between.

Knows ustar, GNU and pax headers. Whatever a header says is held against the archive's size before
it is believed.

Source: POSIX.1-2017, Shell and Utilities, pax; GNU tar 1.35 manual, "Basic Tar Format".
"""

import re
from collections.abc import Container, Iterator
from typing import Final, NamedTuple

from biomassters.errors import SourceError
from biomassters.sources.archives.index import Entry, Fault, Method, file_name
from biomassters.sources.archives.parts import Archive, PartReader, refuse

BLOCK_BYTES: Final = 512
_END_BLOCK: Final = bytes(BLOCK_BYTES)
MOST_HEADERS: Final = 5_000_000
"""Twenty times the files of the whole dataset."""

LONGEST_EXTENSION: Final = 2**20
"""Bytes of a header that describes the next one: a long path, or pax records."""

_REGULAR: Final = (b"\0", b"0", b"7")
_WITHOUT_BYTES: Final = b"123456"
_LONG_PATH: Final = b"L"
_LONG_LINK: Final = b"K"
_PAX_GLOBAL: Final = b"g"
_EXTENSIONS: Final = b"LKgxX"
"""Kinds of headers that describe the member behind them; x and X hold pax records."""

_GNU_SPARSE: Final = b"S"
_USTAR_MARK: Final = b"ustar\0"
_CHECKSUM: Final = slice(148, 156)
_GNU_SPARSE_GOES_ON: Final = 482
_SPARSE_MAP_GOES_ON: Final = 504
_SPARSE_KEY: Final = b"GNU.sparse."
_SPARSE_NAME: Final = b"GNU.sparse.name"
_OCTAL: Final = re.compile(rb"[0-7]*")
_DECIMAL: Final = re.compile(rb"[0-9]{1,20}")
_PAX_RECORD: Final = re.compile(rb"([1-9][0-9]{0,7}) ([^=\n]{1,1024})=")


class _Header(NamedTuple):
    path: bytes
    size: int
    kind: bytes
    goes_on: bool


class _Extension(NamedTuple):
    """What the headers before a member's own say of it; None = nothing."""

    path: bytes | None = None
    size: int | None = None
    sparse: bool = False


_NOTHING: Final = _Extension()


def iterate_tar_entries(reader: PartReader, wanted: Container[bytes]) -> Iterator[Entry]:
    """Yield the members whose file name is wanted.

    Raises:
        SourceError: The archive is damaged, cut off, or can be understood in several ways.
    """
    archive = reader.archive
    extension = _NOTHING
    position = 0
    for _ in range(MOST_HEADERS):
        block = _read_block(reader, position)
        if block == _END_BLOCK:
            if extension != _NOTHING:
                raise _refuse(archive, "a member behind its long header", "the end", position)
            return
        header = _parse_header(archive, block, position)
        position += BLOCK_BYTES
        if header.kind in _EXTENSIONS:
            extension = _read_extension(reader, header, position, extension)
            position = _skip(archive, position, header.size)
            continue
        if header.kind == _GNU_SPARSE and header.goes_on:
            position = _skip_sparse_map(reader, position)
        path = header.path if extension.path is None else extension.path
        size = header.size if extension.size is None else extension.size
        if size and (header.kind in _WITHOUT_BYTES or path.endswith(b"/")):
            # Some programs skip that many bytes here, some none: they see different members.
            raise _refuse(archive, "no bytes of a link, folder or device", str(size), position)
        end = _skip(archive, position, size)
        if file_name(path) in wanted:
            fault = _find_fault(header, extension)
            yield Entry(path, Method.TAR, position, size, size, 0, fault)
        position, extension = end, _NOTHING
    raise _refuse(archive, f"at most {MOST_HEADERS} headers", "more", position)


def _read_block(reader: PartReader, position: int) -> bytes:
    if position + BLOCK_BYTES > reader.archive.size:
        raise _refuse(reader.archive, "a header or the end mark of a tar", "neither", position)
    return reader.read(position, BLOCK_BYTES)


def _parse_header(archive: Archive, block: bytes, position: int) -> _Header:
    # The sum counts its own field as blanks; some old programs took the bytes as signed.
    rest = block[: _CHECKSUM.start] + b" " * 8 + block[_CHECKSUM.stop :]
    known = _parse_number(block[_CHECKSUM])
    total = sum(rest)
    if known != total and known != total - 256 * sum(byte > 127 for byte in rest):
        raise _refuse(archive, "a tar header", "other bytes", position)
    size = _parse_number(block[124:136])
    if size is None:
        raise _refuse(archive, "a number of bytes", repr(block[124:136]), position)
    path = block[:100].split(b"\0", 1)[0]
    if block[257:263] == _USTAR_MARK and (prefix := block[345:500].split(b"\0", 1)[0]):
        path = prefix + b"/" + path
    return _Header(path, size, block[156:157], bool(block[_GNU_SPARSE_GOES_ON]))


def _parse_number(field: bytes) -> int | None:
    """Read a number in octal or, where its first bit is set, in base 256; None = no such."""
    if field[0] & 0x80:
        # Negative ones come out as large as no archive is.
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    digits = field.split(b"\0", 1)[0].strip()
    if not _OCTAL.fullmatch(digits):
        return None
    return int(digits or b"0", 8)


def _read_extension(
    reader: PartReader, header: _Header, position: int, known: _Extension
) -> _Extension:
    """Return what is known of the next member after one more header that describes it."""
    archive = reader.archive
    if header.size > LONGEST_EXTENSION:
        expected = f"at most {LONGEST_EXTENSION} bytes of a long header"
        raise _refuse(archive, expected, str(header.size), position)
    _skip(archive, position, header.size)
    if header.kind == _LONG_LINK:
        return known
    data = reader.read(position, header.size)
    if header.kind == _LONG_PATH:
        new = _Extension(data.split(b"\0", 1)[0])
    else:
        new = _parse_pax(archive, data, position)
    if header.kind == _PAX_GLOBAL:
        if new != _NOTHING:
            raise _refuse(archive, "path and size of single members", "of all", position)
        return known
    if _NOTHING not in (known, new):
        raise _refuse(archive, "one header that gives a path or size", "two", position)
    return new if known == _NOTHING else known


def _parse_pax(archive: Archive, data: bytes, position: int) -> _Extension:
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        match = _PAX_RECORD.match(data, at)
        end = at + int(match[1]) if match else 0
        if match is None or not match.end() < end <= len(data) or data[end - 1 : end] != b"\n":
            raise _refuse(archive, "pax records", "other bytes", position)
        if match[2] in records:
            raise _refuse(archive, "each pax record once", repr(match[2]), position)
        records[match[2]] = data[match.end() : end - 1]
        at = end
    size = records.get(b"size")
    if size is not None and not _DECIMAL.fullmatch(size):
        raise _refuse(archive, "a number of bytes", repr(size[:40]), position)
    path = records.get(_SPARSE_NAME, records.get(b"path"))
    sparse = any(key.startswith(_SPARSE_KEY) for key in records)
    return _Extension(path, None if size is None else int(size), sparse)


def _skip_sparse_map(reader: PartReader, position: int) -> int:
    """Return where the blocks end that say where a sparse file has its pieces."""
    goes_on = True
    while goes_on:
        goes_on = bool(_read_block(reader, position)[_SPARSE_MAP_GOES_ON])
        position += BLOCK_BYTES
    return position


def _find_fault(header: _Header, extension: _Extension) -> Fault:
    if extension.sparse or header.kind == _GNU_SPARSE:
        return Fault.SPARSE
    return Fault.NONE if header.kind in _REGULAR else Fault.KIND


def _skip(archive: Archive, position: int, size: int) -> int:
    """Return where the next header is, `size` bytes on."""
    end = position + -(-size // BLOCK_BYTES) * BLOCK_BYTES
    if end > archive.size:
        raise _refuse(archive, f"{size} bytes of a member", "the archive's end", position)
    return end


def _refuse(archive: Archive, expected: str, got: str, position: int) -> SourceError:
    return refuse(archive.path, expected, f"{got} (byte {position})")
