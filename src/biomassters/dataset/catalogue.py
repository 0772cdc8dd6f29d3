"""What a dataset consists of: the official catalogues, read and checked row by row.

Knows the columns and which files a chip must have. The rows are a stranger's: each cell is checked
before it is believed, and what is wrong is named with its line, for which they are read by hand.

A catalogue is a folder with `features_metadata.csv`, `train_agbm_metadata.csv` and, where the
targets of test chips are known (the official ones were not published), `test_agbm_metadata.csv`.
"""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Final

from biomassters.dataset.files import (
    LARGEST_FILE,
    SPLITS,
    ChipRecord,
    FileRecord,
    S3Folders,
    Split,
    feature_filename,
    is_s3_folder,
    target_filename,
)
from biomassters.errors import CatalogueError
from biomassters.store.bands import MONTHS, N_MONTHS

FEATURES_FILE: Final = "features_metadata.csv"
ADDRESS_COLUMNS: Final = ("s3path_us", "s3path_eu", "s3path_as")
FEATURE_COLUMNS: Final = (
    *("filename", "chip_id", "satellite", "split", "month", "size", "cksum"),
    *ADDRESS_COLUMNS,
    "corresponding_agbm",
)
TARGET_COLUMNS: Final = ("filename", "chip_id", "size", "cksum", *ADDRESS_COLUMNS)

LONGEST_SHOWN: Final = 200
"""Characters of a cell that an error quotes."""

_FEATURES_READ: Final = (*FEATURE_COLUMNS[:7], "corresponding_agbm", *ADDRESS_COLUMNS)
_MONTH_NUMBERS: Final = {name: number for number, name in enumerate(MONTHS)}
_CHIP_ID: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,63}", re.ASCII)
_SIZE: Final = re.compile(r"0*[1-9][0-9]{0,14}", re.ASCII)
_CKSUM: Final = re.compile(r"[0-9]{1,10}", re.ASCII)


class Catalogue:
    """All chips of a catalogue.

    Attributes:
        folder: Where it was read.
    """

    def __init__(self, folder: Path, chips: Mapping[Split, list[ChipRecord]]) -> None:
        self.folder = folder
        self._chips = chips

    def chips(self, split: Split) -> list[ChipRecord]:
        """Return the chips of a split, sorted by chip id.

        Raises:
            CatalogueError: There are none.
        """
        if not self._chips[split]:
            raise CatalogueError(
                f"expected chips of the split {split}, got none, at {self.folder / FEATURES_FILE};"
                " add their files to the catalogue"
            )
        return list(self._chips[split])


def targets_file(split: Split) -> str:
    """Return the name of the catalogue of a split's targets."""
    return f"{split}_agbm_metadata.csv"


def read_catalogue(folder: Path) -> Catalogue:
    """Read and check the catalogues of a folder.

    Raises:
        CatalogueError: A file is absent or contradicts itself or the official layout.
    """
    features = folder / FEATURES_FILE
    drafts = _read_features(features)
    for split in SPLITS:
        path = folder / targets_file(split)
        if path.exists():
            _read_targets(path, split, drafts)
    chips: dict[Split, list[ChipRecord]] = {split: [] for split in SPLITS}
    for chip_id in sorted(drafts):
        record = drafts[chip_id].finish(chip_id, features)
        chips[record.split].append(record)
    return Catalogue(folder, chips)


class _Draft:
    """A chip of which not all rows have been read."""

    __slots__ = ("agbm", "line", "s1", "s2", "split")

    def __init__(self, split: Split, line: int) -> None:
        self.split = split
        self.line = line
        self.s1: list[FileRecord | None] = [None] * N_MONTHS
        self.s2: list[FileRecord | None] = [None] * N_MONTHS
        self.agbm: FileRecord | None = None

    def finish(self, chip_id: str, path: Path) -> ChipRecord:
        s1 = tuple(record for record in self.s1 if record is not None)
        if len(s1) < N_MONTHS:
            absent = [name for name, record in zip(MONTHS, self.s1, strict=True) if record is None]
            raise _contradiction(
                path,
                self.line,
                f"an S1 file of chip {chip_id} for each of the 12 months",
                f"none for {', '.join(absent)}",
                "add its rows or remove the chip",
            )
        if self.split == "train" and self.agbm is None:
            raise _contradiction(
                path,
                self.line,
                f"a target of train chip {chip_id} in {targets_file('train')}",
                "none",
                "add its row there or remove the chip",
            )
        return ChipRecord(chip_id, self.split, s1, tuple(self.s2), self.agbm)


def _read_features(path: Path) -> dict[str, _Draft]:
    drafts: dict[str, _Draft] = {}
    folders = {split: f"{split}_features" for split in SPLITS}
    addresses = _Addresses(path)
    for line, row in _read_rows(path, FEATURE_COLUMNS, _FEATURES_READ):
        filename, chip_id, sensor, split, month_name, size, cksum, target, *cells = row
        draft = drafts.get(chip_id)
        if draft is None:
            draft = drafts[chip_id] = _start_draft(path, line, chip_id, split)
        elif split != draft.split:
            raise _contradiction(
                path,
                line,
                f"one split for chip {chip_id} ({draft.split} at line {draft.line})",
                repr(split),
                "mend the column split",
            )
        if sensor not in ("S1", "S2"):
            raise _contradiction(path, line, "S1 or S2", repr(sensor), "mend the column satellite")
        month = _MONTH_NUMBERS.get(month_name)
        if month is None:
            raise _contradiction(
                path, line, "an English month", repr(month_name), "mend the column month"
            )
        _check_name(path, line, filename, feature_filename(chip_id, sensor, month))
        if target:
            _check_name(path, line, target, target_filename(chip_id))
        months = draft.s1 if sensor == "S1" else draft.s2
        if months[month] is not None:
            raise _contradiction(
                path, line, "each file once", f"{filename} again", "remove the row"
            )
        s3_folders = addresses.read(line, filename, cells)
        folder = folders[draft.split]
        months[month] = _make_record(path, line, filename, folder, size, cksum, s3_folders)
    return drafts


