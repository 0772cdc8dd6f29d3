"""The bytes of one member of a zip.

Knows local headers, deflate and CRC-32; reads and inflates no more than the member may have.

Source: PKWARE, APPNOTE.TXT 6.3.10, sections 4.3.7 and 4.5.3; RFC 1951.
"""

import struct
import zlib
from typing import Final

from biomassters.dataset.files import FileError
from biomassters.sources.archives.index import FAULTS, ZIP_LOCAL_BYTES, Fault, Member, Method
from biomassters.sources.archives.parts import PartReader
from biomassters.sources.archives.zip_directory import FULL_32, find_zip64

_LOCAL: Final = struct.Struct("<4s5H3L2H")
_LOCAL_MARK: Final = b"PK\3\4"
_ENCRYPTED_FLAG: Final = 1 << 0
_DESCRIPTOR_FLAG: Final = 1 << 3
_RAW_DEFLATE: Final = -zlib.MAX_WBITS


def read_zip_member(reader: PartReader, member: Member) -> bytes:
    """Read a member and hold it against its header, its size and its CRC-32.

    Raises:
        FileError: It is damaged, or its two headers contradict each other.
        EndOfArchiveError: The archive ends before it.
    """
    where = f"in {reader.archive.path.name}"
    start = _find_data(reader, member, where)
    if start + member.compressed_size > member.limit:
        expected, got = FAULTS[Fault.OVERLAP]
        raise FileError(f"{expected} {where}", got)
    packed_limit = limit_packed(member.size)
    if member.compressed_size > packed_limit:
        raise FileError(f"at most {packed_limit} packed bytes {where}", str(member.compressed_size))
    packed = reader.read(start, member.compressed_size)
    data = packed if member.method == Method.STORED else inflate(packed, member.size, where)
    if len(data) != member.size:
        raise FileError(f"{member.size} bytes {where}", str(len(data)))
    if (crc := zlib.crc32(data)) != member.crc:
        raise FileError(f"CRC-32 {member.crc:08x} {where}", f"{crc:08x}")
    return data


def limit_packed(size: int) -> int:
    """Return the most bytes that `size` bytes can honestly be packed into.

    zlib's own bound is an eighth and a little; the rest is for other compressors. Without a
    bound, empty deflate blocks would be read for ever without a byte coming out.
    """
    return size + size // 4 + 1024


def inflate(packed: bytes, size: int, where: str) -> bytes:
    """Inflate a raw deflate stream that ends with its last byte.

    Args:
        packed: The stream.
        size: Bytes that should come out; no more than one beyond is inflated.
        where: For the error.

    Raises:
        FileError: It is damaged, or goes on, or has bytes behind it.
    """
    stream = zlib.decompressobj(_RAW_DEFLATE)
    try:
        data = stream.decompress(packed, size + 1)
    except zlib.error as error:
        raise FileError(f"a deflated member {where}", str(error)) from None
    if len(data) > size:
        raise FileError(f"{size} bytes {where}", "more")
    if not stream.eof:
        raise FileError(f"{size} bytes {where}", f"{len(data)}, and no end of the deflated data")
    if stream.unused_data:
        raise FileError(
            f"the end of the deflated data {where}", f"{len(stream.unused_data)} bytes more"
        )
    return data


def _find_data(reader: PartReader, member: Member, where: str) -> int:
    """Hold the local header against the directory's entry, and return where the bytes start."""
    fixed = reader.read(member.offset, ZIP_LOCAL_BYTES)
    mark, _, flags, method, _, _, crc, packed, size, path_size, extra_size = _LOCAL.unpack(fixed)
    if mark != _LOCAL_MARK:
        raise FileError(f"the header of a member {where}", "other bytes")
    # Its extra field may be longer or shorter than the directory's, and only this header says where
    # the bytes start. All else it repeats, and programs differ in which of the two they believe.
    variable = reader.read(member.offset + ZIP_LOCAL_BYTES, path_size + extra_size)
    path = variable[:path_size]
    if path_size != member.path_size or zlib.crc32(path) != member.path_crc:
        raise FileError(f"its own path in its header {where}", "another")
    if flags & _ENCRYPTED_FLAG:
        expected, got = FAULTS[Fault.ENCRYPTED]
        raise FileError(f"{expected} {where}", got)
    if method != member.method:
        raise FileError(f"method {member.method} in its header {where}", f"method {method}")
    zip64 = find_zip64(variable[path_size:]) or b""
    if len(zip64) >= 16 and FULL_32 in (packed, size):
        size, packed = struct.unpack_from("<2Q", zip64)
    # Written in one go, the header comes before what it would say; a record behind says it.
    unknown = {0} if flags & _DESCRIPTOR_FLAG else set()
    for name, got, known in (
        ("CRC-32", crc, member.crc),
        ("packed bytes", packed, member.compressed_size),
        ("bytes", size, member.size),
    ):
        if got != known and got not in unknown:
            raise FileError(f"{known} {name} in its header {where}", str(got))
    return member.offset + ZIP_LOCAL_BYTES + len(variable)
