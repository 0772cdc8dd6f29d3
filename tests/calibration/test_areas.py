import math

import numpy as np
import pytest
from held_out_examples import draw_chips, mask_chips

from biomassters.calibration.areas import AreaFactors, cover_with_blocks, split_blocks
from biomassters.calibration.calibration import Calibration
from biomassters.calibration.fitting import calibrate
from biomassters.calibration.held_out import HeldOutChip

CALIBRATION = calibrate(draw_chips(200, 1, 64), 0.9, {})


def cover_blocks(
    calibration: Calibration, chips: list[HeldOutChip], side: int
) -> tuple[float, float]:
    """Return the share of block means in their interval, and in the naive one."""
    inside, naively = [], []
    for chip in chips:
        deviation = calibration.intervals(chip.prediction).deviation
        images = (split_blocks(m, side) for m in (chip.prediction, deviation, chip.error))
        for prediction, deviations, error in zip(*images, strict=True):
            area = calibration.area_interval(prediction, deviations, np.ones((side, side), bool))
            mean = float((prediction + error).mean())
            inside.append(area.lower <= mean <= area.upper)
            naively.append(abs(mean - area.mean) <= 1.645 * area.naive_standard_error)
    return float(np.mean(inside)), float(np.mean(naively))


@pytest.mark.parametrize("side", [10, 40, 64])
def test_means_of_new_blocks_are_covered_where_the_naive_interval_fails(side: int) -> None:
    covered, naively = cover_blocks(CALIBRATION, draw_chips(100, 2, 64), side)
    assert covered == pytest.approx(0.9, abs=0.05)
    assert naively < 0.6


def test_area_interval_by_hand() -> None:
    """Two pixels of which one counts three times as much; the others have no part."""
    prediction = np.array([[100, 20, np.nan]], np.float32)
    deviation = np.array([[30, 10, np.nan]], np.float32)
    area = CALIBRATION.area_interval(prediction, deviation, np.array([[3, 1, 0]]))
    assert area.mean == pytest.approx((3 * 100 + 20) / 4)
    shares = np.array([0.75 * 30, 0.25 * 10])
    assert area.naive_standard_error == pytest.approx(np.hypot(*shares))
    [near] = CALIBRATION.correlation.at(np.ones(1))
    error = np.sqrt((shares**2).sum() + 2 * shares.prod() * near)
    assert area.standard_error == pytest.approx(error)
    reach = error * CALIBRATION.area.at(1 / (0.75**2 + 0.25**2))
    assert area.upper == pytest.approx(area.mean + reach)
    assert area.lower == pytest.approx(max(0, area.mean - reach))


def test_mask_and_equal_weights_are_the_same_wherever_the_area_lies() -> None:
    prediction = np.full((40, 50), 80, np.float32)
    deviation = CALIBRATION.intervals(prediction).deviation
    mask = np.zeros((40, 50), bool)
    mask[5:15, 7:17] = True
    moved = np.roll(mask, (20, 30), (0, 1))
    areas = [CALIBRATION.area_interval(prediction, deviation, w) for w in (mask, 0.3 * moved)]
    np.testing.assert_allclose(*areas, rtol=1e-9)


def test_larger_area_has_a_smaller_error_but_never_less_than_what_all_pixels_share() -> None:
    errors = []
    for side in (1, 4, 16, 64, 256):
        prediction = np.full((side, side), 80, np.float32)
        deviation = CALIBRATION.intervals(prediction).deviation
        area = CALIBRATION.area_interval(prediction, deviation, np.ones((side, side)))
        errors.append(area.standard_error)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] > math.sqrt(CALIBRATION.correlation.persistent) * float(deviation[0, 0])


def test_weights_without_a_pixel_are_refused() -> None:
    nothing = np.zeros((3, 3))
    with pytest.raises(ValueError, match="greater than 0"):
        CALIBRATION.area_interval(nothing, nothing, nothing)


def test_factor_is_interpolated_by_the_logarithm_of_the_size() -> None:
    factors = AreaFactors(pixels=(1, 100, 10_000), factor=(1.5, 1.7, 2.1))
    assert [factors.at(pixels) for pixels in (1, 10, 100, 1000, 10_000, 1e6)] == pytest.approx(
        [1.5, 1.6, 1.7, 1.9, 2.1, 2.1]
    )


def test_factors_are_of_pixels_1_ha_16_ha_and_chips() -> None:
    assert CALIBRATION.area.pixels == (1, 100, 1600, 4096)
    assert calibrate(draw_chips(20), 0.9, {}).area.pixels == (1, 100, 1024)


def test_blocks_are_cut_row_by_row_and_what_fills_none_is_left_out() -> None:
    image = np.arange(35).reshape(5, 7)
    blocks = split_blocks(image, 2)
    assert blocks.shape == (6, 2, 2)
    assert blocks[1].tolist() == [[2, 3], [9, 10]]
    assert blocks[3].tolist() == [[14, 15], [21, 22]]


def test_blocks_that_cover_an_image_overlap_evenly() -> None:
    image = np.arange(64**2).reshape(64, 64)
    np.testing.assert_array_equal(cover_with_blocks(image, 16), split_blocks(image, 16))
    corners = cover_with_blocks(image, 40)[:, 0, 0]
    assert corners.tolist() == [0, 24, 24 * 64, 24 * 65]
    covered = np.unique(cover_with_blocks(image, 10))
    assert covered.tolist() == list(range(64**2))


def test_blocks_without_targets_do_not_count() -> None:
    masked = calibrate(mask_chips(draw_chips(40, side=64), 0.75), 0.9, {})
    assert masked.area.pixels == (1, 100)
