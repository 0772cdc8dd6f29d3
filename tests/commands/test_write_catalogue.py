import csv
from pathlib import Path

import pytest

from biomassters.commands.write_catalogue import write_catalogue
from biomassters.dataset.catalogue import read_catalogue
from biomassters.errors import CatalogueError
from biomassters.simulator.official_files import write_dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Official files of two train chips and a test chip, without their catalogues."""
    write_dataset(tmp_path / "own", n_train=2, n_test=1, chip_size=32)
    for path in (tmp_path / "own").glob("*.csv"):
        path.rename(tmp_path / path.name)
    return tmp_path / "own"


def read_rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_catalogue_of_files_is_the_one_that_they_were_written_with(dataset: Path) -> None:
    said = write_catalogue(dataset)
    assert "2 train, 1 test chips" in said
    assert f"use-catalogue {dataset}" in said
    names = {"features_metadata.csv", "train_agbm_metadata.csv", "test_agbm_metadata.csv"}
    assert {path.name for path in dataset.glob("*")} >= names
    for name in names:
        assert sorted(read_rows(dataset / name)) == sorted(read_rows(dataset.parent / name))


def test_chips_of_one_split_alone_are_described(dataset: Path) -> None:
    for kind in ("features", "agbm"):
        for path in (dataset / f"train_{kind}").iterdir():
            path.unlink()
    write_catalogue(dataset)
    catalogue = read_catalogue(dataset)
    assert (len(catalogue.chips("train")), len(catalogue.chips("test"))) == (0, 1)


def test_test_chips_may_lack_targets(dataset: Path) -> None:
    for path in (dataset / "test_agbm").iterdir():
        path.unlink()
    write_catalogue(dataset)
    assert read_catalogue(dataset).chips("test")[0].agbm is None
    assert not (dataset / "test_agbm_metadata.csv").exists()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda folder: next(folder.glob("train_features/*_S1_07.tif")).unlink(),
            r"an S1 file for each of the 12 months in train_features, got no \w+_S1_07.tif, at",
        ),
        (
            lambda folder: next(folder.glob("train_agbm/*")).unlink(),
            r"a target of each train chip in train_agbm, got no \w+_agbm.tif, at .*; add it, or",
        ),
        (
            lambda folder: (folder / "train_features/x_S1_12.tif").touch(),
            r"files named CHIP_S1_00.tif, .*, CHIP_agbm.tif alone, got x_S1_12.tif, at",
        ),
        (
            lambda folder: (folder / "test_features/notes.txt").touch(),
            r"files named .* alone, got notes.txt, at .*; move or rename them",
        ),
        (
            lambda folder: (folder / "train_features/-x_S1_00.tif").touch(),
            r"files named .* alone, got -x_S1_00.tif",
        ),
        (
            lambda folder: (folder / "features_metadata.csv").touch(),
            r"a folder without a catalogue, got features_metadata.csv, at .*; remove it",
        ),
        (
            lambda folder: [
                path.rename(folder / "train_agbm" / path.name) for path in folder.glob("*_f*/*")
            ],
            r"files named .* alone, got \w+_S1_00.tif, \w+_S1_01.tif, .* and \d+ more, at",
        ),
    ],
)
def test_what_is_no_chip_is_refused_and_nothing_written(dataset: Path, spoil, message) -> None:
    spoil(dataset)
    before = set(dataset.rglob("*"))
    with pytest.raises(CatalogueError, match=message):
        write_catalogue(dataset)
    assert set(dataset.rglob("*")) == before


def test_chip_in_both_splits_is_refused(dataset: Path) -> None:
    for path in (dataset / "test_features").iterdir():
        (dataset / "train_features" / path.name).write_bytes(path.read_bytes())
    for path in (dataset / "test_agbm").iterdir():
        (dataset / "train_agbm" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(CatalogueError, match=r"each chip in one split, got \w+, at"):
        write_catalogue(dataset)


def test_folder_without_chips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"expected chips in train_features or .*own-chips.md"):
        write_catalogue(tmp_path)
