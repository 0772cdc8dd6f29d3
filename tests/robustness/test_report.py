import csv
import json
from pathlib import Path

import numpy as np
import pytest
from tiny_training import IDS, pack_chips

from biomassters.prediction.metrics import ErrorSums
from biomassters.robustness.conditions import PLAIN, Condition
from biomassters.robustness.report import write_no_results, write_results
from biomassters.robustness.scoring import ChipSet, Results

MONTHS = Condition("months_3", months_removed=3)
NO_CLP = Condition("no_clp", ("CLP",))


def add_up(store, error: float) -> ErrorSums:
    """Every chip is off by `error`, the second one by twice as much."""
    sums = ErrorSums()
    for chip, chip_id in enumerate(store.chip_ids):
        target = store.read_target(chip)
        sums.add(chip_id, target + error * (1 + chip), target)
    return sums


@pytest.fixture
def results(tmp_path: Path) -> Results:
    store = pack_chips(tmp_path, *IDS[:2])
    chips = ChipSet("test", store, [0, 1], [Path("models/folds/a.safetensors"), Path("b.x")])
    errors = {PLAIN: add_up(store, 10), MONTHS: add_up(store, 20), NO_CLP: add_up(store, -30)}
    return Results(chips, errors)


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_metrics_hold_three_scores_of_each_condition_and_what_was_measured(
    results: Results, tmp_path: Path
) -> None:
    write_results(tmp_path / "robustness.json", tmp_path / "robustness", results)
    metrics = json.loads((tmp_path / "robustness.json").read_text())
    assert (metrics["set"], metrics["chips"], metrics["models"]) == ("test", 2, "a,b")
    assert set(metrics["plain"]) == {"chip_rmse", "pooled_rmse", "bias"}
    assert metrics["plain"]["chip_rmse"] == pytest.approx(15, rel=1e-5)
    assert metrics["months_removed"]["3"]["pooled_rmse"] == pytest.approx(np.sqrt(1000), rel=1e-5)
    assert metrics["conditions"]["no_clp"]["bias"] == pytest.approx(-45, rel=1e-5)


def test_tables_hold_the_curve_and_each_chips_error(results: Results, tmp_path: Path) -> None:
    write_results(tmp_path / "robustness.json", tmp_path / "robustness", results)
    curve = read_rows(tmp_path / "robustness/months.csv")
    assert [tuple(row.values()) for row in curve] == [
        ("0", "15.000", "15.811"),
        ("3", "30.000", "31.623"),
    ]
    first, second = read_rows(tmp_path / "robustness/chips.csv")
    assert list(first) == ["set", "chip_id", "s2_months", "plain", "months_3", "no_clp"]
    assert second["chip_id"] == IDS[1]
    assert int(second["s2_months"]) == results.of.store.s2_present[1].sum()
    assert (second["plain"], second["no_clp"]) == ("20.000", "60.000")


def test_same_results_give_the_same_bytes(results: Results, tmp_path: Path) -> None:
    folders = tmp_path / "one", tmp_path / "two"
    for folder in folders:
        write_results(folder / "robustness.json", folder / "robustness", results)
    one, two = (
        {path.name: path.read_bytes() for path in folder.rglob("*.*")} for folder in folders
    )
    assert one == two
    assert one["robustness.png"].startswith(b"\x89PNG")


def test_nothing_measured_is_said_in_all_files(tmp_path: Path) -> None:
    write_no_results(tmp_path / "robustness.json", tmp_path / "robustness", "no targets")
    metrics = json.loads((tmp_path / "robustness.json").read_text())
    assert metrics == {"unit": "t/ha", "chips": 0, "reason": "no targets"}
    assert read_rows(tmp_path / "robustness/months.csv") == []
    assert list((tmp_path / "robustness/images").iterdir()) == []
