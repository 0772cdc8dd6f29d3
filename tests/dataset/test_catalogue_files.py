"""Catalogues as their homes and people's tools leave them: names, compression, dialects of CSV."""

import csv
import gzip
import io
import lzma
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from biomassters.dataset.catalogue import FEATURES_FILE, Catalogue, read_catalogue, targets_file
from biomassters.dataset.catalogue_files import HOMES, TABLES, find_files, name_file
from biomassters.dataset.files import SPLITS
from biomassters.errors import CatalogueError
from biomassters.simulator.official_files import write_catalogue


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a sound catalogue of a train and a test chip."""
    folder = tmp_path_factory.mktemp("sound")
    write_catalogue(folder, n_train=1, n_test=1, chip_size=32)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def folder(sound: dict[str, bytes], tmp_path: Path) -> Path:
    for name, data in sound.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


def list_chips(catalogue: Catalogue) -> list[object]:
    return [catalogue.chips(split) for split in SPLITS]


def change_rows(change: Callable[[list[str]], list[str]], **dialect) -> Callable[[bytes], bytes]:
    """Return a function that changes each row of a table, and writes it in a dialect of CSV."""

    def apply(data: bytes) -> bytes:
        text = io.StringIO(newline="")
        rows = csv.reader(io.StringIO(data.decode(), newline=""))
        csv.writer(text, **{"lineterminator": "\n", **dialect}).writerows(map(change, rows))
        return text.getvalue().encode()

    return apply


@pytest.mark.parametrize(
    "names",
    [
        *({table: name_file(table, home) for table in TABLES} for home in HOMES),
        {"features": "features_metadata_FzP19JI.csv"},  # as the competition's page offers it
        {"features": "features_metadata.csv.xz", "train_agbm": "train_agbm_metadata.csv.gz"},
        {"features": "biomassters_features_metadata.csv", "train_agbm": "train_agbm_metadata.csv"},
    ],
)
def test_names_of_every_home_are_found(folder: Path, names: dict) -> None:
    expected = list_chips(read_catalogue(folder))
    for table in TABLES:
        (folder / name_file(table)).rename(folder / names.get(table, name_file(table)))
    (folder / "notes_features_metadata.csv").write_text("of someone")
    assert list_chips(read_catalogue(folder)) == expected


@pytest.mark.parametrize(
    "rewrite",
    [
        pytest.param(gzip.compress, id="gzip"),
        pytest.param(lzma.compress, id="xz"),
        pytest.param(lambda data: b"\xef\xbb\xbf" + data, id="byte order mark"),
        pytest.param(lambda data: data.replace(b"\n", b"\r\n"), id="lines of Windows"),
        pytest.param(lambda data: data.replace(b"\n", b"\n\n").rstrip(), id="empty lines"),
        pytest.param(change_rows(lambda row: row, quoting=csv.QUOTE_ALL), id="quoted"),
        pytest.param(change_rows(lambda row: row[::-1]), id="columns the other way round"),
        pytest.param(change_rows(lambda row: ["", *row, "x"]), id="further columns"),
    ],
)
def test_table_means_the_same_however_it_was_saved(
    folder: Path, rewrite: Callable[[bytes], bytes]
) -> None:
    expected = list_chips(read_catalogue(folder))
    for path in folder.iterdir():
        path.write_bytes(rewrite(path.read_bytes()))
    assert list_chips(read_catalogue(folder)) == expected


@pytest.mark.parametrize(
    ("delimiter", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")]
)
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("table", [FEATURES_FILE, targets_file("train")])
def test_other_delimiter_is_named(
    folder: Path, delimiter: str, name: str, quoting: int, table: str
) -> None:
    rewrite = change_rows(lambda row: row, delimiter=delimiter, quoting=quoting)
    (folder / table).write_bytes(rewrite((folder / table).read_bytes()))
    message = rf"expected commas between the cells, got {name}, at .*{table}, line 1; save it again"
    with pytest.raises(CatalogueError, match=message):
        read_catalogue(folder)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "got a pointer of Git LFS"),
        (b"<!DOCTYPE html>\n<title>Log in</title>\n", "expected all columns"),
        (b"filename,size,chip_id,size,cksum,s3path_us,s3path_eu,s3path_as\n", "got size again"),
        ("filename,chip_id".encode("utf-16"), "expected a CSV file in UTF-8"),
    ],
)
def test_what_is_no_table_is_refused_in_a_line(folder: Path, data: bytes, message: str) -> None:
    (folder / targets_file("train")).write_bytes(data)
    with pytest.raises(CatalogueError, match=rf"{message}.*, at .*train_agbm_metadata\.csv"):
        read_catalogue(folder)


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-9],
        lambda data: data[:-8] + bytes(8),
        lambda data: data[:20] + bytes(9) + data[29:],
    ],
)
def test_damaged_compressed_table_is_refused(
    folder: Path, compress: Callable[[bytes], bytes], damage: Callable[[bytes], bytes]
) -> None:
    table = folder / targets_file("train")
    table.write_bytes(damage(compress(table.read_bytes())))
    with pytest.raises(CatalogueError, match=rf"whole compressed file, got .*, at {table}; downl"):
        read_catalogue(folder)


def test_line_of_gigabytes_in_a_small_file_is_not_read_to_its_end(folder: Path) -> None:
    table = folder / targets_file("train")
    line = lzma.compress(b"x" * 100_000_000)
    assert len(line) < 20_000
    table.write_bytes(line * 100)  # 10 GB
    message = "got a line of more than 2097152 characters, at"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CatalogueError, match=message):
        read_catalogue(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_of_two_names_equal_files_are_one_and_others_are_refused(folder: Path) -> None:
    other = folder / name_file("features", "torchgeo")
    other.write_bytes((folder / FEATURES_FILE).read_bytes())
    assert find_files(folder)["features"] == other
    other.write_bytes(other.read_bytes() + b"\n")
    message = r"got two that differ, biomassters_features_metadata\.csv and features_metadata\.csv"
    with pytest.raises(CatalogueError, match=f"{message}, at .*; remove the one"):
        read_catalogue(folder)


def test_folder_is_expected(folder: Path) -> None:
    for path, got in ((folder / FEATURES_FILE, "a file"), (folder / "absent", "nothing")):
        with pytest.raises(CatalogueError, match=rf"expected a folder .*, got {got}, at {path}"):
            read_catalogue(path)
