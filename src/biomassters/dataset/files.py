"""The files of a chip: their names, where they lie, and whether the bytes are those.

Knows the official names, addresses, sizes and checksums; what is in a file, `chip_tiffs` knows.
"""

import re
from typing import Final, Literal, NamedTuple, TypeAlias

from fastcrc.crc32 import cksum

Split: TypeAlias = Literal["train", "test"]
SPLITS: Final[tuple[Split, ...]] = ("train", "test")
Region: TypeAlias = Literal["us", "eu", "as"]
REGIONS: Final[tuple[Region, ...]] = ("us", "eu", "as")

LARGEST_FILE: Final = 2**28
"""Bytes, for a file is held in memory: S2 of 2,048 pixels has 92 million."""

S3Folders: TypeAlias = tuple[str, str, str]
"""Where a file lies in S3, such as `s3://bucket/prefix`, by `REGIONS`; "" = nowhere."""

ChipFiles: TypeAlias = dict[str, bytes]
"""The bytes of a chip's files by file name."""

_SCHEME: Final = "s3://"
# Source: Amazon S3 User Guide, "General purpose bucket naming rules".
_BUCKET: Final = r"[a-z0-9](?:[a-z0-9-]|\.(?!\.)){1,61}[a-z0-9]"
# Of the characters that a key may have, those that mean the same in every URL, file system and
# shell; without a dot in front, no name is `.` or `..`.
_NAME: Final = r"[0-9A-Za-z_=-][0-9A-Za-z_.=-]*"
_S3_FOLDER: Final = re.compile(rf"s3://{_BUCKET}(?:/{_NAME})*", re.ASCII)
_LONGEST_S3_FOLDER: Final = 1024


class FileRecord(NamedTuple):
    """One file of a chip.

    Attributes:
        filename: Its name, such as `0003d2eb_S1_00.tif`.
        folder: `train_features`, `test_features`, `train_agbm` or `test_agbm`.
        size: Bytes.
        cksum: Its POSIX cksum, where the catalogue gives one.
        s3_folders: Where it lies in the public buckets.
    """

    filename: str
    folder: str
    size: int
    cksum: int | None
    s3_folders: S3Folders = ("", "", "")

    def find_address(self, region: Region) -> str | None:
        """Return its address in the bucket of a region, or None where the catalogue has none."""
        folder = self.s3_folders[REGIONS.index(region)]
        return f"{folder}/{self.filename}" if folder else None


class ChipRecord(NamedTuple):
    """The files of one chip.

    Attributes:
        chip_id: Its name.
        split: Its split.
        s1: The S1 files, one a month.
        s2: The S2 files, one a month; None = absent month.
        agbm: The target's file; None = no target is known.
    """

    chip_id: str
    split: Split
    s1: tuple[FileRecord, ...]
    s2: tuple[FileRecord | None, ...]
    agbm: FileRecord | None


class FileError(Exception):
    """Why one file cannot be had or used, raised while it is read; a `BadFile` is made of it.

    Attributes:
        expected: What was expected, such as `1049524 bytes`.
        got: What was found instead.
    """

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(expected, got)
        self.expected = expected
        self.got = got

    def __str__(self) -> str:
        return f"expected {self.expected}, got {self.got}"


class BadFile(NamedTuple):
    """The record of a file that cannot be had, or is not what the catalogue says.

    Attributes:
        chip_id: Whose file it is.
        filename: Its name.
        expected: As in `FileError`.
        got: As in `FileError`.
    """

    chip_id: str
    filename: str
    expected: str
    got: str


def feature_filename(chip_id: str, sensor: str, month: int) -> str:
    """Return the official name of a feature file; `sensor` is S1 or S2."""
    return f"{chip_id}_{sensor}_{month:02d}.tif"


def target_filename(chip_id: str) -> str:
    """Return the official name of a target file."""
    return f"{chip_id}_agbm.tif"


def list_files(chip: ChipRecord) -> list[FileRecord]:
    """Return the records of all files that a chip has."""
    return [record for record in (*chip.s1, *chip.s2, chip.agbm) if record is not None]


def verify(record: FileRecord, data: bytes) -> None:
    """Hold a file against its record.

    Raises:
        FileError: Its size, or its cksum where the record has one, is another.
    """
    if len(data) != record.size:
        raise FileError(f"{record.size} bytes", str(len(data)))
    if record.cksum is not None and (got := posix_cksum(data)) != record.cksum:
        raise FileError(f"cksum {record.cksum}", str(got))


def posix_cksum(data: bytes) -> int:
    """Compute what the command `cksum` prints for `data`, at gigabytes a second.

    The command divides the length too, lowest byte first and no more bytes than it needs, as if
    it stood behind the data; the CRC that is named after it does not.

    Source: POSIX.1-2017, Shell and Utilities, cksum.
    """
    length = len(data).to_bytes((len(data).bit_length() + 7) // 8, "little")
    return cksum(length, cksum(data))


def is_s3_folder(text: str) -> bool:
    """Tell whether a text is `s3://bucket` or `s3://bucket/prefix`, without a slash at its end."""
    return len(text) <= _LONGEST_S3_FOLDER and _S3_FOLDER.fullmatch(text) is not None


def split_address(address: str) -> tuple[str, str]:
    """Return the bucket and the key of the address of an object in S3."""
    bucket, _, key = address.removeprefix(_SCHEME).partition("/")
    return bucket, key
