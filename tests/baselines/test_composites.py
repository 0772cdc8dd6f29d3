import warnings

import numpy as np
import pytest

from biomassters.baselines.composites import N_COMPOSITES, compose_months, find_quantiles
from biomassters.store.bands import CLP
from biomassters.store.chips import Chip

S1_NODATA, S2_NODATA = -32768, 65535
N_BANDS = 14
WINTER, SUMMER = 1, 3
LOW, HIGH = 4, 5


def make_chip() -> Chip:
    """Every band of month m is m + 1 (S1: -m - 1 dB), everywhere, and clear."""
    months = np.arange(1, 13)[:, None, None, None]
    s1 = np.broadcast_to(-100 * months, (12, 4, 2, 2)).astype(np.int16)
    s2 = np.broadcast_to(months, (12, 11, 2, 2)).astype(np.uint16)
    s2[:, CLP] = 50
    return Chip("aa", s1, s2, np.ones(12, bool), None)


def compose(chip: Chip) -> np.ndarray:
    """Return the composites of the first pixel, (6, 14)."""
    return compose_months(chip)[0].reshape(-1, N_BANDS)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.77, 1.0])
def test_quantiles_are_numpys(share: float) -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(12, 3, 200)).astype(np.float32)
    values[random.random(values.shape) < random.random(200)] = np.nan
    values[:, :, 0] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pixels without any value
        expected = np.nanquantile(values.astype(np.float64), share, axis=0)
    found = find_quantiles(values, (share,))[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert np.isnan(found[:, 0]).all()


def test_composites_are_medians_of_seasons_and_the_outer_tenths_of_the_year() -> None:
    composites = compose(make_chip())
    assert composites.shape == (N_COMPOSITES // N_BANDS, N_BANDS)
    s1, s2 = composites[:, 0], composites[:, 4]
    np.testing.assert_allclose(s2, [2, 5, 8, 11, 2.1, 10.9], rtol=1e-6)
    np.testing.assert_allclose(s1, [-2, -5, -8, -11, -10.9, -2.1], rtol=1e-6)


def test_clouds_and_absent_months_have_no_part() -> None:
    chip = make_chip()
    chip.s2[10, CLP], chip.s2[11, CLP] = 51, 100
    chip.s2_present[3:6] = False
    chip.s2[3:6] = 0
    composites = compose(chip)
    assert (composites[SUMMER, 4:] == 10).all()
    assert np.isnan(composites[WINTER, 4:]).all()
    assert (composites[LOW, 4:] > 1).all()  # no 0 of an absent month
    assert (composites[WINTER, :4] == -5).all()


def test_cloud_probability_that_is_not_known_hides_nothing() -> None:
    chip = make_chip()
    expected = compose(chip)
    chip.s2[:, CLP] = S2_NODATA
    np.testing.assert_array_equal(compose(chip), expected)


def test_nodata_is_nan_in_its_own_band_alone() -> None:
    chip = make_chip()
    chip.s1[:, 2:] = S1_NODATA
    chip.s2[:, 0] = S2_NODATA
    missing = np.isnan(compose(chip))
    assert (missing == np.isin(np.arange(N_BANDS), [2, 3, 4])).all()


def test_pixels_are_rows_of_all() -> None:
    chip = make_chip()
    chip.s2[:, :CLP] = np.random.default_rng(0).integers(0, 9000, (12, 10, 2, 2))
    every = compose_months(chip)
    assert every.dtype == np.float32
    np.testing.assert_array_equal(compose_months(chip, np.array([3, 1])), every[[3, 1]])
