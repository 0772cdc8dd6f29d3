"""Simulated chips as official files, and the catalogues that describe them."""

import hashlib
from pathlib import Path

from tqdm import tqdm

from biomassters.dataset.catalogue import (
    FEATURE_COLUMNS,
    TARGET_COLUMNS,
    targets_file,
)
from biomassters.dataset.catalogue_files import Home, name_file
from biomassters.dataset.catalogue_rows import feature_rows, format_table, target_row
from biomassters.dataset.chip_tiffs import encode_chip_tiff
from biomassters.dataset.files import (
    ChipFiles,
    Split,
    feature_filename,
    target_filename,
)
from biomassters.errors import CatalogueError
from biomassters.params.sections import CHIP_SIZE_STEP
from biomassters.processes.writing import write_whole
from biomassters.simulator.chip import simulate_chip
from biomassters.store.bands import N_MONTHS

SEED = 2023
"""Decides the chip ids, and with them the chips."""


def write_dataset(
    folder: Path, *, n_train: int, n_test: int, chip_size: int, home: Home = "official"
) -> None:
    """Write simulated chips as official files, with their catalogues.

    Args:
        folder: A new or empty folder.
        n_train: Train chips.
        n_test: Test chips; their targets are written too.
        chip_size: Side of a chip, pixels.
        home: Whose names the catalogues have; this project reads them under any.

    Raises:
        CatalogueError: The folder holds something already, or no pipeline could use such chips.
    """
    _write(folder, n_train, n_test, chip_size, home, with_chips=True)


def write_catalogue(folder: Path, *, n_train: int, n_test: int, chip_size: int) -> None:
    """Write only the catalogues that `write_dataset` would; `data.source: synthetic` needs no more.

    Raises:
        CatalogueError: The folder holds something already, or no pipeline could use such chips.
    """
    _write(folder, n_train, n_test, chip_size, "official", with_chips=False)


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


def draw_chip_ids(n_chips: int) -> list[str]:
    """Return `n_chips` different names of 8 hex digits; more chips keep the names of fewer."""
    ids: dict[str, None] = {}
    number = 0
    while len(ids) < n_chips:
        ids[hashlib.sha256(f"{SEED} {number}".encode()).hexdigest()[:8]] = None
        number += 1
    return list(ids)


def _write(
    folder: Path, n_train: int, n_test: int, chip_size: int, home: Home, *, with_chips: bool
) -> None:
    if folder.exists() and any(folder.iterdir()):
        raise CatalogueError(
            f"expected a new or empty folder, got one with files, at {folder}; choose another"
        )
    if (
        min(n_train, n_test) < 0
        or n_train + n_test < 1
        or chip_size < 1
        or chip_size % CHIP_SIZE_STEP != 0
    ):
        raise CatalogueError(
            f"expected train or test chips, one at least, of a multiple of {CHIP_SIZE_STEP} pixels,"
            f" got {n_train}, {n_test} and {chip_size}; choose other numbers"
        )
    folder.mkdir(parents=True, exist_ok=True)
    ids = draw_chip_ids(n_train + n_test)
    chips_of: dict[Split, list[str]] = {
        "train": sorted(ids[:n_train]),
        "test": sorted(ids[n_train:]),
    }
    features: list[list[str]] = []
    for split, chip_ids in chips_of.items():
        targets: list[list[str]] = []
        for chip_id in tqdm(chip_ids, desc=split, unit="chip", disable=None):
            files = simulate_files(chip_id, chip_size)
            features.extend(feature_rows(split, chip_id, files))
            targets.append(target_row(chip_id, files[target_filename(chip_id)]))
            if with_chips:
                _write_files(folder, split, chip_id, files)
        if targets:
            write_whole(folder / targets_file(split, home), format_table(TARGET_COLUMNS, targets))
    write_whole(folder / name_file("features", home), format_table(FEATURE_COLUMNS, features))


def _write_files(folder: Path, split: Split, chip_id: str, files: ChipFiles) -> None:
    for filename, data in files.items():
        kind = "agbm" if filename == target_filename(chip_id) else "features"
        place = folder / f"{split}_{kind}"
        place.mkdir(exist_ok=True)
        (place / filename).write_bytes(data)
