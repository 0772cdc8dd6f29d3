"""The files of a catalogue: what their homes call them, and their rows.

Knows names, compression and CSV; what the rows mean, `catalogue` knows. The files are a stranger's.
"""

import csv
import filecmp
import gzip
import lzma
import re
import zlib
from collections.abc import Iterator
from io import BufferedReader, TextIOWrapper
from operator import itemgetter
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

from biomassters.errors import CatalogueError

Table: TypeAlias = Literal["features", "train_agbm", "test_agbm"]
"""What a file of a catalogue tells of."""
TABLES: Final[tuple[Table, ...]] = get_args(Table)

Home: TypeAlias = Literal["official", "hub", "torchgeo"]
HOMES: Final[dict[Home, str]] = {
    "official": "{table}_metadata.csv",
    "hub": "The_BioMassters_-_{table}_metadata.csv.csv",
    "torchgeo": "biomassters_{table}_metadata.csv",
}
"""How a catalogue's files are called.

Source: the competition's page of data; the dataset repository nascetti-a/BioMassters on the Hugging
Face hub; torchgeo 0.8.1, `BioMassters.metadata_filename`.
"""

LONGEST_LINE: Final = 2**21
"""Characters; more than all cells of a row may have by the limit of `csv`. A small compressed file
may hold a line of gigabytes."""

LONGEST_SHOWN: Final = 200
"""Characters of a cell that an error quotes."""

# The competition's page offers `features_metadata_FzP19JI.csv`.
_NAME: Final = re.compile(
    rf"(?:The_BioMassters_-_|biomassters_)?(?P<table>{'|'.join(TABLES)})_metadata"
    r"(?:_[0-9A-Za-z]{7})?(?:\.csv){1,2}(?:\.gz|\.xz)?",
    re.ASCII,
)
_NAMES_SHOWN: Final = 5
_GZIP_MARK: Final = b"\x1f\x8b"
_XZ_MARK: Final = b"\xfd7zXZ\0"
_LFS_MARK: Final = "version https://git-lfs"
_OTHER_DELIMITERS: Final = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


def name_file(table: Table, home: Home = "official") -> str:
    """Return what a home calls a file of the catalogue."""
    return HOMES[home].format(table=table)


def is_catalogue_file(path: Path) -> bool:
    """Tell whether a file is called as a catalogue's is, in any of its homes."""
    return _NAME.fullmatch(path.name) is not None and path.is_file()


def find_files(folder: Path) -> dict[Table, Path]:
    """Return the files of the catalogue in a folder; of several equal ones the first by name.

    Raises:
        CatalogueError: There is no folder, or two files of one table differ.
    """
    if not folder.is_dir():
        got = "a file" if folder.exists() else "nothing"
        raise CatalogueError(
            f"expected a folder that holds {name_file('features')}, got {got}, at {folder};"
            " a catalogue is a folder of CSV files"
        )
    found: dict[Table, Path] = {}
    for path in sorted(filter(is_catalogue_file, folder.iterdir())):
        match = _NAME.fullmatch(path.name)
        table = next(table for table in TABLES if match and match["table"] == table)
        known = found.setdefault(table, path)
        if known != path and not filecmp.cmp(known, path, shallow=False):
            raise CatalogueError(
                f"expected one catalogue of {table}, got two that differ, {known.name} and"
                f" {path.name}, at {folder}; remove the one that you do not mean"
            )
    return found


def refuse_absent(folder: Path, table: Table) -> CatalogueError:
    """Return the error for a file that a catalogue must have."""
    others = [path.name for path in sorted(folder.glob("*csv*")) if not is_catalogue_file(path)]
    beside = f" but {', '.join(others[:_NAMES_SHOWN])}" if others else ""
    return CatalogueError(
        f"expected the catalogue {folder / name_file(table)}, got no such file{beside};"
        " add it under this name, or that of another of its homes (docs/data.md)"
    )


def open_table(path: Path) -> BufferedReader | gzip.GzipFile | lzma.LZMAFile:
    """Open a file of a catalogue, decompressed where it is a gzip or an xz, whatever its name."""
    with path.open("rb") as file:
        mark = file.read(len(_XZ_MARK))
    if mark.startswith(_GZIP_MARK):
        return gzip.open(path)
    return lzma.open(path) if mark == _XZ_MARK else path.open("rb")


def read_rows(
    path: Path, columns: tuple[str, ...], wanted: tuple[str, ...]
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield line number and wanted cells of each row.

    Args:
        path: The file.
        columns: That it must have, in any order; others are passed over.
        wanted: Those of them whose cells are given.

    Raises:
        CatalogueError: It is no such table.
    """
    try:
        with TextIOWrapper(open_table(path), "utf-8-sig", newline="") as text:
            reader = csv.reader(_read_lines(text))
            header = next(reader, [])
            _check_header(path, header, columns)
            width = len(header)
            pick = itemgetter(*map(header.index, wanted))
            for row in filter(None, reader):
                line = reader.line_num
                if len(row) != width:
                    raise contradict(path, line, f"{width} cells", str(len(row)), "mend the row")
                yield line, pick(row)
    except (UnicodeDecodeError, csv.Error) as error:
        raise CatalogueError(
            f"expected a CSV file in UTF-8, got {error}, at {path}; save it again as such"
        ) from None
    except (gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError) as error:
        raise CatalogueError(
            f"expected a whole compressed file, got {str(error).lower()}, at {path};"
            " download it again"
        ) from None


def contradict(path: Path, line: int, expected: str, got: str, remedy: str) -> CatalogueError:
    """Return the error for a row that is not as it must be."""
    if len(got) > LONGEST_SHOWN:  # a stranger's cell may have megabytes
        got = f"{got[:LONGEST_SHOWN]}... ({len(got)} characters)"
    return CatalogueError(f"expected {expected}, got {got}, at {path}, line {line}; {remedy}")


def _read_lines(text: TextIOWrapper) -> Iterator[str]:
    while line := text.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE and line[-1] not in "\r\n":
            raise csv.Error(f"a line of more than {LONGEST_LINE} characters")
        yield line


def _check_header(path: Path, header: list[str], columns: tuple[str, ...]) -> None:
    missing = [column for column in columns if column not in header]
    twice = [column for column in columns if header.count(column) > 1]
    if twice:
        expected, remedy = "each column once", "keep the right one of them"
        raise contradict(path, 1, expected, f"{', '.join(twice)} again", remedy)
    if not missing:
        return
    line = ",".join(header)
    if line.startswith(_LFS_MARK):
        remedy = "run `git lfs pull`, or download the file itself"
        raise contradict(path, 1, "a CSV file", "a pointer of Git LFS to it", remedy)
    for delimiter, name in _OTHER_DELIMITERS.items():
        cells = [cell.strip('" ') for cell in line.split(delimiter)]
        if len(set(columns) & set(cells)) > len(columns) - len(missing):
            expected, remedy = "commas between the cells", "save it again with commas"
            raise contradict(path, 1, expected, name, remedy)
    raise contradict(path, 1, "all columns", f"none named {', '.join(missing)}", "add them")
