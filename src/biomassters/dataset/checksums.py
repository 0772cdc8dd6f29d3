"""The POSIX `cksum` of bytes, which the catalogues give for the official files.

Knows the checksum; knows nothing of files and catalogues.
"""

from fastcrc.crc32 import cksum


def posix_cksum(data: bytes) -> int:
    """Compute what the command `cksum` prints for `data`, at gigabytes a second.

    The command divides the length too, lowest byte first and no more bytes than it needs, as if
    it stood behind the data; the CRC that is named after it does not.

    Source: POSIX.1-2017, Shell and Utilities, cksum.
    """
    length = len(data).to_bytes((len(data).bit_length() + 7) // 8, "little")
    return cksum(length, cksum(data))
