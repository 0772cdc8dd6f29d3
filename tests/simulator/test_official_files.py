import csv
from pathlib import Path

import pytest
from example_chips import hash_folder

from biomassters.dataset.catalogue import read_catalogue
from biomassters.errors import CatalogueError
from biomassters.packing.assembly import pack_split
from biomassters.simulator.official_files import draw_chip_ids, write_catalogue, write_dataset
from biomassters.sources.folder_source import FolderSource
from biomassters.sources.source import Source
from biomassters.sources.synthetic_source import SyntheticSource
from biomassters.store.bands import MONTHS
from biomassters.store.chips import ChipStore


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset") / "simulated"
    write_dataset(folder, n_train=2, n_test=1, chip_size=32)
    return folder


def test_written_folder_packs_to_what_the_synthetic_source_gives(
    dataset: Path, tmp_path: Path
) -> None:
    catalogue = read_catalogue(dataset)
    sources: list[Source] = [FolderSource(dataset), SyntheticSource(32)]
    for split, count in (("train", 2), ("test", 1)):
        ids = []
        for source in sources:
            path = tmp_path / source.kind / f"{split}.zarr"
            chips = catalogue.chips(split)
            pack_split(chips, source, path, tmp_path / "scratch", chip_size=32)
            store = ChipStore.open(path)
            assert (len(store), store.has_targets) == (count, True)
            ids.append(store.content_id)
        assert ids[0] == ids[1]


def test_catalogue_alone_is_the_same(dataset: Path, tmp_path: Path) -> None:
    write_catalogue(tmp_path, n_train=2, n_test=1, chip_size=32)
    names = ["features_metadata.csv", "test_agbm_metadata.csv", "train_agbm_metadata.csv"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    for name in names:
        assert (tmp_path / name).read_bytes() == (dataset / name).read_bytes()


def test_torchgeo_finds_its_names_columns_and_folders(tmp_path: Path) -> None:
    """What torchgeo 0.8.1 asks for; its `BioMassters` has read such a folder, both splits."""
    write_dataset(tmp_path, n_train=1, n_test=1, chip_size=32, home="torchgeo")
    with (tmp_path / "biomassters_features_metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert (tmp_path / f"{row['split']}_features" / row["filename"]).is_file()
        assert (tmp_path / f"{row['split']}_agbm" / row["corresponding_agbm"]).is_file()
        # It takes the month from the file's name, and groups by these.
        assert row["filename"].split("_")[1] == row["satellite"]
        assert row["filename"].startswith(row["chip_id"])
        assert row["month"] == MONTHS[int(row["filename"].split("_")[2].split(".")[0])]
    assert {row["split"] for row in rows} == {"train", "test"}
    assert len(read_catalogue(tmp_path).chips("test")) == 1


@pytest.mark.parametrize(("n_train", "n_test"), [(2, 0), (0, 2)])
def test_one_split_alone_can_be_simulated(n_train: int, n_test: int, tmp_path: Path) -> None:
    write_catalogue(tmp_path, n_train=n_train, n_test=n_test, chip_size=32)
    catalogue = read_catalogue(tmp_path)
    assert [len(catalogue.chips(split)) for split in ("train", "test")] == [n_train, n_test]


def test_folder_with_files_is_refused_untouched(dataset: Path) -> None:
    before = hash_folder(dataset)
    with pytest.raises(CatalogueError, match="expected a new or empty folder"):
        write_dataset(dataset, n_train=1, n_test=0, chip_size=32)
    assert hash_folder(dataset) == before


def test_chip_ids_are_different_and_stable() -> None:
    ids = draw_chip_ids(2000)
    assert len(set(ids)) == 2000
    assert all(len(chip_id) == 8 and int(chip_id, 16) >= 0 for chip_id in ids)
    assert draw_chip_ids(10) == ids[:10]
