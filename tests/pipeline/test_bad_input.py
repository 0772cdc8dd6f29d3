"""What a user can get wrong, through the real scripts: one line, exit code 1, nothing written."""

import csv
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forked_scripts import run_script
from locked import held_by_another_process
from workspace import TINY

from biomassters.simulator.official_files import write_dataset
from biomassters.store.chips import ChipStore
from repository_copy import ROOT, SRC, set_params

CHIP_SIZE = int(TINY["data.chip_size"])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset") / "chips"
    write_dataset(folder, n_train=2, n_test=1, chip_size=CHIP_SIZE)
    return folder


@pytest.fixture
def folder(dataset: Path, tmp_path: Path) -> Path:
    """A folder with a pipeline, a catalogue in data/ and the files of its chips in files/."""
    shutil.copytree(dataset, tmp_path / "files")
    (tmp_path / "data").mkdir()
    for path in dataset.glob("*.csv"):
        shutil.copyfile(path, tmp_path / "data" / path.name)
    set_data(tmp_path, source="folder", chip_size=CHIP_SIZE)
    return tmp_path


def set_data(folder: Path, **values: object) -> None:
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copyfile(ROOT / name, folder / name)
    set_params(folder, {f"data.{key}": value for key, value in values.items()})


def fetch(folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    environment = {
        **os.environ,
        "BIOMASSTERS_FOLDER": str(folder / "files"),
        **environment,
    }
    return run_script(folder, str(SRC / "fetch.py"), "train", environment=environment, sources=SRC)


def assert_one_line(result: "subprocess.CompletedProcess[str]", *words: str) -> None:
    assert result.returncode == 1, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]


def one_file(folder: Path, pattern: str) -> Path:
    return sorted((folder / "files").glob(pattern))[0]


def forget_sizes_and_cksums(folder: Path) -> None:
    """Make the catalogue agree with the files' sizes, and take its cksums away."""
    for path in (folder / "data").glob("*.csv"):
        with path.open() as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            found = next((folder / "files").glob(f"*/{row['filename']}"))
            row.update(size=str(found.stat().st_size), cksum="")
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)


def truncate(folder: Path) -> str:
    path = one_file(folder, "train_features/*_S1_03.tif")
    path.write_bytes(path.read_bytes()[:-100])
    forget_sizes_and_cksums(folder)
    return path.name


def overwrite_header(folder: Path) -> str:
    path = one_file(folder, "train_features/*_S2_09.tif")
    path.write_bytes(b"\0" * 64 + path.read_bytes()[64:])
    forget_sizes_and_cksums(folder)
    return path.name


def swap_sensors(folder: Path) -> str:
    path = one_file(folder, "train_features/*_S1_09.tif")
    shutil.copyfile(path.with_name(path.name.replace("_S1_", "_S2_")), path)
    forget_sizes_and_cksums(folder)
    return path.name


def flip_a_byte(folder: Path) -> str:
    path = one_file(folder, "train_features/*_S1_05.tif")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    return path.name


def shorten(folder: Path) -> str:
    path = one_file(folder, "train_agbm/*.tif")
    path.write_bytes(path.read_bytes()[:-1])
    return path.name


def remove_target(folder: Path) -> str:
    path = one_file(folder, "train_agbm/*.tif")
    path.unlink()
    return path.name


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (truncate, "expected"),
        (overwrite_header, "expected a GeoTIFF"),
        (swap_sensors, "expected 4 bands"),
        (flip_a_byte, "expected cksum"),
        (shorten, "bytes, got"),
        (remove_target, "got none"),
    ],
)
def test_bad_file_is_named_and_no_store_is_written(
    folder: Path, spoil: Callable[[Path], str], words: str
) -> None:
    name = spoil(folder)
    assert_one_line(fetch(folder), words, name)
    assert not (folder / "chips/train.zarr").exists()
    assert not (folder / "metrics").exists()


def test_bad_file_leaves_the_store_of_before(folder: Path) -> None:
    assert fetch(folder).returncode == 0
    store = folder / "chips/train.zarr"
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    flip_a_byte(folder)
    forget_sizes_and_cksums(folder)  # so that the chips are fetched anew
    truncate(folder)
    assert fetch(folder).returncode == 1
    assert before == {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}


def test_all_bad_files_are_in_the_csv_until_they_are_mended(folder: Path) -> None:
    paths = [one_file(folder, "train_agbm/*.tif"), one_file(folder, "train_features/*_S1_05.tif")]
    sound = [path.read_bytes() for path in paths]
    names = [shorten(folder), flip_a_byte(folder)]
    assert names == [path.name for path in paths]
    assert_one_line(fetch(folder), *names, "work/fetch/train_bad_files.csv", "data.on_bad_chip")
    with (folder / "work/fetch/train_bad_files.csv").open() as file:
        rows = {row["filename"]: row for row in csv.DictReader(file)}
    assert sorted(rows) == sorted(names)
    assert rows[names[0]]["got"] == str(len(sound[0]) - 1)
    for path, data in zip(paths, sound, strict=True):
        path.write_bytes(data)
    result = fetch(folder)
    assert result.stdout.startswith("train: 1 chips fetched, 1 taken from an unfinished run")
    assert not (folder / "work/fetch/train_bad_files.csv").exists()


