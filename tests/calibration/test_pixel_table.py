import numpy as np
import pytest
from held_out_examples import draw_chips

from biomassters.calibration.held_out import HeldOutChip, sample_pixels
from biomassters.calibration.pixel_table import PixelTable, fit_pixel_table, join_bins

CHIPS = draw_chips(150)
TABLE = fit_pixel_table(sample_pixels(CHIPS), 0.9).table
PREDICTIONS = np.linspace(-20, 600, 1000, dtype=np.float32)


def cover(table: PixelTable, chips: list[HeldOutChip]) -> np.ndarray:
    """Return each chip's share of targets within their intervals."""
    shares = []
    for chip in chips:
        bounds, target = table.surround(chip.prediction), chip.prediction + chip.error
        shares.append(np.mean((bounds.lower <= target) & (target <= bounds.upper)))
    return np.array(shares)


def test_bounds_hold_the_prediction_and_never_fall_as_it_rises() -> None:
    bounds = TABLE.surround(PREDICTIONS)
    raised = np.maximum(PREDICTIONS, 0)
    assert (bounds.lower >= 0).all()
    assert (bounds.lower <= raised).all()
    assert (raised <= bounds.upper).all()
    assert (np.diff(bounds.lower) >= -1e-4).all()
    assert (np.diff(bounds.upper) >= -1e-4).all()
    assert (bounds.deviation > 0).all()


def test_bounds_have_no_step() -> None:
    bounds = TABLE.surround(PREDICTIONS)
    slope = np.abs(np.diff(bounds.upper)) / np.diff(PREDICTIONS)
    assert slope.max() < 10


@pytest.mark.parametrize(("lower", "higher"), [(0.5, 0.8), (0.8, 0.95)])
def test_higher_level_is_wider_on_the_whole(lower: float, higher: float) -> None:
    widths = []
    for level in (lower, higher):
        bounds = fit_pixel_table(sample_pixels(CHIPS), level).table.surround(PREDICTIONS)
        widths.append(bounds.upper - bounds.lower)
    assert widths[0].mean() < widths[1].mean()
    assert (widths[1] > 0.95 * widths[0]).all()


@pytest.mark.parametrize(("n_chips", "level"), [(16, 0.9), (40, 0.8), (150, 0.9)])
def test_new_chips_are_covered_at_the_level(n_chips: int, level: float) -> None:
    """Mean over draws of calibration and of test chips."""
    covered = [
        cover(
            fit_pixel_table(sample_pixels(draw_chips(n_chips, seed)), level).table,
            draw_chips(60, 1000 + seed),
        ).mean()
        for seed in range(max(2, 100 // n_chips))
    ]
    assert level - 0.02 < np.mean(covered) < level + 0.06


def test_each_decile_of_the_prediction_is_covered() -> None:
    test = draw_chips(400, 7)
    prediction = np.concatenate([chip.prediction.ravel() for chip in test])
    error = np.concatenate([chip.error.ravel() for chip in test])
    bounds = fit_pixel_table(sample_pixels(draw_chips(400, 8)), 0.9).table.surround(prediction)
    inside = (bounds.lower <= prediction + error) & (prediction + error <= bounds.upper)
    edges = np.unique(np.quantile(prediction, np.arange(1, 10) / 10))
    decile = np.searchsorted(edges, prediction)
    shares = np.array([inside[decile == number].mean() for number in range(len(edges) + 1)])
    assert (np.abs(shares - 0.9) < 0.03).all(), shares


def test_chip_of_more_pixels_counts_as_any_other() -> None:
    twice = [*CHIPS[:40], CHIPS[40]._replace(**{k: np.tile(v, 3) for k, v in maps(CHIPS[40])})]
    tables = [fit_pixel_table(sample_pixels(chips), 0.9).table for chips in (twice, [*CHIPS[:41]])]
    for name in ("prediction", "deviation", "below", "above"):
        columns = [getattr(table, name) for table in tables]
        np.testing.assert_allclose(*columns, rtol=1e-9)


def maps(chip: HeldOutChip) -> list[tuple[str, np.ndarray]]:
    return [("prediction", chip.prediction), ("error", chip.error)]


def test_deviation_is_that_of_the_errors() -> None:
    """As they are drawn: 5 + 0.25 * prediction, times the root of (1.3² + 0.7²) / 2."""
    prediction = np.array([20.0, 60, 100, 140])
    expected = (5 + 0.25 * prediction) * np.sqrt((1.3**2 + 0.7**2) / 2)
    np.testing.assert_allclose(TABLE.deviate(prediction), expected, rtol=0.15)


def test_pixel_of_10_000_changes_little() -> None:
    wild = CHIPS[0]._replace(error=CHIPS[0].error.copy())
    wild.error[3, 3] = 10_000
    table = fit_pixel_table(sample_pixels([wild, *CHIPS[1:]]), 0.9).table
    np.testing.assert_allclose(table.deviation, TABLE.deviation, rtol=0.05)
    np.testing.assert_allclose(table.above, TABLE.above, rtol=0.05)


def test_where_nothing_is_predicted_all_misses_lie_above() -> None:
    chips = [chip._replace(prediction=np.zeros_like(chip.prediction)) for chip in CHIPS]
    chips = [chip._replace(error=np.maximum(chip.error, 0)) for chip in chips]
    table = fit_pixel_table(sample_pixels(chips), 0.9).table
    assert table.surround(np.zeros(1, np.float32)).lower[0] == 0
    above = np.mean([(chip.error > table.above[0]).mean() for chip in chips])
    assert above == pytest.approx(0.1, abs=0.02)
    assert len(table.prediction) == 1


def test_perfect_predictions_have_an_interval_of_some_width() -> None:
    chips = [chip._replace(error=np.zeros_like(chip.error)) for chip in CHIPS[:20]]
    table = fit_pixel_table(sample_pixels(chips), 0.9).table
    assert set(table.deviation) == {0.1}


def test_bins_are_joined_with_the_poorer_neighbour_until_all_have_chips_enough() -> None:
    present = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 0], [0, 0, 1, 1]], bool)
    assert join_bins(present, 1).tolist() == [0, 1, 2, 3]
    assert join_bins(present, 2).tolist() == [0, 1, 2, 2]
    assert join_bins(present, 3).tolist() == [0, 0, 0, 0]
    assert join_bins(present, 4).tolist() == [0, 0, 0, 0]
    assert join_bins(present, 9).tolist() == [0, 0, 0, 0]


def test_where_most_targets_are_exactly_predicted_the_interval_still_has_a_width() -> None:
    chips = [chip._replace(error=np.maximum(chip.error, 0)) for chip in CHIPS[:20]]
    table = fit_pixel_table(sample_pixels(chips), 0.5).table
    assert min(*table.below, *table.above) > 0
