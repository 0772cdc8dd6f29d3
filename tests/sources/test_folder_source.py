import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from example_chips import simulate_record, simulate_records

from biomassters.dataset.files import ChipRecord, FileRecord, list_files
from biomassters.errors import SourceError
from biomassters.simulator.official_files import simulate_files
from biomassters.sources.folder_source import FolderSource, list_places
from biomassters.sources.source import FetchedChip

CHIP_ID = "5eed0001"
FILES = simulate_files(CHIP_ID, 32)

LAYOUTS: dict[str, Callable[[FileRecord], str]] = {
    "official": lambda record: record.folder,
    "flat": lambda _: "",
    "twice the same folder": lambda record: f"{record.folder}/{record.folder}",
    "a folder a chip": lambda record: record.filename[:8],
    "a folder a chip in the official ones": lambda record: f"{record.folder}/{CHIP_ID}",
    "the official ones in another": lambda record: f"BioMassters data/{record.folder}",
    "any one": lambda _: "new folder (2)",
    "batches": lambda record: f"batch_{len(record.filename) % 3}/part_{record.size % 7}",
}


def put_files(root: Path, chip: ChipRecord, place: Callable[[FileRecord], str]) -> None:
    for record in list_files(chip):
        folder = root / place(record)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / record.filename).write_bytes(FILES[record.filename])


def fetch(root: Path, *chips: ChipRecord) -> list[FetchedChip]:
    """Prepare here, and fetch from a copy as another process would."""
    source = FolderSource(root)
    source.prepare(chips)
    return list(pickle.loads(pickle.dumps(source)).fetch_chips(chips))  # noqa: S301


@pytest.mark.parametrize("place", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_every_layout_is_read(place: Callable[[FileRecord], str], tmp_path: Path) -> None:
    chip = simulate_record(CHIP_ID)
    put_files(tmp_path, chip, place)
    assert fetch(tmp_path, chip) == [FetchedChip(chip, FILES)]


def test_the_official_layout_is_never_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chip = simulate_record(CHIP_ID)
    put_files(tmp_path, chip, LAYOUTS["official"])
    monkeypatch.delattr(os, "scandir")
    assert fetch(tmp_path, chip) == [FetchedChip(chip, FILES)]


def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    chip = simulate_record(CHIP_ID)
    put_files(tmp_path, chip, LAYOUTS["official"])
    target = tmp_path / "train_agbm" / f"{CHIP_ID}_agbm.tif"
    target.unlink()
    target.mkdir()
    [fetched] = fetch(tmp_path, chip)
    [bad] = fetched.bad_files
    expected = f"the file train_agbm/{CHIP_ID}_agbm.tif in BIOMASSTERS_FOLDER"
    assert bad[1:] == (f"{CHIP_ID}_agbm.tif", expected, "a folder")


def test_a_file_out_of_its_place_is_found_when_it_is_read(tmp_path: Path) -> None:
    chip = simulate_record(CHIP_ID)
    put_files(tmp_path, chip, LAYOUTS["official"])
    (tmp_path / "elsewhere").mkdir()
    name = chip.s1[7].filename
    (tmp_path / "train_features" / name).rename(tmp_path / "elsewhere" / name)
    assert fetch(tmp_path, chip) == [FetchedChip(chip, FILES)]


def test_the_official_place_comes_first_and_then_the_first_in_order(tmp_path: Path) -> None:
    chip = simulate_record(CHIP_ID)
    put_files(tmp_path, chip, LAYOUTS["official"])
    for folder in ("b", "a/z"):
        put_files(tmp_path, chip, lambda _, folder=folder: folder)
    twice, official = chip.s1[3].filename, chip.s1[4].filename
    (tmp_path / "train_features" / twice).unlink()
    (tmp_path / "a/z" / twice).write_bytes(b"the first")
    (tmp_path / "a/z" / official).write_bytes(b"not read")
    [fetched] = fetch(tmp_path, chip)
    assert fetched.files == {**FILES, twice: b"the first"}


def test_missing_files_are_listed_and_the_others_are_read(tmp_path: Path) -> None:
    chip = simulate_record(CHIP_ID)
    put_files(tmp_path, chip, LAYOUTS["flat"])
    name = chip.s1[0].filename
    (tmp_path / name).unlink()
    [fetched] = fetch(tmp_path, chip)
    place = f"the file train_features/{name} in BIOMASSTERS_FOLDER"
    assert fetched.bad_files == ((CHIP_ID, name, place, "none"),)
    assert len(fetched.files) == len(FILES) - 1


def test_a_folder_without_any_of_the_chips_is_refused_at_once(tmp_path: Path) -> None:
    deep = tmp_path / "a/b/c"
    deep.mkdir(parents=True)
    put_files(deep, simulate_record(CHIP_ID), LAYOUTS["flat"])
    message = rf"such as {CHIP_ID}_S1_00\.tif, at most 2 folders deep, got none, at .*BIOMASSTERS_"
    with pytest.raises(SourceError, match=message):
        FolderSource(tmp_path).prepare(simulate_records(CHIP_ID, "5eed0002"))


def test_nothing_to_fetch_needs_no_files(tmp_path: Path) -> None:
    assert fetch(tmp_path) == []


def test_linked_files_and_folders_are_read(tmp_path: Path) -> None:
    chip = simulate_record(CHIP_ID)
    put_files(tmp_path / "disk", chip, LAYOUTS["official"])
    root = tmp_path / "root"
    root.mkdir()
    (root / "features").symlink_to(tmp_path / "disk/train_features")
    (root / chip.agbm.filename).symlink_to(tmp_path / "disk/train_agbm" / chip.agbm.filename)
    (root / "loop").symlink_to(root)
    assert fetch(root, chip) == [FetchedChip(chip, FILES)]


def test_only_regular_files_count(tmp_path: Path) -> None:
    chip = simulate_record(CHIP_ID)
    put_files(tmp_path, chip, LAYOUTS["official"])
    pipe, folder, loop = (tmp_path / "train_features" / chip.s1[m].filename for m in range(3))
    for path in (pipe, folder, loop):
        path.unlink()
    os.mkfifo(pipe)
    folder.mkdir()
    loop.symlink_to(loop)
    [fetched] = fetch(tmp_path, chip)
    assert [bad.filename for bad in fetched.bad_files] == [pipe.name, folder.name, loop.name]


def test_a_file_that_is_too_long_is_not_read_to_its_end(tmp_path: Path) -> None:
    chip = simulate_record(CHIP_ID)
    put_files(tmp_path, chip, LAYOUTS["official"])
    record = chip.s1[5]
    os.truncate(tmp_path / record.folder / record.filename, 2**40)  # sparse: no room is taken
    [fetched] = fetch(tmp_path, chip)
    assert len(fetched.files[record.filename]) == record.size + 1


def test_hidden_folders_and_other_files_are_not_listed(tmp_path: Path) -> None:
    for path in (".dvc/a_S1_00.tif", "b/a_S1_00.tif.part", "b/a_S1_00.tiff", "b/a_S3_00.tif"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "b/a_S2_11.tif").touch()
    assert list_places(tmp_path) == {"a_S2_11.tif": "b"}