def _start_draft(path: Path, line: int, chip_id: str, split: str) -> _Draft:
    if not _CHIP_ID.fullmatch(chip_id):
        raise _contradiction(
            path,
            line,
            "a chip id of letters, digits, '_' and '-'",
            repr(chip_id),
            "mend the column chip_id",
        )
    for known in SPLITS:
        if split == known:
            return _Draft(known, line)
    raise _contradiction(path, line, "train or test", repr(split), "mend the column split")


def _read_targets(path: Path, split: Split, drafts: Mapping[str, _Draft]) -> None:
    addresses = _Addresses(path)
    for line, row in _read_rows(path, TARGET_COLUMNS, TARGET_COLUMNS):
        filename, chip_id, size, cksum, *cells = row
        draft = drafts.get(chip_id)
        if draft is None or draft.split != split:
            raise _contradiction(
                path,
                line,
                f"a {split} chip of {FEATURES_FILE}",
                f"the chip {chip_id!r}",
                "add the chip's features there or remove the row",
            )
        _check_name(path, line, filename, target_filename(chip_id))
        if draft.agbm is not None:
            raise _contradiction(
                path, line, "each file once", f"{filename} again", "remove the row"
            )
        s3_folders = addresses.read(line, filename, cells)
        folder = f"{split}_agbm"
        draft.agbm = _make_record(path, line, filename, folder, size, cksum, s3_folders)


class _Addresses:
    """Reads the addresses of a catalogue's rows; its few folders are kept once, not per file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[S3Folders, S3Folders] = {}

    def read(self, line: int, filename: str, cells: Sequence[str]) -> S3Folders:
        """Return the folders of a row's addresses."""
        us, eu, asia = cells
        end = f"/{filename}"
        folders = us.removesuffix(end), eu.removesuffix(end), asia.removesuffix(end)
        known = self._known.get(folders)
        # A cell that is a known folder, without the file name, must not pass.
        if known is None or cells != [folder and folder + end for folder in folders]:
            for column, cell, folder in zip(ADDRESS_COLUMNS, cells, folders, strict=True):
                if cell and (cell == folder or not is_s3_folder(folder)):
                    expected = f"an address s3://bucket/folder{end}, or nothing"
                    remedy = f"mend the column {column}"
                    raise _contradiction(self._path, line, expected, repr(cell), remedy)
            known = self._known[folders] = folders
        return known


def _make_record(
    path: Path, line: int, filename: str, folder: str, size: str, cksum: str, s3: S3Folders
) -> FileRecord:
    if not _SIZE.fullmatch(size) or int(size) > LARGEST_FILE:
        expected = f"a positive number of bytes up to {LARGEST_FILE}"
        raise _contradiction(path, line, expected, repr(size), "mend the column size")
    if not cksum:
        return FileRecord(filename, folder, int(size), None, s3)
    if not _CKSUM.fullmatch(cksum) or int(cksum) >= 2**32:
        raise _contradiction(
            path, line, "a 32-bit number or nothing", repr(cksum), "mend the column cksum"
        )
    return FileRecord(filename, folder, int(size), int(cksum), s3)


def _check_name(path: Path, line: int, got: str, expected: str) -> None:
    # Built from a checked chip id, the expected name cannot leave the data folder.
    if got != expected:
        raise _contradiction(
            path,
            line,
            f"the file name {expected}",
            repr(got),
            "mend the name, or the chip id, satellite and month beside it",
        )


def _read_rows(
    path: Path, columns: tuple[str, ...], wanted: tuple[str, ...]
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield line number and wanted cells of each row; refuse a file without rows."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            missing = [column for column in columns if column not in header]
            if missing:
                raise _contradiction(
                    path, 1, "all columns", f"none named {', '.join(missing)}", "add them"
                )
            width = len(header)
            pick = itemgetter(*map(header.index, wanted))
            line = 1
            for row in filter(None, reader):
                line = reader.line_num
                if len(row) != width:
                    raise _contradiction(
                        path, line, f"{width} cells", str(len(row)), "mend the row"
                    )
                yield line, pick(row)
            if line == 1:
                raise _contradiction(
                    path, 1, "at least one row", "none", "add the files of your chips"
                )
    except FileNotFoundError:
        raise CatalogueError(
            f"expected the catalogue {path}, got no such file; add it (README: real data)"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise CatalogueError(
            f"expected a CSV file in UTF-8, got {error}, at {path}; save it again as such"
        ) from None


def _contradiction(path: Path, line: int, expected: str, got: str, remedy: str) -> CatalogueError:
    if len(got) > LONGEST_SHOWN:  # a stranger's cell may have megabytes
        got = f"{got[:LONGEST_SHOWN]}... ({len(got)} characters)"
    return CatalogueError(f"expected {expected}, got {got}, at {path}, line {line}; {remedy}")
