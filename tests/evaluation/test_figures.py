import numpy as np
import pytest

from biomassters.evaluation.figures import ChipErrors, compute_figures, name_figures
from biomassters.prediction.metrics import BIN_NAMES, ErrorSums

RANDOM = np.random.default_rng(0)
TARGETS = RANDOM.gamma(1, 60, (12, 16, 16)).astype(np.float32)
PREDICTIONS = np.maximum(TARGETS + RANDOM.normal(3, 20, TARGETS.shape), 0).astype(np.float32)
TARGETS[3, :5] = np.nan


def errors_of(chips: list[int]) -> ChipErrors:
    errors = ChipErrors()
    for chip in chips:
        errors.add(f"{chip:08x}", PREDICTIONS[chip], TARGETS[chip])
    return errors


def test_figures_are_those_that_training_scores_with() -> None:
    sums = ErrorSums()
    for chip in range(12):
        sums.add(f"{chip:08x}", PREDICTIONS[chip], TARGETS[chip])
    summary = errors_of(list(range(12))).summarise()
    assert set(summary.pop("ci95")) == set(summary)
    assert summary == sums.summarise()


def test_a_chip_that_counts_twice_is_two_chips() -> None:
    counts = np.array([[2.0, 0, 1, 3]])
    [figures] = compute_figures(errors_of([0, 1, 2, 3]).tabulate(), counts)
    expected = errors_of([0, 0, 2, 3, 3, 3]).join().summarise()
    by_bin = {name: rmse for name, rmse in expected.pop("rmse_by_bin").items() if rmse is not None}
    named = name_figures(figures.tolist())
    ours = {name: rmse for name, rmse in named.pop("rmse_by_bin").items() if not np.isnan(rmse)}
    assert named == pytest.approx(expected)
    assert ours == pytest.approx(by_bin)


def test_each_figure_lies_in_its_interval() -> None:
    summary = errors_of(list(range(12))).summarise()
    intervals = summary["ci95"]
    for name in ("chip_rmse", "pooled_rmse", "mae", "bias", "r2"):
        low, high = intervals[name]
        assert low < summary[name] < high
    assert set(intervals["rmse_by_bin"]) == set(BIN_NAMES)
    low, high = intervals["rmse_by_bin"]["0-25"]
    assert low < summary["rmse_by_bin"]["0-25"] < high


def test_too_few_chips_have_figures_and_no_intervals() -> None:
    summary = errors_of([0]).summarise()
    assert summary["chip_rmse"] == pytest.approx(20, rel=0.2)
    assert summary["ci95"] == name_figures([None] * 13)


def test_chip_without_a_target_does_not_count() -> None:
    errors = errors_of([0])
    errors.add("absent", PREDICTIONS[1], np.full((16, 16), np.nan))
    assert errors.chip_ids == ["00000000"]
