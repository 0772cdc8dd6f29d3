import numpy as np
from held_out_examples import draw_chips, mask_chips

from biomassters.calibration.held_out import HeldOutChip, sample_pixels


def test_what_is_below_0_counts_as_0_in_prediction_and_target() -> None:
    maps = np.array([[-5.0, 3.0]], np.float32), np.array([[-0.4, np.nan]], np.float32)
    chip = HeldOutChip.compare("a", *maps)
    assert chip.prediction.tolist() == [[0, 3]]
    assert chip.error[0, 0] == 0
    assert np.isnan(chip.error[0, 1])


def test_sample_has_each_pixel_with_a_target_of_few_chips() -> None:
    chips = mask_chips(draw_chips(3), 0.25)
    sample = sample_pixels(chips)
    assert np.bincount(sample.chip).tolist() == [24 * 32] * 3
    error = np.concatenate([chip.error[8:].ravel() for chip in chips])
    np.testing.assert_array_equal(sample.error, error.astype(np.float64))


def test_sample_of_many_pixels_is_even_and_always_the_same() -> None:
    chips = draw_chips(1, side=64) * 300
    sample = sample_pixels(chips)
    assert set(np.bincount(sample.chip).tolist()) == {2**18 // 300}
    np.testing.assert_array_equal(sample.error, sample_pixels(chips).error)
