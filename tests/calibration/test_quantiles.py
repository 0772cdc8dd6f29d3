import math

import numpy as np
import pytest
from mapie.regression import SplitConformalRegressor
from sklearn.dummy import DummyRegressor

from biomassters.calibration.quantiles import (
    chip_quantiles,
    conformal_quantile,
    count_needed_chips,
)

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(("level", "chips"), [(0.9, 9), (0.5, 2), (0.8, 4), (0.95, 19), (0.99, 99)])
def test_needed_chips_are_the_least_that_give_a_finite_interval(level: float, chips: int) -> None:
    assert count_needed_chips(level) == chips
    scores = np.arange(float(chips))
    assert conformal_quantile(scores, np.arange(chips), level) <= chips - 1
    if chips > 2:
        assert conformal_quantile(scores[1:], np.arange(chips - 1), level) == math.inf


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("chips", [21, 50, 137])
def test_with_a_pixel_a_chip_it_is_split_conformal_as_mapie_has_it(
    level: float, chips: int
) -> None:
    targets = RANDOM.normal(size=chips)
    points = np.zeros((chips, 1))
    constant = DummyRegressor(strategy="constant", constant=0.0).fit(points, targets)
    mapie = SplitConformalRegressor(constant, confidence_level=level, prefit=True)
    _, intervals = mapie.conformalize(points, targets).predict_interval(points[:1])
    ours = conformal_quantile(np.abs(targets), np.arange(chips), level)
    assert ours == pytest.approx(float(intervals[0, 1, 0]), abs=1e-6)


def test_a_chip_of_many_pixels_counts_as_one_of_few() -> None:
    scores = np.concatenate([np.full(1000, 9.0), [1, 1, 1, 2, 3]])
    chips = np.concatenate([np.zeros(1000, int), [1, 1, 2, 3, 4]])
    # Masses of 1/6 each: 1, 1, 2, 3, 9 and infinity.
    assert conformal_quantile(scores, chips, 0.66) == 3
    assert conformal_quantile(scores, chips, 0.68) == 9
    assert chip_quantiles(scores, chips, (0.5, 0.79, 0.81)).tolist() == [2, 3, 9]


def test_new_chips_pixel_is_covered_at_the_level() -> None:
    """Chips that differ far more than their pixels: counted by pixels, it would fail."""
    covered = []
    for _ in range(400):
        sizes = RANDOM.integers(1, 60, size=12)
        centres = RANDOM.normal(size=13)
        values = [c + 0.1 * RANDOM.normal(size=n) for c, n in zip(centres, sizes, strict=False)]
        chips = np.repeat(np.arange(12), sizes)
        bound = conformal_quantile(np.concatenate(values), chips, 0.8)
        covered.append(centres[12] + 0.1 * RANDOM.normal() <= bound)
    # 0.8 to 0.8 + 1/13, and three standard deviations of 400 draws.
    assert 0.8 - 0.06 < np.mean(covered) < 0.877 + 0.06
