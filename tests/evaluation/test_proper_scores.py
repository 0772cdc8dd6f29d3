import numpy as np
import pytest
import scoringrules
from mapie.metrics.regression import regression_mwi_score

from biomassters.evaluation.proper_scores import score_clipped_normal, score_intervals

RANDOM = np.random.default_rng(0)
TARGET = np.maximum(RANDOM.normal(40, 60, 500), 0)
LOCATION = np.maximum(TARGET + RANDOM.normal(0, 25, 500), 0)
DEVIATION = RANDOM.gamma(2, 10, 500) + 0.1
LOWER, UPPER = np.maximum(LOCATION - DEVIATION, 0), LOCATION + 1.3 * DEVIATION


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_interval_score_is_that_of_scoringrules_and_of_mapie(level: float) -> None:
    scores = score_intervals(TARGET, LOWER, UPPER, level)
    theirs = scoringrules.interval_score(TARGET, LOWER, UPPER, 1 - level)
    np.testing.assert_allclose(scores, theirs, rtol=1e-6)
    intervals = np.stack([LOWER, UPPER], axis=1)[..., None]
    assert scores.mean() == pytest.approx(regression_mwi_score(TARGET, intervals, level), rel=1e-6)


def test_crps_is_that_of_scoringrules() -> None:
    theirs = scoringrules.crps_cnormal(TARGET, LOCATION, DEVIATION, lower=0)
    ours = score_clipped_normal(TARGET, LOCATION, DEVIATION)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


def test_crps_far_from_zero_is_that_of_a_plain_normal() -> None:
    theirs = scoringrules.crps_normal(TARGET + 1000, LOCATION + 1000, DEVIATION)
    ours = score_clipped_normal(TARGET + 1000, LOCATION + 1000, DEVIATION)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_crps_of_a_certain_prediction_is_its_error() -> None:
    crps = score_clipped_normal(np.array([30.0]), np.array([50.0]), np.array([0.0]))
    assert crps == pytest.approx(20)


def test_crps_is_the_mean_distance_of_draws_less_half_their_own() -> None:
    draws = np.maximum(5 + 12 * RANDOM.normal(size=(2, 400_000)), 0)
    expected = np.abs(draws[0] - 3).mean() - np.abs(draws[0] - draws[1]).mean() / 2
    ours = score_clipped_normal(np.array(3.0), np.array(5.0), np.array(12.0))
    assert ours == pytest.approx(expected, abs=0.03)
