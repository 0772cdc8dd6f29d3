"""The members of a tar, as the standard library's tarfile finds them.

tarfile knows ustar, GNU and pax headers, and walks from one to the next. It never reads a member's
bytes here; it is given no more bytes of headers than honest ones take, and where it ends in silence
the end mark must stand. Bytes that it finds by a header that lies are caught by size and cksum.
"""

import io
import tarfile
from collections.abc import Container, Iterator
from typing import Final

from biomassters.errors import SourceError
from biomassters.sources.archives.index import Entry, Fault, Method, file_name
from biomassters.sources.archives.parts import Archive, PartReader, refuse

MOST_MEMBERS: Final = 5_000_000
"""Twenty times the files of the whole dataset."""

LONGEST_HEADER: Final = 2**20
"""Bytes of all headers of one member: its own, a long path, pax records, a sparse file's map."""

_END_BLOCK: Final = bytes(tarfile.BLOCKSIZE)
_WITHOUT_BYTES: Final = b"123456"
"""Kinds of members that are links, folders, devices and pipes."""

_OF_SINGLE_MEMBERS: Final = {"path", "size"}


class _Headers(io.RawIOBase):
    """What tarfile reads an archive through: forward only, and headers only.

    Attributes:
        n_read: Bytes that were read for the next member.
        last: Where the last read began.
    """

    def __init__(self, reader: PartReader) -> None:
        self.n_read = 0
        self.last = 0
        self._reader = reader
        self._position = 0

    def tell(self) -> int:
        return self._position

    def seek(self, position: int, whence: int = io.SEEK_SET, /) -> int:  # noqa: ARG002
        # Older releases of tarfile follow a negative size back, to the same header for ever.
        if position < self._position:
            raise _refuse(self._reader.archive, "a tar header", "other bytes", self._position)
        self._position = position
        return position

    def read(self, size: int = -1, /) -> bytes:
        self.n_read += size
        archive, position = self._reader.archive, self._position
        if self.n_read > LONGEST_HEADER:
            expected = f"at most {LONGEST_HEADER} bytes of a long header"
            raise _refuse(archive, expected, f"{self.n_read}", position)
        if position + size > archive.size:
            raise _refuse(archive, "a header or the end mark of a tar", "neither", position)
        self.last = position
        self._position += size
        return self._reader.read(position, size)


def iterate_tar_entries(reader: PartReader, wanted: Container[bytes]) -> Iterator[Entry]:
    """Yield the members whose file name is wanted.

    Raises:
        SourceError: The archive is damaged or cut off.
    """
    archive = reader.archive
    headers = _Headers(reader)
    try:
        # Paths come back as the bytes that they are, whatever their encoding.
        tar = tarfile.TarFile(fileobj=headers, encoding="utf-8", errors="surrogateescape")
        for _ in range(MOST_MEMBERS):
            member = tar.next()
            if member is None:
                break
            tar.members.clear()  # type: ignore[attr-defined]  # it would keep them all
            headers.n_read = 0
            entry = _read_entry(archive, member)
            if _OF_SINGLE_MEMBERS & tar.pax_headers.keys():
                raise _refuse(archive, "path and size of single members", "of all", member.offset)
            if file_name(entry.path) in wanted:
                yield entry
        else:
            raise _refuse(archive, f"at most {MOST_MEMBERS} members", "more", headers.last)
    # Numbers that are none, and headers of headers without end, end in the latter two.
    except (tarfile.TarError, ValueError, RecursionError):
        raise _refuse(archive, "a tar header", "other bytes", headers.last) from None
    # It takes a damaged header behind the first for the end.
    if reader.read(tar.offset, len(_END_BLOCK)) != _END_BLOCK:
        raise _refuse(archive, "a tar header", "other bytes", tar.offset)


def _read_entry(archive: Archive, member: tarfile.TarInfo) -> Entry:
    path = member.name.encode("utf-8", "surrogateescape")
    size, start = member.size, member.offset_data
    if member.issparse() or any(key.startswith("GNU.sparse.") for key in member.pax_headers):
        return Entry(path, Method.TAR, start, 0, 0, 0, Fault.SPARSE)
    if size and (member.type in _WITHOUT_BYTES or path.endswith(b"/")):
        # Some programs skip that many bytes here, some none: they see different members.
        raise _refuse(archive, "no bytes of a link, folder or device", str(size), start)
    if size < 0:
        raise _refuse(archive, "a number of bytes", str(size), start)
    if start + size > archive.size:
        raise _refuse(archive, f"{size} bytes of a member", "the archive's end", start)
    fault = Fault.NONE if member.isreg() else Fault.KIND
    return Entry(path, Method.TAR, start, size, size, 0, fault)


def _refuse(archive: Archive, expected: str, got: str, position: int) -> SourceError:
    return refuse(archive.path, expected, f"{got} (byte {position})")
