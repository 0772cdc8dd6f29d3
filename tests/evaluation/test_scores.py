from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from biomassters.errors import ChipDataError
from biomassters.evaluation.scores import (
    ChipMaps,
    check_predictions,
    choose_panel_chips,
    find_baselines,
    list_models,
    mean_without,
    score_maps,
)
from biomassters.prediction.maps import write_prediction
from biomassters.prediction.metrics import ErrorSums

TARGETS = np.float32([[[10, 20], [30, 40]], [[50, 60], [70, 80]], [[0, 0], [0, np.nan]]])
CHIP_IDS = ["a", "b", "c"]


def read_maps() -> Iterator[ChipMaps]:
    for chip_id, target in zip(CHIP_IDS, TARGETS, strict=True):
        yield chip_id, np.nan_to_num(target) + 2, target


def test_model_and_baseline_are_scored_on_the_same_pixels() -> None:
    scores = score_maps(read_maps, lambda _: 30.0).summary
    assert scores["model"]["chip_rmse"] == pytest.approx(2)
    valid = TARGETS[np.isfinite(TARGETS)]
    assert scores["baseline"]["pooled_rmse"] == pytest.approx(np.sqrt(((30 - valid) ** 2).mean()))
    assert scores["baseline"]["bias"] == pytest.approx(30 - valid.mean())


def test_baseline_may_depend_on_the_set() -> None:
    scores = score_maps(read_maps, lambda sums: sums.target_sums[1] / sums.target_sums[0])
    assert scores.summary["baseline"]["bias"] == pytest.approx(0, abs=1e-6)


def test_density_counts_every_pixel_with_a_target_in_its_bins() -> None:
    density = score_maps(read_maps, lambda _: 0.0).density
    assert density.sum() == 11
    assert density[50 // 5, 52 // 5] == 1
    assert density[0, 0] == 3


def test_list_of_chips_has_each_chips_own_figures() -> None:
    rows = score_maps(read_maps, lambda _: 0.0).list_chips("test")
    assert [row["chip_id"] for row in rows] == CHIP_IDS
    assert rows[1] == {
        "set": "test",
        "chip_id": "b",
        "chip_rmse": pytest.approx(2),
        "target_mean": 65,
        "prediction_mean": 67,
    }


def test_training_mean_is_that_of_the_chips_that_were_not_held_out() -> None:
    held_out = ErrorSums()
    held_out.add("a", np.zeros((2, 2)), TARGETS[0])
    rest = TARGETS[1:][np.isfinite(TARGETS[1:])]
    everything = TARGETS[np.isfinite(TARGETS)]
    mean = mean_without(float(everything.mean()), everything.size, held_out)
    assert mean == pytest.approx(rest.mean(), rel=1e-6)


def test_panels_go_from_poor_to_rich_and_do_not_depend_on_the_model() -> None:
    scores = score_maps(read_maps, lambda _: 0.0)
    assert choose_panel_chips(scores, 3) == ["c", "a", "b"]
    assert choose_panel_chips(scores, 1) == ["c"]
    assert len(choose_panel_chips(scores, 10)) == 3


def test_predictions_of_other_models_than_asked_for_are_refused(tmp_path: Path) -> None:
    write_prediction(tmp_path, "a", TARGETS[0], {"MODELS": "fold-1,fold-0"})
    check_predictions(tmp_path, ["a"], ["fold-0", "fold-1"])
    with pytest.raises(ChipDataError, match=r"averaged over fold-0, got fold-0, fold-1, at"):
        check_predictions(tmp_path, ["a"], ["fold-0"])


def test_chip_without_prediction_is_named(tmp_path: Path) -> None:
    with pytest.raises(ChipDataError, match=r"b_agbm\.tif"):
        check_predictions(tmp_path, ["b"], ["final"])


@pytest.fixture
def imported(tmp_path: Path) -> Path:
    """A folder of predictions that two imported models made."""
    for chip_id in "ab":
        write_prediction(tmp_path, chip_id, TARGETS[0], {"MODELS": "winner,other"})
    return tmp_path


def test_imported_models_are_those_of_the_predictions(imported: Path) -> None:
    models = list_models("imported", ["fold-0"], imported, ["a", "b"])
    assert models == ["winner", "other"]
    check_predictions(imported, ["a", "b"], models)


@pytest.mark.parametrize(("models", "names"), [("final", ["final"]), ("folds", ["fold-0"])])
def test_predictions_of_imported_models_are_not_taken_for_trained_ones(
    imported: Path, models: Literal["final", "folds"], names: list[str]
) -> None:
    assert list_models(models, ["fold-0"], imported, ["a", "b"]) == names
    with pytest.raises(ChipDataError, match="got other, winner"):
        check_predictions(imported, ["a", "b"], names)


def test_predictions_of_different_imported_models_are_refused(imported: Path) -> None:
    write_prediction(imported, "b", TARGETS[0], {"MODELS": "winner"})
    models = list_models("imported", [], imported, ["a", "b"])
    with pytest.raises(ChipDataError, match=r"got winner, at .*/b_agbm\.tif"):
        check_predictions(imported, ["a", "b"], models)


def test_without_a_baseline_the_model_is_scored_alone() -> None:
    scores = score_maps(read_maps, None).summary
    assert scores == {"model": score_maps(read_maps, lambda _: 30.0).summary["model"]}


def test_another_model_is_scored_on_the_same_chips() -> None:
    def read_others() -> Iterator[ChipMaps]:
        for chip_id, prediction, target in read_maps():
            yield chip_id, prediction + 3, target

    scores = score_maps(read_maps, None, {"trees": read_others})
    assert scores.summary["trees"]["bias"] == pytest.approx(5)
    assert set(scores.summary) == {"model", "trees"}


def test_without_chips_imported_models_are_none(tmp_path: Path) -> None:
    assert list_models("imported", [], tmp_path, []) == ["final"]


def test_simple_models_are_found_by_their_folders(tmp_path: Path) -> None:
    for name in ("trees/test", "trees/fold-0", "lines/test"):
        (tmp_path / name).mkdir(parents=True)
    assert find_baselines(tmp_path, "test") == {
        "lines": tmp_path / "lines/test",
        "trees": tmp_path / "trees/test",
    }
    assert find_baselines(tmp_path / "absent", "test") == {}
