import numpy as np
import pytest
from held_out_examples import draw_chips

from biomassters.calibration.fitting import calibrate, cross_calibrate
from biomassters.errors import ChipDataError

CHIPS = draw_chips(20)


@pytest.mark.parametrize(("n_chips", "level", "needed"), [(8, 0.9, 9), (1, 0.5, 2), (18, 0.95, 19)])
def test_too_few_chips_are_refused_with_the_number_that_is_needed(
    n_chips: int, level: float, needed: int
) -> None:
    with pytest.raises(ChipDataError) as refusal:
        calibrate(CHIPS[:n_chips], level, {})
    assert f"at least {needed} held-out chips" in str(refusal.value)
    assert f"got {n_chips}, at params.yaml: calibration.level" in str(refusal.value)
    calibrate(draw_chips(needed), level, {})


def test_same_chips_give_the_same_calibration() -> None:
    assert calibrate(CHIPS, 0.8, {"fold-0": "ab"}) == calibrate(CHIPS, 0.8, {"fold-0": "ab"})


def test_each_chip_gets_a_calibration_that_it_had_no_part_in() -> None:
    crossed = cross_calibrate(CHIPS, 0.8, {})
    spoiled = [*CHIPS[:3], CHIPS[3]._replace(error=CHIPS[3].error + 500), *CHIPS[4:]]
    again = cross_calibrate(spoiled, 0.8, {})
    assert crossed[3] == again[3]
    assert crossed[4] != again[4]
    assert len({id(calibration) for calibration in crossed}) == 5
    assert {calibration.chips for calibration in crossed} == {16}


def test_each_of_few_chips_is_judged_by_all_others() -> None:
    crossed = cross_calibrate(draw_chips(10), 0.9, {})
    assert {calibration.chips for calibration in crossed} == {9}
    with pytest.raises(ChipDataError, match=r"at least 9 held-out chips .* got 8"):
        cross_calibrate(draw_chips(9), 0.9, {})


def test_judged_by_others_coverage_is_that_of_new_chips() -> None:
    chips = draw_chips(120, 5)
    inside = []
    for chip, calibration in zip(chips, cross_calibrate(chips, 0.9, {}), strict=True):
        bounds, target = calibration.intervals(chip.prediction), chip.prediction + chip.error
        inside.append(np.mean((bounds.lower <= target) & (target <= bounds.upper)))
    assert np.mean(inside) == pytest.approx(0.9, abs=0.04)
