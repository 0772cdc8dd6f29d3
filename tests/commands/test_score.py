import csv
import json
from pathlib import Path

import numpy as np
import pytest
from example_chips import simulate_record

from biomassters.commands.score import score
from biomassters.errors import ChipDataError
from biomassters.packing.assembly import pack_split
from biomassters.prediction.maps import prediction_path, write_prediction
from biomassters.sources.synthetic_source import SyntheticSource
from biomassters.store.chips import ChipStore

N_CHIPS = 7


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout's folder with test chips, their predictions (good/), and worse ones (bad/)."""
    folder = tmp_path_factory.mktemp("checkout")
    chips = [simulate_record(f"5eed000{number}", target=True) for number in range(N_CHIPS)]
    path = folder / "chips/test.zarr"
    pack_split(chips, SyntheticSource(32), path, folder / "scratch", chip_size=32)
    store = ChipStore.open(path)
    random = np.random.default_rng(0)
    for index, chip_id in enumerate(store.chip_ids):
        error = random.normal(0, 5 + index, (32, 32)).astype(np.float32)
        write_prediction(folder / "good", chip_id, store.read_target(index) + error, {})
        # Worse on every chip but the first.
        worse = store.read_target(index) + error * (0.5 if index == 0 else 2)
        write_prediction(folder / "bad", chip_id, worse, {})
    return folder


@pytest.fixture(autouse=True)
def inside(stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands run in a checkout's folder."""
    monkeypatch.chdir(stores)


def test_table_has_each_figure_with_its_interval() -> None:
    document = json.loads(score(Path("good"), as_json=True))
    low, high = document["scores"]["ci95"]["chip_rmse"]
    assert low < document["scores"]["chip_rmse"] < high
    value = document["scores"]["chip_rmse"]
    lines = score(Path("good")).splitlines()
    assert lines[0] == "A = good"
    assert lines[1].startswith("7 of 7 test chips with a target")
    assert f"chip RMSE{f'{value:.2f} [{low:.2f}, {high:.2f}]':>45}" in lines
    titles = [line[:27].strip() for line in lines[4:]]
    assert titles[:6] == ["chip RMSE", "pooled RMSE", "MAE", "bias", "R²", "RMSE of targets 0-25"]


def test_score_is_the_competitions(stores: Path) -> None:
    store = ChipStore.open(stores / "chips/test.zarr")
    document = json.loads(score(Path("good"), as_json=True))
    by_hand = [5 + index for index in range(N_CHIPS)]
    assert document["scores"]["chip_rmse"] == pytest.approx(np.mean(by_hand), rel=0.02)
    assert document["chips"] == len(store)


def test_two_folders_are_compared_chip_by_chip() -> None:
    document = json.loads(score(Path("good"), against=Path("bad"), as_json=True))
    difference = document["difference"]
    ours, theirs = document["scores"], document["against"]["scores"]
    assert difference["chip_rmse"] == pytest.approx(ours["chip_rmse"] - theirs["chip_rmse"])
    assert difference["r2"] == pytest.approx(ours["r2"] - theirs["r2"])
    assert (difference["better_on"], difference["worse_on"]) == (6, 1)
    low, high = difference["ci95"]["chip_rmse"]
    assert low < difference["chip_rmse"] < high < 0
    # The same chips are hard for both: pairs say more than two intervals.
    apart = np.subtract(*np.array([ours["ci95"]["chip_rmse"], theirs["ci95"]["chip_rmse"]]))
    assert high - low < np.ptp(np.concatenate([[0], apart]))
    text = score(Path("good"), against=Path("bad"))
    assert text.splitlines()[-1] == "A has the lower RMSE on 6 chips, B on 1"


def test_folder_against_itself_has_no_difference() -> None:
    difference = json.loads(score(Path("bad"), against=Path("bad"), as_json=True))["difference"]
    assert difference["ci95"]["chip_rmse"] == [0, 0]
    assert (difference["chip_rmse"], difference["better_on"], difference["worse_on"]) == (0, 0, 0)


def test_missing_and_extra_files_are_named_and_both_scored_on_what_both_have(
    stores: Path, tmp_path: Path
) -> None:
    for path in (stores / "good").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    prediction_path(tmp_path, "5eed0003").rename(tmp_path / "5eed9999_agbm.tif")
    text = score(tmp_path, against=Path("bad"))
    assert "    missing: 1, 5eed0003" in text.splitlines()
    assert "    extra: 1, 5eed9999_agbm.tif" in text.splitlines()
    document = json.loads(score(tmp_path, against=Path("bad"), as_json=True))
    assert document["chips"] == 6
    assert document["missing"] == ["5eed0003"]
    assert document["against"]["missing"] == []


def test_rows_of_chips_can_be_had(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    score(Path("good"), against=Path("bad"), chips=path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["chip_id"] for row in rows] == [f"5eed000{number}" for number in range(N_CHIPS)]
    assert float(rows[0]["difference"]) == pytest.approx(float(rows[0]["chip_rmse"]) / 2, abs=0.01)
    assert float(rows[1]["difference"]) == pytest.approx(-float(rows[1]["chip_rmse"]), abs=0.01)


def test_split_without_targets_is_refused(stores: Path) -> None:
    chips = [simulate_record("5eed0001", target=False)]
    path = stores / "chips/train.zarr"
    pack_split(chips, SyntheticSource(32), path, stores / "scratch", chip_size=32)
    with pytest.raises(ChipDataError, match="expected targets of the train chips, got none, at"):
        score(Path("good"), split="train")


def test_folders_without_a_chip_in_common_are_refused(stores: Path, tmp_path: Path) -> None:
    for folder, chip_id in (("a", "5eed0001"), ("b", "5eed0002")):
        path = prediction_path(tmp_path / folder, chip_id)
        path.parent.mkdir()
        path.write_bytes(prediction_path(stores / "good", chip_id).read_bytes())
    with pytest.raises(ChipDataError, match="got no chip of both"):
        score(tmp_path / "a", against=tmp_path / "b")
