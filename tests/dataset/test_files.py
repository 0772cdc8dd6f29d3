import csv
import posixpath
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from example_chips import read_real_files
from hypothesis import given
from hypothesis import strategies as st

from biomassters.dataset.files import (
    FileError,
    FileRecord,
    is_s3_folder,
    posix_cksum,
    split_address,
    verify,
)

DATA = b"0123456789"


@pytest.mark.parametrize(
    ("data", "cksum"),
    [(b"", 4294967295), (b"a", 1220704766), (b"123456789", 930766865), (b"\0" * 4, 3975907619)],
)
def test_cksum_of_literals(data: bytes, cksum: int) -> None:
    assert posix_cksum(data) == cksum


@pytest.mark.parametrize("size", [1, 255, 256, 65_535, 65_536, 200_001])
def test_cksum_equals_the_command(size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    printed = subprocess.run(["cksum"], input=data, capture_output=True, check=True).stdout
    assert posix_cksum(data) == int(printed.split()[0])


def test_cksum_equals_the_official_catalogue(shared_folder: Path) -> None:
    files = read_real_files(shared_folder, "288afc34")
    with (shared_folder / "real-chips" / "features_metadata.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["filename"] in files]
    assert len(rows) == 24
    for row in rows:
        assert posix_cksum(files[row["filename"]]) == int(row["cksum"])


def test_verify_accepts_what_the_record_says() -> None:
    verify(FileRecord("a.tif", "train_agbm", 10, None), DATA)
    verify(FileRecord("a.tif", "train_agbm", 10, posix_cksum(DATA)), DATA)


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        (FileRecord("a.tif", "train_agbm", 11, None), ("11 bytes", "10")),
        (FileRecord("a.tif", "train_agbm", 10, 5), ("cksum 5", str(posix_cksum(DATA)))),
    ],
)
def test_verify_refuses_anything_else(record: FileRecord, fault: tuple[str, str]) -> None:
    with pytest.raises(FileError) as error:
        verify(record, DATA)
    assert (error.value.expected, error.value.got) == fault


@given(st.text(alphabet="s3:/.abB-_=%?#@ \\\n\0é", max_size=30))
def test_accepted_folder_is_nothing_but_a_bucket_and_plain_names(text: str) -> None:
    folder = f"s3://{text}"
    if is_s3_folder(folder):
        parts = urlsplit(f"{folder}/x")
        assert parts.path == posixpath.normpath(parts.path)
        assert f"s3://{parts.hostname}{parts.path}" == f"{folder}/x"
        assert split_address(f"{folder}/x") == (parts.netloc, parts.path[1:])
