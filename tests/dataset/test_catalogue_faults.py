"""Catalogues from strangers: accepted with the meaning of their rows, or refused by file and line.

`HYPOTHESIS_EXAMPLES=20000 pytest tests/dataset/test_catalogue_faults.py` tries more than a few
hundred.
"""

import csv
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from biomassters.dataset.catalogue import (
    ADDRESS_COLUMNS,
    FEATURES_FILE,
    Catalogue,
    read_catalogue,
    targets_file,
)
from biomassters.dataset.files import REGIONS, SPLITS, FileRecord
from biomassters.errors import CatalogueError
from biomassters.simulator.official_files import write_catalogue
from biomassters.store.bands import MONTHS

Files: TypeAlias = Mapping[str, bytes]
FILES = (FEATURES_FILE, targets_file("train"), targets_file("test"))
ONE_LINE = re.compile(r"expected .+, got .+(, at .+)?; [^\n]+", re.DOTALL)
EXAMPLES = int(os.environ.get("HYPOTHESIS_EXAMPLES", "300"))
EVIL_CELLS = [
    *("", " ", ".", "..", "../..", "/etc/passwd", "C:\\x", "~", "-", "_", "a/b", "a\\b", "CON"),
    *(
        "a\0b",
        "a\nb",
        "a\r",
        "\ufeff",
        "\u202e1",
        "\uff11",
        "\u0663\u0663",
        "e\u0301",
        "\U0001f332",
    ),
    *(
        "0",
        "00",
        "-1",
        "+1",
        "1_0",
        "1e15",
        "1.0",
        " 1",
        "1 ",
        "0x10",
        "9" * 15,
        "9" * 16,
        "1" * 400,
    ),
    *(
        "4294967295",
        "4294967296",
        "9999999999",
        "nan",
        "inf",
        "None",
        "'",
        '"',
        '""',
        '"\n"',
        ",",
        ";",
    ),
    *("S1", "S2", "s1", "S3", "train", "test", "Train", "September", "august", "september", "8"),
    *(
        "=cmd|' /C calc'!A0",
        "%s%n",
        "${HOME}",
        "x" * 64,
        "x" * 65,
        "x" * 10_000,
        "s3://",
        "s3://a/b",
    ),
    *("s3://bucket/../x.tif", "http://127.0.0.1/x.tif", "file:///etc/passwd", "s3://b/a?x=1#y"),
]
HOW = ["cell", "cell", "cell", "take", "remove", "repeat", "move", "column"]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The files of a sound catalogue of three chips."""
    folder = tmp_path_factory.mktemp("sound")
    write_catalogue(folder, n_train=2, n_test=1, chip_size=32)
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


def read_or_refuse(files: Files, folder: Path) -> Catalogue | str:
    """Read a catalogue, and hold it against its rows; or return the one line that refuses it."""
    for name, data in files.items():
        (folder / name).write_bytes(data)
    try:
        catalogue = read_catalogue(folder)
    except CatalogueError as error:
        message = str(error)
        assert ONE_LINE.fullmatch(message), message
        assert "\n" not in message
        assert any(f"{folder / name}" in message for name in FILES), message
        return message
    assert list_records(catalogue) == sorted(read_rows(files))
    assert_sound(catalogue)
    return catalogue


def list_records(catalogue: Catalogue) -> list[tuple[str, ...]]:
    """Return all files of a catalogue, as `read_rows` does."""
    found = []
    for split in SPLITS:
        try:
            chips = catalogue.chips(split)
        except CatalogueError:
            continue
        for chip in chips:
            assert chip.split == split
            for sensor, months in (("S1", chip.s1), ("S2", chip.s2)):
                for month, record in zip(MONTHS, months, strict=True):
                    if record is not None:
                        found.append(describe(record, chip.chip_id, split, sensor, month))
            if chip.agbm is not None:
                found.append(describe(chip.agbm, chip.chip_id, split, "agbm", ""))
    return sorted(found)


def describe(record: FileRecord, *whose: str) -> tuple[str, ...]:
    addresses = [record.find_address(region) or "" for region in REGIONS]
    kind = "agbm" if whose[2] == "agbm" else "features"
    assert record.folder == f"{whose[1]}_{kind}"
    cksum = "" if record.cksum is None else str(record.cksum)
    return *whose, record.filename, str(record.size), cksum, *addresses


def read_rows(files: Files) -> Iterator[tuple[str, ...]]:
    """Read all rows with Python's own reader: chip id, split, sensor, month, name, numbers."""
    for name, data in files.items():
        for row in csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")):
            split = row.get("split", name.partition("_")[0])
            numbers = str(int(row["size"])), str(int(row["cksum"])) if row["cksum"] else ""
            addresses = [row[column] for column in ADDRESS_COLUMNS]
            whose = row["chip_id"], split, row.get("satellite", "agbm"), row.get("month", "")
            yield *whose, row["filename"], *numbers, *addresses


def assert_sound(catalogue: Catalogue) -> None:
    """No file lies anywhere but in one of the four folders, and each once."""
    records = list_records(catalogue)
    names = [record[4] for record in records]
    assert len(set(names)) == len(names)
    for chip_id, _, _, _, name, size, *_ in records:
        assert PurePosixPath(name).name == name
        assert name.startswith(f"{chip_id}_")
        assert name.isascii()
        assert name.isprintable()
        assert 0 < int(size) < 10**15


