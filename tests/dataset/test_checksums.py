import csv
import subprocess
from pathlib import Path

import numpy as np
import pytest
from example_chips import read_real_files

from biomassters.dataset.checksums import posix_cksum


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
