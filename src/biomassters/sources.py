"""Where the files of chips come from.

Knows how to get the bytes of a chip's files; knows nothing of what is done with them.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

from biomassters.bands import N_MONTHS
from biomassters.catalogue import ChipRecord, FileRecord, feature_filename, target_filename
from biomassters.checksums import posix_cksum
from biomassters.errors import ChipDataError, ParamsError
from biomassters.params.data import DataParams
from biomassters.rasters import encode_chip_tiff
from biomassters.simulator import simulate_chip

FOLDER_VARIABLE: Final = "BIOMASSTERS_FOLDER"

ChipFiles = dict[str, bytes]
"""The bytes of a chip's files by file name."""


class Source(Protocol):
    """A place that has the files of chips.

    Attributes:
        kind: Its name in params.yaml; part of what a packed chip was made from.
    """

    kind: str

    def fetch_chips(self, chips: Sequence[ChipRecord]) -> Iterator[tuple[ChipRecord, ChipFiles]]:
        """Yield each chip with all its files, in any order.

        Raises:
            ChipDataError: A file cannot be had.
        """


class SyntheticSource:
    """Simulates every file."""

    kind = "synthetic"

    def __init__(self, chip_size: int) -> None:
        self.chip_size = chip_size

    def fetch_chips(self, chips: Sequence[ChipRecord]) -> Iterator[tuple[ChipRecord, ChipFiles]]:
        """Yield the chips in the order given."""
        for chip in chips:
            files = simulate_files(chip.chip_id, self.chip_size)
            yield chip, {record.filename: _pick(files, record) for record in list_files(chip)}


class FolderSource:
    """Reads the official layout: `train_features/`, `train_agbm/` and so on under a folder."""

    kind = "folder"

    def __init__(self, root: Path) -> None:
        self.root = root

    def fetch_chips(self, chips: Sequence[ChipRecord]) -> Iterator[tuple[ChipRecord, ChipFiles]]:
        """Yield the chips in the order given."""
        for chip in chips:
            yield chip, {record.filename: self._read(record) for record in list_files(chip)}

    def _read(self, record: FileRecord) -> bytes:
        path = self.root / record.folder / record.filename
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise ChipDataError(
                f"expected the file {path}, got none; add it or take it out of the catalogue"
            ) from None


def open_source(data: DataParams) -> Source:
    """Open the source that params.yaml names.

    Raises:
        ParamsError: It needs an environment variable that is not set to a folder.
    """
    if data.source == "synthetic":
        return SyntheticSource(data.chip_size)
    value = os.environ.get(FOLDER_VARIABLE, "")
    if not Path(value).is_dir() or not value:
        raise ParamsError(
            f"expected the folder of your chips in the environment variable {FOLDER_VARIABLE}"
            f" (data.source is folder), got {value!r}; set it to an existing folder"
        )
    return FolderSource(Path(value))


def simulate_files(chip_id: str, chip_size: int) -> ChipFiles:
    """Simulate a chip and encode all its files: S1, the S2 months that it has, and the target."""
    chip = simulate_chip(chip_id, chip_size)
    files = {}
    for month in range(N_MONTHS):
        files[feature_filename(chip_id, "S1", month)] = encode_chip_tiff(chip.s1[month])
        if chip.s2_present[month]:
            files[feature_filename(chip_id, "S2", month)] = encode_chip_tiff(chip.s2[month])
    files[target_filename(chip_id)] = encode_chip_tiff(chip.agbm[None])
    return files


def list_files(chip: ChipRecord) -> list[FileRecord]:
    """Return the records of all files that a chip has."""
    return [record for record in (*chip.s1, *chip.s2, chip.agbm) if record is not None]


def verify(record: FileRecord, data: bytes) -> None:
    """Hold a file against its record.

    Raises:
        ChipDataError: Its size, or its cksum where the record has one, is another.
    """
    remedy = "fetch it again, or mend the catalogue"
    if len(data) != record.size:
        raise ChipDataError(
            f"expected {record.size} bytes, got {len(data)}, at {record.filename}; {remedy}"
        )
    if record.cksum is not None and posix_cksum(data) != record.cksum:
        raise ChipDataError(
            f"expected cksum {record.cksum}, got {posix_cksum(data)}, at {record.filename};"
            f" {remedy}"
        )


def _pick(files: ChipFiles, record: FileRecord) -> bytes:
    if record.filename not in files:
        raise ChipDataError(
            f"expected an absent month, got {record.filename} in the catalogue of synthetic chips;"
            " use the synthetic catalogue, or set data.source"
        )
    return files[record.filename]
