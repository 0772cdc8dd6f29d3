"""What every source of chips' files does, and how it tells of files that are bad."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from biomassters.dataset.files import (
    BadFile,
    ChipFiles,
    ChipRecord,
    FileError,
    FileRecord,
    list_files,
)
from biomassters.processes.environment import FOLDER_VARIABLE, Environment, refuse_variable


class FetchedChip(NamedTuple):
    """A chip as it came from a source.

    Attributes:
        chip: Which one.
        files: All its files or, where some are bad, as many as there are.
        bad_files: Those that could not be had, after all retries; empty = all is there.
    """

    chip: ChipRecord
    files: ChipFiles
    bad_files: tuple[BadFile, ...] = ()


class Source(Protocol):
    """A place that has the files of chips. It can be pickled, so that any process may read it.

    Attributes:
        kind: Its name in params.yaml; part of what a packed chip was made from.
    """

    kind: str

    def prepare(self, chips: Sequence[ChipRecord]) -> None:
        """Do once, before any process fetches, what these chips need: an index, a download.

        Raises:
            SourceError: The place cannot be used at all.
        """

    def fetch_chips(self, chips: Iterable[ChipRecord]) -> Iterator[FetchedChip]:
        """Yield each chip with all its files, in any order.

        A source may take a few chips more from `chips` than it has yielded, to read ahead.

        Raises:
            SourceError: The place cannot be used at all; a bad file alone ends nothing.
        """


class MeasuringSource(Source, Protocol):
    """A source that knows the size of a file, whatever the file's record says."""

    def measure(self, record: FileRecord) -> FileRecord | None:
        """Return a record with the size that its file has here; None = the file is not here.

        Args:
            record: Of a chip that `prepare` was given.
        """


def gather_files(chip: ChipRecord, read: Callable[[FileRecord], bytes]) -> FetchedChip:
    """Read all files of a chip.

    Args:
        chip: Whose files.
        read: Returns a file's bytes, or raises `FileError`.
    """
    results: dict[str, bytes | FileError] = {}
    for record in list_files(chip):
        try:
            results[record.filename] = read(record)
        except FileError as fault:
            results[record.filename] = fault
    return sort_files(chip, results)


def sort_files(chip: ChipRecord, results: Mapping[str, bytes | FileError]) -> FetchedChip:
    """Part a chip's files from those that could not be had.

    Args:
        chip: Whose files.
        results: The bytes of each of its files, or why there are none, by file name.
    """
    files: ChipFiles = {}
    bad_files = []
    for record in list_files(chip):
        result = results[record.filename]
        if isinstance(result, FileError):
            bad = BadFile(chip.chip_id, record.filename, result.expected, result.got)
            bad_files.append(bad)
        else:
            files[record.filename] = result
    return FetchedChip(chip, files, tuple(bad_files))


def read_folder_variable(source: str) -> Path:
    """Return the folder that the environment variable BIOMASSTERS_FOLDER names.

    Args:
        source: The value of data.source, for the error.

    Raises:
        ParamsError: It is not set to an existing folder.
    """
    value = Environment().folder or ""
    # Path.is_dir raises where a folder above may not be looked into.
    if not os.path.isdir(value):  # noqa: PTH112
        raise refuse_variable(
            FOLDER_VARIABLE,
            expected="the folder of your chips",
            got=value,
            remedy="set it to an existing folder",
            context=f" (data.source is {source})",
        )
    return Path(value)
