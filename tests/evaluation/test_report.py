import csv
from pathlib import Path

import numpy as np
import pytest
from example_chips import simulate_record

from biomassters.errors import ChipDataError
from biomassters.evaluation.report import ChipSet, score_set, write_table
from biomassters.packing.assembly import pack_split
from biomassters.prediction.maps import write_prediction
from biomassters.sources.synthetic_source import SyntheticSource
from biomassters.store.chips import ChipStore

CHIP_IDS = ("5eed0001", "5eed0002", "5eed0003")


def pack_chips(folder: Path) -> ChipStore:
    chips = [simulate_record(chip_id, target=True) for chip_id in CHIP_IDS]
    path = folder / "train.zarr"
    pack_split(chips, SyntheticSource(32), path, folder / "scratch", chip_size=32)
    return ChipStore.open(path)


def test_set_of_chips_is_scored_drawn_and_listed(tmp_path: Path) -> None:
    store = pack_chips(tmp_path)
    for index in (0, 2):  # the other one is of another fold
        write_prediction(tmp_path, store.chip_ids[index], store.read_target(index) + 2, {})
    images = tmp_path / "images"
    images.mkdir()
    scores = score_set(ChipSet("fold-1", store, tmp_path, lambda _: 50.0), images)
    assert round(scores.summary["model"]["chip_rmse"], 4) == 2
    assert sorted(path.name for path in images.iterdir()) == [
        "density_fold-1.png",
        "error_by_bin_fold-1.png",
        "panels_fold-1.png",
    ]
    write_table(tmp_path / "chips.csv", {"fold-1": scores})
    with (tmp_path / "chips.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["chip_id"] for row in rows] == [CHIP_IDS[0], CHIP_IDS[2]]
    assert {(row["set"], row["chip_rmse"]) for row in rows} == {("fold-1", "2.000")}
    mean = float(np.mean(store.read_target(0)))
    assert rows[0]["target_mean"] == f"{mean:.3f}"


def test_table_of_no_chips_names_its_columns(tmp_path: Path) -> None:
    write_table(tmp_path / "chips.csv", {})
    header = "set,chip_id,chip_rmse,target_mean,prediction_mean\n"
    assert (tmp_path / "chips.csv").read_text() == header


def test_set_without_predictions_is_refused(tmp_path: Path) -> None:
    store = pack_chips(tmp_path)
    with pytest.raises(ChipDataError, match=r"chips with targets, got none, at .*validation"):
        score_set(ChipSet("fold-0", store, tmp_path / "validation"), tmp_path)
    assert list(tmp_path.glob("*.png")) == []


def test_other_model_is_scored_beside_and_must_have_the_same_chips(tmp_path: Path) -> None:
    store = pack_chips(tmp_path)
    trees = tmp_path / "trees"
    for index in range(3):
        write_prediction(tmp_path, store.chip_ids[index], store.read_target(index) + 2, {})
        write_prediction(trees, store.chip_ids[index], store.read_target(index) + 3, {})
    scores = score_set(ChipSet("test", store, tmp_path, None, {"trees": trees}), tmp_path)
    assert round(scores.summary["trees"]["bias"], 4) == 3
    (trees / "5eed0002_agbm.tif").unlink()
    with pytest.raises(ChipDataError, match=r"5eed0002_agbm\.tif"):
        score_set(ChipSet("test", store, tmp_path, None, {"trees": trees}), tmp_path)


def test_few_chips_are_scored_and_said_to_have_no_intervals(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = pack_chips(tmp_path)
    write_prediction(tmp_path, CHIP_IDS[0], store.read_target(0) + 2, {})
    scores = score_set(ChipSet("fold-1", store, tmp_path), tmp_path)
    assert scores.summary["model"]["ci95"]["chip_rmse"] is None
    assert "fold-1: expected 5 chips with targets or more" in caplog.text
    assert "got 1, at" in caplog.text


def test_prediction_of_another_size_than_its_chip_is_refused(tmp_path: Path) -> None:
    store = pack_chips(tmp_path)
    write_prediction(tmp_path, CHIP_IDS[0], store.read_target(0)[:16], {})
    with pytest.raises(ChipDataError, match=r"height and width \(32, 32\), got \(16, 32\), at"):
        score_set(ChipSet("fold-1", store, tmp_path), tmp_path)
