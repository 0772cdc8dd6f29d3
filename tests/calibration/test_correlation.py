import numpy as np
import pytest
from held_out_examples import draw_field
from scipy.optimize import brentq

from biomassters.calibration.correlation import (
    Correlation,
    EmpiricalCorrelation,
    Structure,
    fit_correlation,
    measure_correlation,
)

SIDE, N_CHIPS = 32, 300
NUGGET, PERSISTENT = 0.25, 0.15


def fit_fields(range_px: float, seed: int = 0) -> Correlation:
    """Fit to drawn fields of a known correlation."""
    random = np.random.default_rng(seed)
    falling = draw_field(random, SIDE, range_px, N_CHIPS)
    fields = (
        np.sqrt(NUGGET) * random.normal(size=falling.shape)
        + np.sqrt(1 - NUGGET - PERSISTENT) * falling
        + np.sqrt(PERSISTENT) * random.normal(size=(N_CHIPS, 1, 1))
    )
    return fit_correlation(measure_correlation(fields), SIDE)


def make_correlation(nugget: float, *structures: tuple[float, float]) -> Correlation:
    return Correlation(
        nugget=nugget,
        structures=tuple(Structure(share=share, range_px=length) for share, length in structures),
        persistent=1 - nugget - sum(share for share, _ in structures),
        empirical=EmpiricalCorrelation(distance_px=(), correlation=(), pairs=()),
    )


@pytest.mark.parametrize("range_px", [1.5, 3.0, 6.0])
def test_known_correlation_is_found_again(range_px: float) -> None:
    fitted = fit_fields(range_px)
    distance = np.array([1.0, 2, 4, 8, 16, 24])
    true = PERSISTENT + (1 - NUGGET - PERSISTENT) * np.exp(-distance / range_px)
    # What a chip's mean product varies by is at most about root 2 times the variance that it has in
    # common: the persistent share, and the falling one over the area of a chip.
    common = PERSISTENT + (1 - NUGGET - PERSISTENT) * min(1, 2 * np.pi * (range_px / SIDE) ** 2)
    tolerance = 3 * np.sqrt(2 / N_CHIPS) * common
    np.testing.assert_allclose(fitted.at(distance), true, atol=tolerance)
    # The nugget is told from the fall over the first pixels, which a short range blurs.
    assert fitted.nugget == pytest.approx(NUGGET, abs=0.1)


def test_range_is_found_again() -> None:
    fitted = fit_fields(4.0)
    falling = 1 - fitted.nugget - fitted.persistent

    def fall(distance: float) -> float:
        left = float(fitted.at(np.array([distance]))[0]) - fitted.persistent
        return left / falling - np.exp(-1)

    assert brentq(fall, 0.01, SIDE) == pytest.approx(4.0, rel=0.2)


def test_independent_errors_are_all_nugget_and_equal_ones_all_persistent() -> None:
    random = np.random.default_rng(0)
    own = fit_correlation(measure_correlation(random.normal(size=(100, SIDE, SIDE))), SIDE)
    assert own.nugget > 0.97
    common = np.broadcast_to(random.normal(size=(50, 1, 1)), (50, SIDE, SIDE))
    assert fit_correlation(measure_correlation(common), SIDE).persistent > 0.999


def test_shares_add_up_to_1() -> None:
    fitted = fit_fields(3.0)
    total = fitted.nugget + fitted.persistent + sum(part.share for part in fitted.structures)
    assert total == pytest.approx(1, abs=1e-12)
    assert min(part.share for part in fitted.structures) > 0
    assert fitted.at(np.zeros(1))[0] == pytest.approx(1, abs=1e-12)


def test_measured_by_hand() -> None:
    """Of 2 by 2 pixels: 4 with themselves, 4 pairs at distance 1 (edges), 2 at root 2."""
    measured = measure_correlation([np.array([[1.0, 2.0], [3.0, -1.0]])])
    assert measured.pairs == (4, 6)
    square = (1 + 4 + 9 + 1) / 4
    products = (1 * 2 + 3 * -1 + 1 * 3 + 2 * -1 + 1 * -1 + 2 * 3) / 6
    assert measured.correlation == pytest.approx((1, products / square))
    assert measured.distance_px == pytest.approx((0, (4 + 2 * np.sqrt(2)) / 6))


def test_pixels_without_a_target_have_no_part() -> None:
    random = np.random.default_rng(0)
    field = random.normal(size=(12, 12)) + 1
    masked = field.copy()
    masked[:, 8:] = np.nan
    measured, cut = (measure_correlation([image]) for image in (masked, field[:, :8]))
    near = [d for d in measured.distance_px if d < 7]
    assert measured.pairs[: len(near)] == cut.pairs[: len(near)]
    np.testing.assert_allclose(measured.correlation[:6], cut.correlation[:6], rtol=1e-9)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 4), (10, 10), (13, 8)])
def test_error_of_a_sum_is_the_double_sum_over_all_pairs(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(1)
    correlation = make_correlation(0.2, (0.3, 1.5), (0.4, 6.0))
    deviations = random.uniform(0, 30, shape) * (random.uniform(size=shape) > 0.3)
    rows, columns = np.indices(shape).reshape(2, -1)
    distance = np.hypot(rows[:, None] - rows, columns[:, None] - columns)
    flat = deviations.ravel()
    expected = np.sqrt(flat @ correlation.at(distance) @ flat)
    assert correlation.sum_errors(deviations) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_error_of_a_mean_is_that_of_drawn_fields() -> None:
    """Standard deviation of 3,000 draws: within three of its own standard errors, 4 %."""
    random = np.random.default_rng(2)
    weights = random.uniform(size=(16, 16)) * (np.hypot(*np.indices((16, 16)) - 8) < 7)
    fields = np.sqrt(0.7) * draw_field(random, 16, 3.0, 3000)
    fields += np.sqrt(0.3) * random.normal(size=fields.shape)
    drawn = (fields * weights).sum((1, 2)).std()
    expected = float(make_correlation(0.3, (0.7, 3.0)).sum_errors(weights))
    assert expected == pytest.approx(drawn, rel=3 / np.sqrt(2 * 3000))


def test_many_sums_at_once_are_those_of_each() -> None:
    blocks = np.random.default_rng(3).uniform(size=(2, 3, 10, 10))
    correlation = make_correlation(0.5, (0.5, 4.0))
    each = [[float(correlation.sum_errors(block)) for block in row] for row in blocks]
    np.testing.assert_allclose(correlation.sum_errors(blocks), each, rtol=1e-12)
