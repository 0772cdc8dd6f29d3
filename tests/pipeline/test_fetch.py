"""The stage `fetch` as DVC runs it: the same store from each of its sources, by two processes."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from archive_examples import make_zip, split_zip
from hub_server import HubServer
from s3_server import FOLDER, run_service

from biomassters.dataset.catalogue import read_catalogue
from biomassters.simulator.official_files import write_dataset
from biomassters.store.chips import ChipStore
from repository_copy import ROOT, set_params

N_CHIPS = 16
"""As many as two processes are started for."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset") / "simulated"
    write_dataset(folder, n_train=N_CHIPS, n_test=1, chip_size=32)
    return folder


@pytest.fixture(scope="module")
def archives(dataset: Path) -> Mapping[str, bytes]:
    """The official archives of the train chips: features in parts, targets in one zip."""
    features, targets = (
        {f"{folder}/{path.name}": path.read_bytes() for path in (dataset / folder).iterdir()}
        for folder in ("train_features", "train_agbm")
    )
    *parts, last = split_zip(make_zip(features), 3)
    numbered = {f"train_features.z{number:02d}": part for number, part in enumerate(parts, 1)}
    return {**numbered, "train_features.zip": last, "train_agbm.zip": make_zip(targets)}


@pytest.fixture(scope="module")
def content_id(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of the store that the simulator gives."""
    return fetch(tmp_path_factory.mktemp("synthetic"), dataset, "synthetic")


def fetch(folder: Path, dataset: Path, source: str, **environment: str) -> str:
    """Run the stage in an empty folder, and return its store's content_id."""
    for name in ("params.yaml", "dvc.yaml"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    set_params(folder, {"data.source": source, "data.chip_size": 32})
    (folder / "data").mkdir()
    for path in dataset.glob("*.csv"):
        (folder / "data" / path.name).write_bytes(path.read_bytes())
    kept = {name: value for name, value in os.environ.items() if "AWS" not in name}
    done = subprocess.run(
        [sys.executable, str(ROOT / "src/fetch.py"), "train"],
        cwd=folder,
        env={**kept, "BIOMASSTERS_WORKERS": "2", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"train: {N_CHIPS} chips fetched")
    return ChipStore.open(folder / "chips/train.zarr").content_id


def test_archives_give_the_store_of_the_simulator(
    dataset: Path, archives: Mapping[str, bytes], content_id: str, tmp_path: Path
) -> None:
    home = tmp_path / "archives"
    home.mkdir()
    for name, data in archives.items():
        (home / name).write_bytes(data)
    run = tmp_path / "run"
    run.mkdir()
    assert fetch(run, dataset, "archives", BIOMASSTERS_FOLDER=str(home)) == content_id
    assert sorted(path.name for path in home.iterdir()) == sorted(archives)


def test_hub_gives_the_store_of_the_simulator(
    dataset: Path, archives: Mapping[str, bytes], content_id: str, tmp_path: Path
) -> None:
    with HubServer(archives) as server:
        assert fetch(tmp_path, dataset, "hub", HF_ENDPOINT=server.endpoint) == content_id
    assert {path.name for path in (tmp_path / "work/hub").glob("train*")} == set(archives)


def test_s3_gives_the_store_of_the_simulator(
    dataset: Path, content_id: str, tmp_path: Path
) -> None:
    with run_service(read_catalogue(dataset).chips("train")) as port:
        endpoint = f"http://127.0.0.1:{port}"
        mirror = {"BIOMASSTERS_S3_ENDPOINT": endpoint, "BIOMASSTERS_S3_FOLDER": FOLDER}
        assert fetch(tmp_path, dataset, "s3", **mirror) == content_id
    # Raw files never touch the disk.
    assert not list(tmp_path.rglob("*.tif"))


def test_flat_folder_gives_the_store_of_the_simulator(
    dataset: Path, content_id: str, tmp_path: Path
) -> None:
    home, run = tmp_path / "flat", tmp_path / "run"
    home.mkdir()
    run.mkdir()
    for path in dataset.glob("train_*/*.tif"):
        (home / path.name).hardlink_to(path)
    assert fetch(run, dataset, "folder", BIOMASSTERS_FOLDER=str(home)) == content_id