def test_chip_with_a_bad_file_is_left_out_and_named_where_params_allow_it(folder: Path) -> None:
    set_data(folder, source="folder", chip_size=CHIP_SIZE, on_bad_chip="skip")
    name = flip_a_byte(folder)
    result = fetch(folder)
    assert result.returncode == 0, result.stderr
    assert "train: 1 chips fetched" in result.stdout
    assert "1 left out (1 bad files)" in result.stdout
    audit = json.loads((folder / "metrics/fetch/train.json").read_text())
    assert audit["chips"] == 1
    assert name.split("_")[0] in json.dumps(audit["skipped"])


def test_subset_is_fetched_alone(folder: Path) -> None:
    rows = (folder / "data/train_agbm_metadata.csv").read_text().splitlines()[1:]
    chip_id = rows[-1].split("_agbm.tif")[0].split(",")[-1]
    set_data(folder, source="folder", chip_size=CHIP_SIZE, **{"subset.chip_ids": [chip_id]})
    result = fetch(folder)
    assert result.returncode == 0, result.stderr
    assert ChipStore.open(folder / "chips/train.zarr").chip_ids == [chip_id]


def test_subset_of_unknown_chips_is_refused(folder: Path) -> None:
    set_data(folder, source="folder", chip_size=CHIP_SIZE, **{"subset.chip_ids": ["nochip"]})
    assert_one_line(fetch(folder), "got nochip", "params.yaml: data.subset.chip_ids")


def test_number_of_workers_that_is_none_is_refused(folder: Path) -> None:
    assert_one_line(fetch(folder, BIOMASSTERS_WORKERS="two"), "BIOMASSTERS_WORKERS", "0 or more")


def test_chips_of_another_size_are_refused(folder: Path) -> None:
    set_data(folder, source="folder", chip_size=64)
    assert_one_line(fetch(folder), "expected 4 bands of 64 x 64", "32 x 32", "data.chip_size")


def test_train_chip_without_a_target_in_the_catalogue_is_refused(folder: Path) -> None:
    path = folder / "data/train_agbm_metadata.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert_one_line(fetch(folder), "expected", "train_agbm_metadata.csv")


def test_split_without_chips_is_an_empty_store_and_audit(folder: Path) -> None:
    path = folder / "data/features_metadata.csv"
    rows = path.read_text().splitlines(keepends=True)
    path.write_text("".join(row for row in rows if ",train," not in row))
    (folder / "data/train_agbm_metadata.csv").unlink()
    result = fetch(folder)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "train: no train chips, nothing to fetch\n"
    assert len(ChipStore.open(folder / "chips/train.zarr")) == 0
    assert (folder / "metrics/fetch/train_chips.csv").read_text().count("\n") == 1
    assert (folder / "metrics/fetch/images/train.png").stat().st_size > 1000


def test_folder_that_is_not_set_is_named(folder: Path) -> None:
    assert_one_line(fetch(folder, BIOMASSTERS_FOLDER=""), "BIOMASSTERS_FOLDER", "set it")


def test_unknown_key_stops_before_any_work(folder: Path) -> None:
    set_data(folder, sauce="folder")
    assert_one_line(fetch(folder), "params.yaml: data.sauce: unknown key")
    assert not (folder / "work").exists()


def test_second_run_beside_the_first_is_refused(folder: Path) -> None:
    assert fetch(folder).returncode == 0
    scratch = folder / "work/fetch/train"
    with held_by_another_process(scratch):
        assert_one_line(fetch(folder), "got another that does the same work; wait")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1536k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_full_disk_is_one_line_and_the_next_run_goes_on(folder: Path, small_disk: Path) -> None:
    for name in ("params.yaml", "dvc.yaml", "data"):
        (small_disk / name).symlink_to(folder / name)
    filler = small_disk / "filler"
    filler.write_bytes(b"\0" * 1_100_000)
    files = {"BIOMASSTERS_FOLDER": str(folder / "files")}
    assert_one_line(fetch(small_disk, **files), "expected room on the disk")
    assert not (small_disk / "chips/train.zarr").exists()
    filler.unlink()
    result = fetch(small_disk, **files)
    assert result.returncode == 0, result.stderr
    assert (small_disk / "chips/train.zarr/zarr.json").exists()


@pytest.mark.parametrize(
    ("fold", "words"),
    [("5", "below split.n_folds = 5"), ("-1", "a whole number"), ("x", "a whole number")],
)
def test_fold_that_there_is_not_is_refused_before_any_work(
    folder: Path, fold: str, words: str
) -> None:
    script = str(SRC / "train.py")
    result = run_script(folder, script, fold, environment=os.environ, sources=SRC)
    assert_one_line(result, words, fold, "at the command line")
    assert not (folder / "work").exists()