def try_many(strategy: st.SearchStrategy[Files], check: Callable[[Files], object]) -> None:
    profile = settings(
        max_examples=EXAMPLES,
        database=None,
        deadline=None,
        derandomize=EXAMPLES <= 300,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    profile(given(strategy)(check))()


def split_rows(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode(), newline="")))


def join_rows(rows: list[list[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


@st.composite
def change_rows(draw: st.DrawFn, sound: Files) -> Files:
    """Draw a catalogue with cells from strangers, and with rows and columns moved about."""
    tables = {name: split_rows(data) for name, data in sound.items()}
    for _ in range(draw(st.integers(1, 3))):
        rows = tables[draw(st.sampled_from(FILES))]
        place = draw(st.integers(0, len(rows) - 1))
        column = draw(st.integers(0, max(0, len(rows[place]) - 1)))
        how = draw(st.sampled_from(HOW))
        if how == "cell" and rows[place]:
            rows[place][column] = draw(st.sampled_from(EVIL_CELLS) | st.text(max_size=12))
        elif how == "take" and rows[place]:
            other = rows[draw(st.integers(0, len(rows) - 1))]
            rows[place][column] = other[min(column, len(other) - 1)] if other else ""
        elif how == "remove" and len(rows) > 1:
            del rows[place]
        elif how == "repeat":
            rows.append(list(rows[place]))
        elif how == "move":
            rows.append(rows.pop(place))
        elif how == "column":
            for row in rows:
                if column < len(row):
                    row.append(row.pop(column))
    return {name: join_rows(rows) for name, rows in tables.items()}


@st.composite
def change_bytes(draw: st.DrawFn, sound: Files) -> Files:
    """Draw a catalogue some bytes of which were set, cut, inserted or copied."""
    files = dict(sound)
    name = draw(st.sampled_from(FILES))
    data = bytearray(files[name])
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        how = draw(st.sampled_from(["set", "cut", "remove", "insert", "copy"]))
        if how == "set" and data:
            data[place] = draw(st.sampled_from(b"\",\n\r\0\x1a\xff\x80;'0") | st.integers(0, 255))
        elif how == "cut":
            del data[place:]
        elif how == "remove":
            del data[place : place + draw(st.integers(1, 300))]
        elif how == "insert":
            evil = st.sampled_from([cell.encode() for cell in EVIL_CELLS]) | st.binary(max_size=8)
            data[place:place] = draw(evil)
        else:
            other = draw(st.integers(0, max(0, len(data) - 1)))
            data[place:place] = data[other : other + draw(st.integers(1, 300))]
    return {**files, name: bytes(data)}


def test_sound_catalogue_is_accepted(sound: Files, folder: Path) -> None:
    assert isinstance(read_or_refuse(sound, folder), Catalogue)


def test_changed_rows_are_accepted_as_they_say_or_refused(sound: Files, folder: Path) -> None:
    found: set[type] = set()
    try_many(change_rows(sound), lambda files: found.add(type(read_or_refuse(files, folder))))
    assert found == {Catalogue, str}


def test_changed_bytes_are_accepted_as_they_say_or_refused(sound: Files, folder: Path) -> None:
    found: set[type] = set()
    try_many(change_bytes(sound), lambda files: found.add(type(read_or_refuse(files, folder))))
    assert found == {Catalogue, str}


@pytest.mark.parametrize("cell", [cell for cell in EVIL_CELLS if cell not in ("-", "_", "8")])
def test_evil_chip_id_is_refused_where_it_stands(sound: Files, folder: Path, cell: str) -> None:
    """All rows of a chip name it so, and its files after it."""
    rows = split_rows(sound[FEATURES_FILE])
    old = rows[-1][1]
    lines = [number for number, row in enumerate(rows, 1) if row[1] == old]
    for row in rows:
        row[:] = [value.replace(old, cell) for value in row]
    harmless = re.fullmatch(r"[0-9A-Za-z][\w-]{0,63}", cell, re.ASCII)
    targets = sound[targets_file("test")].replace(old.encode(), cell.encode())
    if set(cell) & set('",\n\r'):
        targets = b"filename\n"
    files = {FEATURES_FILE: join_rows(rows), targets_file("test"): targets}
    files = {**sound, **files}
    found = read_or_refuse(files, folder)
    if harmless:
        assert isinstance(found, Catalogue)
    else:
        assert isinstance(found, str)
        assert f"{folder / FEATURES_FILE}, line " in found
        assert int(re.findall(r"line (\d+);", found)[0]) >= lines[0]


@pytest.mark.parametrize("n_bytes", [100_000, 10_000_000])
def test_huge_cell_is_refused_in_a_short_line(sound: Files, folder: Path, n_bytes: int) -> None:
    rows = split_rows(sound[FEATURES_FILE])
    rows[5][1] = "x" * n_bytes
    message = read_or_refuse({**sound, FEATURES_FILE: join_rows(rows)}, folder)
    assert isinstance(message, str)
    assert len(message) < 1000
