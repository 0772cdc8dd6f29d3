import numpy as np
import pytest
from scipy import stats

from biomassters.evaluation.bootstrap import LEAST_CHIPS, Floats, bootstrap_chips

VALUES = np.random.default_rng(1).gamma(2, 10, 40)
"""Of a skewed kind, as the errors of chips are."""


def mean_of_values(counts: Floats) -> Floats:
    return counts @ VALUES[:, None] / counts.sum(axis=1, keepdims=True)


def test_interval_is_that_of_scipy() -> None:
    theirs = stats.bootstrap(
        (VALUES,),
        np.mean,
        n_resamples=500,
        method="BCa",
        rng=np.random.Generator(np.random.PCG64(0)),
    ).confidence_interval
    assert bootstrap_chips(40, mean_of_values, 500)[0] == pytest.approx(theirs, rel=1e-9)


def test_interval_of_a_root_of_a_ratio_is_that_of_scipy() -> None:
    def statistic(counts: Floats) -> Floats:
        square, pixels = counts @ VALUES**2, counts @ np.arange(1, 41)
        return np.sqrt(square / pixels)[:, None]

    def theirs(values: Floats, pixels: Floats, axis: int) -> Floats:
        return np.sqrt((values**2).sum(axis) / pixels.sum(axis))

    interval = stats.bootstrap(
        (VALUES, np.arange(1, 41)),
        theirs,
        paired=True,
        n_resamples=500,
        rng=np.random.Generator(np.random.PCG64(0)),
    ).confidence_interval
    assert bootstrap_chips(40, statistic, 500)[0] == pytest.approx(interval, rel=1e-9)


def test_interval_does_not_depend_on_how_many_resamples_are_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = bootstrap_chips(40, mean_of_values, 300)
    monkeypatch.setattr("biomassters.evaluation.bootstrap._BLOCK", 7 * 40)
    np.testing.assert_allclose(bootstrap_chips(40, mean_of_values, 300), whole, rtol=1e-12)


def test_interval_holds_the_true_mean_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        sample = random.gamma(2, 10, 30)
        low, high = bootstrap_chips(30, lambda counts, s=sample: counts @ s[:, None] / 30, 400)[0]
        hits += low < 20 < high
    # 190 of 200 expected; BCa of 30 skewed values covers about 93 %, give or take 1.8 % by chance.
    assert 176 <= hits <= 198


def test_equal_chips_have_an_interval_without_width() -> None:
    interval = bootstrap_chips(8, lambda counts: np.full((len(counts), 1), 3.0), 100)
    np.testing.assert_array_equal(interval, [[3.0, 3.0]])


@pytest.mark.parametrize(
    ("with_figure", "is_known"), [(LEAST_CHIPS - 1, False), (LEAST_CHIPS, True)]
)
def test_figure_of_too_few_chips_has_no_interval(with_figure: int, is_known: bool) -> None:
    pixels = np.arange(40) < with_figure

    def statistic(counts: Floats) -> Floats:
        with np.errstate(invalid="ignore"):
            return (counts @ (VALUES * pixels) / (counts @ pixels))[:, None]

    assert np.isfinite(bootstrap_chips(40, statistic, 100)).all() == is_known
