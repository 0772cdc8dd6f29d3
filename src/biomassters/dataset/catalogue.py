"""What a dataset consists of: the official catalogues, read and checked row by row.

Knows the columns and which files a chip must have. The rows are a stranger's: each cell is checked
before it is believed, and what is wrong is named with its line, for which they are read by hand.

A catalogue is a folder with `features_metadata.csv` and, of each split whose targets are known,
`train_agbm_metadata.csv` or `test_agbm_metadata.csv`, or what other homes of the dataset call them
(`catalogue_files`). It may have chips of one split alone. The official one comes without the
targets of its test chips, which `commands.add_test_targets` describes.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from biomassters.dataset.catalogue_files import (
    Home,
    Table,
    contradict,
    find_files,
    name_file,
    read_rows,
    refuse_absent,
)
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
from biomassters.store.bands import MONTHS, N_MONTHS

FEATURES_FILE: Final = name_file("features")
ADDRESS_COLUMNS: Final = ("s3path_us", "s3path_eu", "s3path_as")
FEATURE_COLUMNS: Final = (
    *("filename", "chip_id", "satellite", "split", "month", "size", "cksum"),
    *ADDRESS_COLUMNS,
    "corresponding_agbm",
)
TARGET_COLUMNS: Final = ("filename", "chip_id", "size", "cksum", *ADDRESS_COLUMNS)

_TARGETS: Final[Mapping[Split, Table]] = {"train": "train_agbm", "test": "test_agbm"}
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
        """Return the chips of a split, sorted by chip id; a catalogue may have none of one."""
        return list(self._chips[split])


def targets_file(split: Split, home: Home = "official") -> str:
    """Return the name of the catalogue of a split's targets."""
    return name_file(_TARGETS[split], home)


def is_chip_id(text: str) -> bool:
    """Tell whether a chip may be called so: in file names, params and errors."""
    return _CHIP_ID.fullmatch(text) is not None


def read_catalogue(folder: Path) -> Catalogue:
    """Read and check the catalogues of a folder.

    Raises:
        CatalogueError: A file is absent or contradicts itself or the official layout.
    """
    files = find_files(folder)
    features = files.get("features")
    if features is None:
        raise refuse_absent(folder, "features")
    drafts = _read_features(features)
    for split, table in _TARGETS.items():
        if table in files:
            _read_targets(files[table], split, drafts)
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
            raise contradict(
                path,
                self.line,
                f"an S1 file of chip {chip_id} for each of the 12 months",
                f"none for {', '.join(absent)}",
                "add its rows or remove the chip",
            )
        if self.split == "train" and self.agbm is None:
            raise contradict(
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
    for line, row in read_rows(path, FEATURE_COLUMNS, _FEATURES_READ):
        filename, chip_id, sensor, split, month_name, size, cksum, target, *cells = row
        draft = drafts.get(chip_id)
        if draft is None:
            draft = drafts[chip_id] = _start_draft(path, line, chip_id, split)
        elif split != draft.split:
            raise contradict(
                path,
                line,
                f"one split for chip {chip_id} ({draft.split} at line {draft.line})",
                repr(split),
                "mend the column split",
            )
        if sensor not in ("S1", "S2"):
            raise contradict(path, line, "S1 or S2", repr(sensor), "mend the column satellite")
        month = _MONTH_NUMBERS.get(month_name)
        if month is None:
            raise contradict(
                path, line, "an English month", repr(month_name), "mend the column month"
            )
        _check_name(path, line, filename, feature_filename(chip_id, sensor, month))
        if target:
            _check_name(path, line, target, target_filename(chip_id))
        months = draft.s1 if sensor == "S1" else draft.s2
        if months[month] is not None:
            raise contradict(path, line, "each file once", f"{filename} again", "remove the row")
        s3_folders = addresses.read(line, filename, cells)
        folder = folders[draft.split]
        months[month] = _make_record(path, line, filename, folder, size, cksum, s3_folders)
    if not drafts:
        remedy = "add the files of your chips"
        raise contradict(path, 1, "at least one row", "none", remedy)
    return drafts


def _start_draft(path: Path, line: int, chip_id: str, split: str) -> _Draft:
    if not is_chip_id(chip_id):
        raise contradict(
            path,
            line,
            "a chip id of letters, digits, '_' and '-'",
            repr(chip_id),
            "mend the column chip_id",
        )
    for known in SPLITS:
        if split == known:
            return _Draft(known, line)
    raise contradict(path, line, "train or test", repr(split), "mend the column split")


def _read_targets(path: Path, split: Split, drafts: Mapping[str, _Draft]) -> None:
    addresses = _Addresses(path)
    for line, row in read_rows(path, TARGET_COLUMNS, TARGET_COLUMNS):
        filename, chip_id, size, cksum, *cells = row
        draft = drafts.get(chip_id)
        if draft is None or draft.split != split:
            raise contradict(
                path,
                line,
                f"a {split} chip of {FEATURES_FILE}",
                f"the chip {chip_id!r}",
                "add the chip's features there or remove the row",
            )
        _check_name(path, line, filename, target_filename(chip_id))
        if draft.agbm is not None:
            raise contradict(path, line, "each file once", f"{filename} again", "remove the row")
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
                    raise contradict(self._path, line, expected, repr(cell), remedy)
            known = self._known[folders] = folders
        return known


def _make_record(
    path: Path, line: int, filename: str, folder: str, size: str, cksum: str, s3: S3Folders
) -> FileRecord:
    if not _SIZE.fullmatch(size) or int(size) > LARGEST_FILE:
        expected = f"a positive number of bytes up to {LARGEST_FILE}"
        raise contradict(path, line, expected, repr(size), "mend the column size")
    if not cksum:
        return FileRecord(filename, folder, int(size), None, s3)
    if not _CKSUM.fullmatch(cksum) or int(cksum) >= 2**32:
        raise contradict(
            path, line, "a 32-bit number or nothing", repr(cksum), "mend the column cksum"
        )
    return FileRecord(filename, folder, int(size), int(cksum), s3)


def _check_name(path: Path, line: int, got: str, expected: str) -> None:
    # Built from a checked chip id, the expected name cannot leave the data folder.
    if got != expected:
        raise contradict(
            path,
            line,
            f"the file name {expected}",
            repr(got),
            "mend the name, or the chip id, satellite and month beside it",
        )
