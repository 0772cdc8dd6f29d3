import json
from pathlib import Path

import pytest

from biomassters.training.recorder import Recorder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def record(folder: Path, epochs: range, files: dict[str, str] | None = None) -> dict[str, str]:
    recorder = Recorder(folder, files)
    for epoch in epochs:
        values = {"train/loss": 10.0 - epoch}
        recorder.record_epoch(values if epoch % 2 else {**values, "validation/rmse": 20.0 - epoch})
    return recorder.copy_files()


def test_curves_and_latest_values_are_written(tmp_path: Path) -> None:
    record(tmp_path / "curves", range(3))
    curve = tmp_path / "curves/plots/metrics/train/loss.tsv"
    assert curve.read_text() == "step\tloss\n0\t10.0\n1\t9.0\n2\t8.0\n"
    latest = json.loads((tmp_path / "curves/metrics.json").read_text())
    assert latest == {"train": {"loss": 8.0}, "validation": {"rmse": 18.0}, "step": 2}


@pytest.mark.parametrize("n_before", [1, 2, 3])
def test_resumed_curves_are_those_of_one_run(tmp_path: Path, n_before: int) -> None:
    whole = record(tmp_path / "whole", range(4))
    files = record(tmp_path / "first", range(n_before))
    assert record(tmp_path / "second", range(n_before, 4), files) == whole


def test_rows_after_the_copy_are_recorded_once(tmp_path: Path) -> None:
    whole = record(tmp_path / "whole", range(4))
    files = record(tmp_path / "curves", range(1))
    record(tmp_path / "curves", range(1, 4), files)
    assert record(tmp_path / "curves", range(1, 4), files) == whole


def test_curve_that_the_copy_does_not_know_starts_anew(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.record_epoch({"loss": 1.0})
    files = recorder.copy_files()
    recorder.record_epoch({"loss": 2.0, "rmse": 3.0})
    Recorder(tmp_path, files).record_epoch({"loss": 2.0, "rmse": 3.0})
    assert (tmp_path / "plots/metrics/rmse.tsv").read_text() == "step\trmse\n1\t3.0\n"


def test_restored_files_are_the_copy_byte_for_byte(tmp_path: Path) -> None:
    files = record(tmp_path / "first", range(2))
    assert Recorder(tmp_path / "second", files).copy_files() == files
    assert sorted(files) == [
        "metrics.json",
        "plots/metrics/train/loss.tsv",
        "plots/metrics/validation/rmse.tsv",
    ]


def test_without_a_copy_old_curves_are_forgotten(tmp_path: Path) -> None:
    record(tmp_path / "curves", range(3))
    assert record(tmp_path / "curves", range(1)) == record(tmp_path / "fresh", range(1))


def test_neither_dvc_yaml_nor_a_report_is_written(tmp_path: Path) -> None:
    record(tmp_path / "curves", range(2))
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {"metrics.json", "loss.tsv", "rmse.tsv"}
