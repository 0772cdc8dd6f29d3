"""The POSIX `cksum` of bytes, which the catalogues give for the official files.

Knows the checksum; knows nothing of files and catalogues.
"""

import zlib
from typing import Final

_REVERSED_BITS: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def posix_cksum(data: bytes) -> int:
    """Compute what the command `cksum` prints for `data`, at about the speed of zlib's crc32.

    Both divide by the same polynomial, but zlib takes the bits of each byte from the lowest and
    cksum from the highest. So the bits of every byte are reversed before, and those of the
    result after. cksum starts from register 0 (zlib stores a register inverted, hence the start
    value of all ones) and divides the length, lowest byte first, after the data.

    Source: POSIX.1-2017, Shell and Utilities, cksum.
    """
    length = len(data).to_bytes((len(data).bit_length() + 7) // 8, "little")
    crc = zlib.crc32(data.translate(_REVERSED_BITS), 0xFFFFFFFF)
    crc = zlib.crc32(length.translate(_REVERSED_BITS), crc)
    return int(f"{crc:032b}"[::-1], 2)
