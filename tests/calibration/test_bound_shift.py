import math
from pathlib import Path

import numpy as np
import pytest

from biomassters.calibration.bound_shift import BoundShift, fit_bound_shift
from biomassters.calibration.calibration import read_calibration, write_calibration
from biomassters.calibration.fitting import calibrate
from biomassters.calibration.held_out import HeldOutChip, PixelSample

Z_90 = 1.6449
"""Standard deviations from the middle of a normal distribution to its 95th percentile."""


def draw_chips(n: int, seed: int, width: float) -> list[HeldOutChip]:
    """Draw chips of which a half errs four times as much as the other, whatever is predicted.

    Args:
        n: Number of chips.
        seed: Of all draws.
        width: Of the model's bounds, in those that hold 90 %: it knows which pixels err.
    """
    random = np.random.default_rng(seed)
    chips = []
    for index in range(n):
        prediction = random.uniform(100, 300, (16, 16))
        deviation = np.where(random.random((16, 16)) < 0.5, 5.0, 20.0)
        target = prediction + deviation * random.normal(size=(16, 16))
        bounds = prediction + np.array([-1, 1])[:, None, None] * Z_90 * width * deviation
        arrays = [array.astype(np.float32) for array in (prediction, target, bounds)]
        chips.append(HeldOutChip.compare(f"{index:04}", *arrays))
    return chips


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
def test_with_one_pixel_a_chip_it_is_split_conformal_quantile_regression(level: float) -> None:
    random = np.random.default_rng(3)
    prediction, error = random.uniform(50, 200, 49), random.normal(size=49) * 20
    bounds = np.stack([prediction - 10, prediction + 15])
    shift = fit_bound_shift(PixelSample(prediction, error, np.arange(49)), bounds, level)
    target = prediction + error
    scores = np.sort(np.maximum(bounds[0] - target, target - bounds[1]))
    assert shift.shift == pytest.approx([scores[math.ceil(level * 50) - 1]])


@pytest.mark.parametrize("width", [0.4, 1.0, 2.0])
def test_bounds_of_new_chips_hold_whether_the_models_are_too_narrow_or_too_wide(
    width: float,
) -> None:
    calibration = calibrate(draw_chips(150, 0, width), 0.9, {})
    inside = []
    for chip in draw_chips(60, 1, width):
        _, lower, upper = calibration.intervals(chip.prediction, chip.bounds)
        target = chip.prediction + chip.error
        inside.append(((lower <= target) & (target <= upper)).mean())
    assert np.mean(inside) == pytest.approx(0.9, abs=0.02)
    assert np.sign(calibration.bounds.shift[0]) == np.sign(round(1 - width, 1)) or width == 1


def test_models_bounds_make_shorter_intervals_than_the_prediction_alone() -> None:
    chips = draw_chips(150, 0, 1.0)
    calibration = calibrate(chips, 0.9, {})
    lengths = []
    for bounds in (chips[0].bounds, None):
        _, lower, upper = calibration.intervals(chips[0].prediction, bounds)
        lengths.append((upper - lower).mean())
    assert lengths[0] < 0.9 * lengths[1]


@pytest.mark.parametrize("shift", [-500.0, -3.0, 0.0, 7.5])
def test_prediction_lies_between_its_bounds_and_none_is_below_zero(shift: float) -> None:
    random = np.random.default_rng(0)
    prediction = np.maximum(random.normal(30, 40, (8, 8)), -5).astype(np.float32)
    bounds = np.stack([prediction - 9, prediction + 9])
    lower, upper = BoundShift(prediction=(0.0, 100.0), shift=(shift, shift)).move(
        prediction, bounds
    )
    assert lower.dtype == upper.dtype == np.float32
    assert (lower >= 0).all()
    assert (lower <= np.maximum(prediction, 0)).all()
    assert (upper >= np.maximum(prediction, 0)).all()


def test_higher_level_moves_bounds_further_out() -> None:
    chips = draw_chips(60, 0, 1.0)
    shifts = [calibrate(chips, level, {}).bounds.shift[0] for level in (0.5, 0.8, 0.95)]
    assert shifts == sorted(shifts)
    assert shifts[0] < 0 < shifts[2]


def test_calibration_of_a_model_of_one_number_has_no_shift(tmp_path: Path) -> None:
    chips = draw_chips(20, 0, 1.0)
    with_bounds = calibrate(chips, 0.8, {})
    without = calibrate([chip._replace(bounds=None) for chip in chips], 0.8, {})
    assert without.bounds is None
    assert without.pixel == with_bounds.pixel
    write_calibration(tmp_path / "calibration.json", with_bounds)
    assert read_calibration(tmp_path / "calibration.json") == with_bounds


def test_columns_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="columns of one length"):
        BoundShift(prediction=(0.0, 1.0), shift=(1.0,))
    with pytest.raises(ValueError, match="predictions that rise"):
        BoundShift(prediction=(1.0, 1.0), shift=(1.0, 1.0))
