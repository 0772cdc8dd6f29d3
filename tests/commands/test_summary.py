import json
from pathlib import Path
from typing import Any

import pytest

from biomassters.commands.summary import summarise
from biomassters.errors import BiomasstersError


def scores(chip_rmse: float, *, r2: float | None = 0.5) -> dict[str, Any]:
    return {"chip_rmse": chip_rmse, "pooled_rmse": 33.25, "mae": 20.0, "bias": -1.5, "r2": r2}


def summarise_evaluation(folder: Path, **sets: Any) -> list[str]:
    (folder / "evaluation.json").write_text(json.dumps({"unit": "t/ha", **sets}))
    return summarise(folder).splitlines()


def test_both_rmses_are_named_with_their_unit(tmp_path: Path) -> None:
    model, baseline = scores(30.0), scores(40.0, r2=None)
    lines = summarise_evaluation(
        tmp_path, validation={"fold_0": {"model": model, "baseline": baseline}}
    )
    assert lines[0].startswith("t/ha")
    assert lines[0].split()[-7:] == ["chip", "RMSE", "pooled", "RMSE", "MAE", "bias", "R²"]
    assert lines[1].split()[-5:] == ["30.00", "33.25", "20.00", "-1.50", "0.50"]
    assert lines[2].split()[-5:] == ["40.00", "33.25", "20.00", "-1.50", "-"]


@pytest.mark.parametrize(
    ("chip_rmse", "text"), [(30.0, "25% below"), (40.0, "0% below"), (50.0, "25% above")]
)
def test_improvement_on_the_baseline_is_stated(tmp_path: Path, chip_rmse: float, text: str) -> None:
    test = {"model": scores(chip_rmse), "baseline": scores(40.0)}
    lines = summarise_evaluation(tmp_path, test=test, validation={})
    assert lines[3].strip() == f"the model's chip RMSE is {text} the training mean's"


def test_columns_are_aligned(tmp_path: Path) -> None:
    pair = {"model": scores(30.0), "baseline": scores(40.0)}
    lines = summarise_evaluation(tmp_path, test=pair, validation={"fold_0": pair, "fold_12": pair})
    rows = [line for line in lines if line.startswith(("test", "validation", "t/ha"))]
    assert len(rows) == 7
    assert len({len(row) for row in rows}) == 1


def test_absent_test_set_is_left_out(tmp_path: Path) -> None:
    pair = {"model": scores(30.0), "baseline": scores(40.0)}
    lines = summarise_evaluation(tmp_path, validation={"fold_0": pair})
    assert not any(line.startswith("test") for line in lines)
    assert lines[1].startswith("validation fold_0, model")


def test_absent_evaluation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BiomasstersError, match=r"expected .*evaluation\.json, got none; run `dvc"):
        summarise(tmp_path)


def test_metric_that_an_older_evaluation_lacks_is_a_dash(tmp_path: Path) -> None:
    older = {key: value for key, value in scores(30.0).items() if key != "r2"}
    lines = summarise_evaluation(
        tmp_path, validation={"fold_0": {"model": older, "baseline": older}}
    )
    assert lines[1].endswith(" -")


def test_without_train_chips_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    lines = summarise_evaluation(tmp_path, test={"model": scores(30.0)}, validation={})
    assert lines[1].startswith("test, model")
    assert lines[2] == ""


def test_without_targets_nothing_was_scored(tmp_path: Path) -> None:
    lines = summarise_evaluation(tmp_path, validation={})
    assert lines[1] == "no chips with targets: nothing was scored"


def test_confidence_intervals_stand_below_their_figures(tmp_path: Path) -> None:
    ends = {"chip_rmse": [25.0, 36.5], "bias": [-4.0, 1.0], "r2": None}
    test = {"model": {**scores(30.0), "ci95": ends}}
    lines = summarise_evaluation(tmp_path, test=test, validation={})
    assert lines[2].split()[-5:] == ["25.00…36.50", "-", "-", "-4.00…1.00", "-"]
    assert lines[2].startswith("    95 % interval over chips")
    assert len(lines[1]) == len(lines[2])


def test_figures_without_intervals_have_no_second_row(tmp_path: Path) -> None:
    ends = dict.fromkeys(("chip_rmse", "pooled_rmse", "mae", "bias", "r2"))
    lines = summarise_evaluation(
        tmp_path, test={"model": {**scores(30.0), "ci95": ends}}, validation={}
    )
    assert lines[2] == ""


def test_other_models_are_named_and_compared(tmp_path: Path) -> None:
    test = {"model": scores(30.0), "baseline": scores(60.0), "trees": scores(40.0)}
    lines = summarise_evaluation(tmp_path, test=test, validation={})
    assert lines[3].startswith("test, trees")
    assert lines[4].strip() == "the model's chip RMSE is 50% below the training mean's"
    assert lines[5].strip() == "the model's chip RMSE is 25% below that of trees"


def test_intervals_are_said_to_hold_for_what_there_is(tmp_path: Path) -> None:
    coverage = {"pixel": 0.914, "block_1ha": 0.9, "block_16ha": None, "chip": 1.0}
    intervals = {"level": 0.9} | {key: {"coverage": share} for key, share in coverage.items()}
    test = {"model": scores(30.0), "intervals": intervals}
    lines = summarise_evaluation(tmp_path, test=test, validation={})
    assert lines[2].strip() == ("90 % intervals hold for 91% of pixels, 90% of 1 ha, 100% of chips")
