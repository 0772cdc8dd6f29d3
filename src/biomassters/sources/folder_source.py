"""Chips' files in a folder: the official layout, and those that people end up with.

A file is looked for at its official place first, `train_features/x.tif` and so on. If it is not
there, the first place that has it counts, of the folder itself and all folders up to two below it,
sorted by path: all files flat, the official folders nested in another or in themselves, a folder
for each chip, batches of any name.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Final

from biomassters.dataset.files import ChipRecord, FileError, FileRecord, list_files
from biomassters.errors import SourceError
from biomassters.processes.environment import FOLDER_VARIABLE
from biomassters.sources.source import FetchedChip, gather_files

DEPTH: Final = 2
"""Folders below the root that are searched."""

_N_PROBES: Final = 8
_CHIP_FILE: Final = re.compile(r"[\w-]+_(S[12]_\d\d|agbm)\.tif", re.ASCII)


class FolderSource:
    """Reads chips' files from a folder, wherever they lie in it.

    Links are followed: people link their data. In a folder with the official layout nothing is
    ever listed; any other is listed once, in `prepare`, or at the first file that is not found.

    Attributes:
        root: The folder.
        name: What an error calls it.
    """

    kind = "folder"

    def __init__(self, root: Path, name: str = FOLDER_VARIABLE) -> None:
        self.root = root
        self.name = name
        self._places: dict[str, str] | None = None

    def prepare(self, chips: Sequence[ChipRecord]) -> None:
        """Look for a few files at their official places, and list the folder if one is absent.

        Raises:
            SourceError: The folder has not one file of these chips.
        """
        if all(_is_file(self._official(record)) for record in _choose_probes(chips)):
            return
        self._places = list_places(self.root)
        records = chain.from_iterable(map(list_files, chips))
        if not any(self._find(record) for record in records):
            example = _choose_probes(chips)[0].filename
            raise SourceError(
                f"expected files of the catalogue's chips, such as {example}, at most {DEPTH}"
                f" folders deep, got none, at {self.root};"
                f" name the folder that has them in {self.name}"
            )

    def measure(self, record: FileRecord) -> FileRecord | None:
        """Return a record with the size of its file; None = the folder does not have it."""
        path = self._find(record)
        return None if path is None else record._replace(size=path.stat().st_size)

    def fetch_chips(self, chips: Iterable[ChipRecord]) -> Iterator[FetchedChip]:
        """Yield the chips in the order given."""
        for chip in chips:
            yield gather_files(chip, self._read)

    def _read(self, record: FileRecord) -> bytes:
        path = self._find(record)
        if path is None:
            official = self._official(record)
            raise self._describe(official, "a folder" if os.path.isdir(official) else "none")  # noqa: PTH112
        try:
            with path.open("rb") as file:
                # One byte more tells a file that is too long, however long it is.
                n_bytes = min(record.size, os.fstat(file.fileno()).st_size)
                return file.read(n_bytes + 1)
        except OSError as error:
            raise self._describe(path, error.strerror or repr(error)) from None

    def _describe(self, path: Path, got: str) -> FileError:
        # Not by its whole path: what is said of bad files goes into the audit, which is shared.
        return FileError(f"the file {path.relative_to(self.root)} in {self.name}", got)

    def _find(self, record: FileRecord) -> Path | None:
        official = self._official(record)
        if _is_file(official):
            return official
        if self._places is None:
            self._places = list_places(self.root)
        place = self._places.get(record.filename)
        return None if place is None else self.root / place / record.filename

    def _official(self, record: FileRecord) -> Path:
        return self.root / record.folder / record.filename


def list_places(root: Path) -> dict[str, str]:
    """Return where each chip's file lies: its folder relative to `root`, by file name.

    Folders that are hidden or cannot be read are passed over, and so is what is no regular file.
    """
    places: dict[str, str] = {}
    waiting = [("", 0)]
    visited = []
    while waiting:
        place, depth = waiting.pop()
        names, folders = _list_folder(root / place)
        visited.append((place, names))
        if depth < DEPTH:
            waiting += [(f"{place}/{folder}".lstrip("/"), depth + 1) for folder in folders]
    for place, names in sorted(visited, reverse=True):
        places.update(dict.fromkeys(names, place))
    return places


def _list_folder(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of its chips' files and of its folders."""
    names, folders = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if _CHIP_FILE.fullmatch(entry.name):
                    if _is_file(entry):
                        names.append(entry.name)
                elif not entry.name.startswith(".") and _is_folder(entry):
                    folders.append(entry.name)
    except OSError:
        return [], []
    return names, folders


def _is_file(path: Path | os.DirEntry[str]) -> bool:
    """Tell whether it is a regular file, or a link to one; what cannot be looked at is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _choose_probes(chips: Sequence[ChipRecord]) -> list[FileRecord]:
    """Return the first and last file of some chips, from the first to the last: every folder."""
    step = max(1, len(chips) // _N_PROBES)
    some = [*chips[::step], *chips[-1:]]
    return [record for chip in some for record in (list_files(chip)[0], list_files(chip)[-1])]
