"""What is cheap of `make real-chips`; the training itself is that command, no test."""

import json
import re
import sys
from pathlib import Path

import pytest
from example_chips import read_real_files

import real_chips
from biomassters.dataset.catalogue import read_catalogue
from biomassters.dataset.files import list_files
from biomassters.store.chips import ChipStore
from real_chips import SEEN, build_dataset, count_verified, main, prepare_pipeline, run

IDS = ["0060c0a5", "288afc34"]


@pytest.fixture(scope="module")
def dataset(shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real") / "dataset"
    build_dataset(shared_folder / "real-chips", folder)
    return folder


@pytest.fixture(scope="module")
def pipeline(dataset: Path) -> Path:
    folder = dataset.parent / "pipeline"
    prepare_pipeline(folder, dataset)
    return folder


def test_train_split_is_the_official_catalogue(dataset: Path, shared_folder: Path) -> None:
    official = read_catalogue(shared_folder / "real-chips").chips("train")
    assert [chip.chip_id for chip in official] == IDS
    assert read_catalogue(dataset).chips("train") == official
    assert count_verified(dataset) == "50 of 50 train, 50 of 50 test"


def test_test_split_is_the_same_bytes_under_names_that_say_so(
    dataset: Path, shared_folder: Path
) -> None:
    for chip, chip_id in zip(read_catalogue(dataset).chips("test"), IDS, strict=True):
        assert chip.chip_id == chip_id + SEEN
        files = read_real_files(shared_folder, chip_id)
        assert len(list_files(chip)) == len(files) == 25
        for record in list_files(chip):
            data = (dataset / record.folder / record.filename).read_bytes()
            assert data == files[record.filename.replace(SEEN, "")]


def test_fetch_and_statistics_accept_the_real_chips(pipeline: Path, dataset: Path) -> None:
    run(pipeline, dataset, "dvc", "repro", "--quiet", "band_statistics")
    store = ChipStore.open(pipeline / "chips/train.zarr")
    assert store.chip_ids == IDS
    target = json.loads((pipeline / "statistics.json").read_text())["target"]
    assert target["mean"] == pytest.approx(store.agbm_mean.mean(), rel=1e-6)
    assert 76 < target["mean"] < 92


def test_fetch_refuses_a_flipped_byte_and_names_its_file(
    pipeline: Path, dataset: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = dataset / "test_features" / f"288afc34{SEEN}_S2_07.tif"
    data = path.read_bytes()
    path.write_bytes(data[:99_999] + bytes([data[99_999] ^ 1]) + data[100_000:])
    try:
        with pytest.raises(SystemExit, match="ended with status 1"):
            run(pipeline, dataset, "python", "src/fetch.py", "test")
    finally:
        path.write_bytes(data)
    message = capfd.readouterr().err
    assert re.search(rf"expected cksum \d+, got \d+, at {path.name};", message)
    assert not (pipeline / "chips/test.zarr").exists()


def test_absent_chips_are_skipped_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(real_chips, "WORK", tmp_path / "work")
    monkeypatch.setattr(sys, "argv", ["real_chips.py", str(tmp_path / "none")])
    main()
    assert f"skipped: the two real chips are not here ({tmp_path / 'none'} is absent)" in (
        capsys.readouterr().out
    )
    assert not (tmp_path / "work").exists()
