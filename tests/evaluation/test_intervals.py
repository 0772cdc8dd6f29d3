from functools import partial
from typing import Any

import numpy as np
import pytest
from held_out_examples import draw_chips
from mapie.metrics.regression import (
    regression_coverage_score,
    regression_mean_width_score,
    regression_mwi_score,
)

from biomassters.calibration.calibration import Calibration
from biomassters.evaluation.intervals import JudgedChip, JudgedSet, judge_areas, judge_intervals
from biomassters.prediction.maps import PixelIntervals
from biomassters.prediction.metrics import BIN_NAMES


def judge_drawn(calibration: Calibration, n_chips: int = 40) -> list[JudgedChip]:
    """Draw other chips than the calibration has, with their intervals."""
    return [
        JudgedChip(
            chip.prediction,
            chip.prediction + chip.error,
            calibration.intervals(chip.prediction),
            calibration,
        )
        for chip in draw_chips(n_chips, seed=2, side=48)
    ]


def judge(chips: list[JudgedChip]) -> dict[str, Any]:
    judged = judge_intervals(JudgedSet(len(chips), 0.8, lambda: iter(chips)))
    assert judged is not None
    return judged


@pytest.fixture(scope="module")
def chips(calibration: Calibration) -> list[JudgedChip]:
    return judge_drawn(calibration)


@pytest.fixture(scope="module")
def judged(chips: list[JudgedChip]) -> dict[str, Any]:
    return judge(chips)


def test_pixel_figures_are_those_of_mapie(chips: list[JudgedChip], judged: dict[str, Any]) -> None:
    """Chips have as many pixels each, so that a mean over chips is one over pixels."""
    target = np.concatenate([chip.target.ravel() for chip in chips]).astype(float)
    bounds = [
        np.concatenate([bound.ravel() for bound in side]).astype(float)
        for side in zip(*((c.intervals.lower, c.intervals.upper) for c in chips), strict=True)
    ]
    intervals = np.stack(bounds, axis=1)[..., None]
    pixel = judged["pixel"]
    expected = regression_coverage_score(target, intervals)[0]
    assert pixel["coverage"] == pytest.approx(expected, rel=1e-6)
    assert pixel["width"] == pytest.approx(regression_mean_width_score(intervals)[0], rel=1e-6)
    score = regression_mwi_score(target, intervals, 0.8)
    assert pixel["score"] == pytest.approx(score, rel=1e-6)


def test_calibrated_intervals_hold_for_pixels_and_areas_and_naive_ones_do_not(
    judged: dict[str, Any],
) -> None:
    for name in ("pixel", "block_1ha", "block_16ha", "chip"):
        low, high = judged["ci95"][name]["coverage"]
        assert low <= judged[name]["coverage"] <= high
        # The calibration's own chips are 40: it may be off by as much again.
        assert low - 0.1 < 0.8 < high + 0.1
    assert judged["level"] == 0.8
    assert judged["chip"]["naive"]["coverage"] < 0.4
    assert judged["chip"]["naive"]["width"] < judged["chip"]["width"] / 3


def test_classes_have_figures_that_add_up(judged: dict[str, Any]) -> None:
    pixel = judged["pixel"]
    assert len(pixel["coverage_by_decile"]) == 10
    assert np.mean(pixel["coverage_by_decile"]) == pytest.approx(pixel["coverage"], abs=0.03)
    assert pixel["width_by_decile"][0] < pixel["width"] < pixel["width_by_decile"][9]
    assert tuple(pixel["score_by_bin"]) == BIN_NAMES
    assert len(judged["ci95"]["pixel"]["coverage_by_decile"][3]) == 2


def test_areas_are_those_of_the_calibration(calibration: Calibration) -> None:
    [chip] = judge_drawn(calibration, 1)
    chip.target[10:14, 20:26] = np.nan  # 24 pixels of the block in the second row, third column
    width = judge_areas(chip, 10)["width"][1 * 4 + 2]
    mask = np.zeros(chip.target.shape, bool)
    mask[10:20, 20:30] = np.isfinite(chip.target[10:20, 20:30])
    area = calibration.area_interval(chip.prediction, chip.intervals.deviation, mask)
    assert width == pytest.approx(area.upper - area.lower, rel=1e-6)


def test_block_without_half_its_targets_is_left_out(calibration: Calibration) -> None:
    [chip] = judge_drawn(calibration, 1)
    chip.target[:10, :4] = np.nan
    assert len(judge_areas(chip, 10)["coverage"]) == 16
    chip.target[:10, 4:6] = np.nan
    assert len(judge_areas(chip, 10)["coverage"]) == 15
    assert len(judge_areas(chip, 40)["coverage"]) == 1


def test_worked_example_of_two_chips(calibration: Calibration) -> None:
    """One chip is covered on 3 of its 4 pixels, the other on half of the 2 that have a target."""
    bounds = PixelIntervals(*(np.full((2, 2), v, np.float32) for v in (5, 10, 30)))
    prediction = np.full((2, 2), 20, np.float32)
    chips = [
        JudgedChip(prediction, np.float32(target), bounds, calibration)
        for target in ([[10, 20], [30, 50]], [[0, 15], [np.nan, np.nan]])
    ]
    judged = judge(chips)
    assert judged["pixel"]["coverage"] == (3 / 4 + 1 / 2) / 2
    assert judged["pixel"]["width"] == 20
    assert judged["pixel"]["score"] == pytest.approx(((20 + 200 / 4) + (20 + 100 / 2)) / 2)
    assert judged["pixel"]["coverage_by_bin"]["25-50"] == 1
    assert judged["pixel"]["coverage_by_bin"]["0-25"] == (1 + 1 / 2) / 2
    assert judged["block_1ha"]["coverage"] is None
    assert judged["ci95"]["pixel"]["coverage"] is None  # two chips are too few


def test_targets_below_0_count_as_0_and_absurd_ones_are_missed(calibration: Calibration) -> None:
    bounds = PixelIntervals(*(np.full((1, 2), v, np.float32) for v in (5, 0, 30)))
    target = np.float32([[-0.5, 10_000]])
    pixel = judge([JudgedChip(np.float32([[1, 1]]), target, bounds, calibration)])["pixel"]
    assert pixel["coverage_by_bin"]["0-25"] == 1
    assert pixel["coverage_by_bin"]["400+"] == 0
    assert pixel["score_by_bin"]["400+"] == pytest.approx(30 + 9970 * 2 / 0.2)


def test_chips_without_targets_are_not_judged(calibration: Calibration) -> None:
    [chip] = judge_drawn(calibration, 1)
    blank = chip._replace(target=np.full_like(chip.target, np.nan))
    for chips in ([], [blank]):
        judged = JudgedSet(len(chips), 0.8, partial(iter, chips))
        assert judge_intervals(judged) is None


def test_coverage_of_all_chips_is_not_certain(calibration: Calibration) -> None:
    """Of 16 chips that are all covered, 97.5 % would be if the truth were 0.025 ** (1 / 16)."""
    chips = [chip._replace(target=chip.prediction.copy()) for chip in judge_drawn(calibration, 16)]
    judged = judge(chips)
    least = 0.025 ** (1 / 16)
    for name in ("pixel", "chip"):
        assert judged[name]["coverage"] == 1
        assert judged["ci95"][name]["coverage"] == pytest.approx([least, 1])
    assert judged["ci95"]["pixel"]["coverage_by_decile"][4] == pytest.approx([least, 1])
    low, high = judged["ci95"]["pixel"]["width"]
    assert low < judged["pixel"]["width"] < high
