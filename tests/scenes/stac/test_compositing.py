import numpy as np
import pytest
from numpy.typing import NDArray

from biomassters.scenes.stac.compositing import (
    CLASS_CLOUDS,
    ClearestPixels,
    MeanPower,
    grade_clouds,
    to_power,
    to_reflectance,
)
from biomassters.store.bands import CLP, S1_STORED_NODATA, S2_STORED_NODATA


def make_reflectance(*levels: int) -> NDArray[np.uint16]:
    """Return one row of pixels, ten bands of a level each."""
    return np.tile(np.array(levels, np.uint16), (CLP, 1))[:, None]


def row(*clouds: float) -> NDArray[np.float32]:
    return np.array([clouds], np.float32)


def test_each_pixel_is_the_clearest_and_the_first_of_equals() -> None:
    month = ClearestPixels((1, 3))
    month.add(make_reflectance(100, 101, 102), row(20, 5, 7), np.array([[20, 5, 7]], np.uint16))
    month.add(make_reflectance(200, 201, 202), row(10, 5, 8), np.array([[10, 5, 8]], np.uint16))
    assert month.s2[0].tolist() == [[200, 101, 102]]
    assert month.s2[CLP].tolist() == [[10, 5, 7]]


def test_what_measured_nothing_is_never_the_clearest() -> None:
    month = ClearestPixels((1, 3))
    nothing = make_reflectance(*(S2_STORED_NODATA,) * 3)
    month.add(nothing, row(0, 0, 0), np.zeros((1, 3), np.uint16))
    month.add(make_reflectance(9, 9, 9), row(90, np.inf, 100), np.array([[90, 1, 100]], np.uint16))
    assert month.s2[0].tolist() == [[9, S2_STORED_NODATA, 9]]
    assert month.s2[CLP].tolist() == [[90, S2_STORED_NODATA, 100]]


def test_acquisition_that_is_nowhere_clearer_need_not_be_read() -> None:
    month = ClearestPixels((1, 2))
    assert month.may_gain(row(100, 100))
    month.add(make_reflectance(1, 1), row(0, 30), np.array([[0, 30]], np.uint16))
    assert not month.may_gain(row(0, 30))
    assert not month.may_gain(row(5, np.inf))
    assert month.may_gain(row(5, 29))


def test_backscatter_is_averaged_in_power() -> None:
    mean = MeanPower((1, 1, 3))
    mean.add(np.array([[[0.1, 0.1, np.nan]]], np.float32))
    mean.add(np.array([[[0.01, np.nan, np.nan]]], np.float32))
    # 10 log10(0.055) = -12.596: the mean of -10 and -20 dB would be -15.
    assert mean.to_stored().tolist() == [[[-1260, -1000, S1_STORED_NODATA]]]


def test_power_beyond_what_can_be_stored_is_the_nearest_that_can() -> None:
    mean = MeanPower((1, 1, 2))
    mean.add(np.array([[[1e-38, 1e38]]], np.float32))
    assert mean.to_stored().tolist() == [[[-32767, 32767]]]


def test_units_of_backscatter_give_the_same_power() -> None:
    linear = to_power(np.array([0.1, 0, -1, np.nan, np.inf], np.float32), "linear")
    decibels = to_power(np.array([-10, 0, -9999, np.nan, -np.inf], np.float32), "db")
    assert linear[0] == pytest.approx(0.1)
    np.testing.assert_allclose(linear, decibels)
    assert np.isnan(linear[1:]).all()


def test_reflectance_is_scaled_lowered_and_kept_in_range() -> None:
    raw = np.array([0, 900, 1000, 1001, 3500, 65534, 65535], np.uint16)
    lowered = [S2_STORED_NODATA, 1, 1, 1, 2500, 64534, S2_STORED_NODATA]
    assert to_reflectance(raw, 1.0, -1000).tolist() == lowered
    part = np.array([0, np.nan, 0.25, 9], np.float32)
    assert to_reflectance(part, 10_000.0, 0).tolist() == [65535, 65535, 2500, 65534]


def test_classes_stand_in_for_a_probability() -> None:
    clouds, stored = grade_clouds(np.arange(13, dtype=np.uint8), "classes")
    assert stored.tolist() == [65535, 65535, 10, 40, 0, 0, 0, 30, 65, 95, 50, 5, 65535]
    assert np.isinf(clouds[[0, 1, 12]]).all()
    assert CLASS_CLOUDS[4] < CLASS_CLOUDS[2] < CLASS_CLOUDS[3] < CLASS_CLOUDS[9]


def test_unknown_probability_comes_after_all_others() -> None:
    clouds, stored = grade_clouds(np.array([0, 100, 101, 255], np.uint8), "probability")
    assert clouds.tolist() == [0, 100, 101, 101]
    assert stored.tolist() == [0, 100, 65535, 65535]
