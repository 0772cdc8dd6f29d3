import numpy as np
import pytest
from held_out_examples import draw_chips
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from biomassters.calibration.areas import AreaInterval
from biomassters.calibration.calibration import Calibration
from biomassters.calibration.correlation import Correlation, Structure
from biomassters.calibration.fitting import calibrate
from biomassters.mapping.zones.errors import ErrorBlocks
from biomassters.scenes.grid import Box

CALIBRATION = calibrate(draw_chips(12), 0.8, {"fold-0": "0123456789abcdef"})
TEN_METRES = (10.0, 10.0)


def correlate(nugget: float, persistent: float, *structures: tuple[float, float]) -> Calibration:
    """Return a calibration with another correlation."""
    correlation = Correlation(
        nugget=nugget,
        structures=tuple(Structure(share=share, range_px=length) for share, length in structures),
        persistent=persistent,
        empirical=CALIBRATION.correlation.empirical,
    )
    return CALIBRATION.model_copy(update={"correlation": correlation})


MIXED = correlate(0.1, 0.1, (0.4, 1.5), (0.3, 9), (0.1, 32))


def draw_deviations(height: int, width: int) -> NDArray[np.float64]:
    noise = gaussian_filter(np.random.default_rng(0).normal(size=(height, width)), 5)
    return 12 + 20 * np.exp(0.6 * noise / noise.std())


def surround(
    inside: NDArray[np.float64],
    deviation: NDArray[np.float64],
    calibration: Calibration,
    most: int = 10**9,
    sides: tuple[float, float] = TEN_METRES,
) -> tuple[int, AreaInterval]:
    """Return the side of the blocks and the interval of a zone on a grid's odd place."""
    box = Box(-3333, 1111, *inside.shape)
    blocks = ErrorBlocks.lay(box, most)
    for part in box.split(64):
        place = part.within(box)
        blocks.add(part, inside[place] * sides[0] * sides[1], deviation[place])
    return blocks.side, blocks.surround(100.0, calibration, sides)


@pytest.mark.parametrize("calibration", [CALIBRATION, MIXED])
def test_pixel_by_pixel_the_interval_is_that_of_the_calibration(calibration: Calibration) -> None:
    inside = np.random.default_rng(1).random((70, 90))
    deviation = draw_deviations(70, 90)
    side, found = surround(inside, deviation, calibration)
    expected = calibration.area_interval(np.full((70, 90), 100), deviation, inside)
    assert side == 1
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("calibration", [CALIBRATION, MIXED])
@pytest.mark.parametrize(("shape", "tolerance"), [("disc", 0.002), ("corridor", 0.02)])
def test_blocks_of_eight_pixels_give_nearly_the_same(
    calibration: Calibration, shape: str, tolerance: float
) -> None:
    """A corridor of 80 m that crosses the grid is the hard case: it fills few of its blocks."""
    rows, columns = np.mgrid[:360, :300]
    inside = {
        "disc": np.hypot(rows - 180, columns - 150) < 140,
        "corridor": abs(rows - 1.2 * columns) < 5,
    }[shape].astype(np.float64)
    deviation = draw_deviations(*inside.shape)
    _, exact = surround(inside, deviation, calibration)
    side, found = surround(inside, deviation, calibration, most=47 * 39)
    assert side == 8
    np.testing.assert_allclose(found, exact, rtol=tolerance)


def test_blocks_are_the_smallest_that_are_few_enough() -> None:
    blocks = ErrorBlocks.lay(Box(-5, 7, 100, 100), most=700)
    assert (blocks.side, blocks.box) == (4, Box(-2, 1, 26, 26))
    assert ErrorBlocks.lay(Box(0, 0, 500, 500)).side == 1
    assert ErrorBlocks.lay(Box(0, 0, 501, 500)).side == 2


def test_pixels_that_err_alike_err_as_one_however_large() -> None:
    alike = correlate(0.0, 1.0)
    for most in (10**9, 100):
        _, found = surround(np.ones((80, 80)), np.full((80, 80), 20.0), alike, most)
        assert found.standard_error == pytest.approx(20)
        assert found.naive_standard_error == pytest.approx(20 / 80)


def test_pixels_that_err_by_themselves_err_as_one_thinks() -> None:
    alone = correlate(1.0, 0.0)
    for most in (10**9, 100):
        _, found = surround(np.ones((80, 80)), np.full((80, 80), 20.0), alone, most)
        assert found.standard_error == pytest.approx(20 / 80)


def test_distance_counts_in_metres_not_in_pixels() -> None:
    """Pixels of 20 m: two neighbours are as far as two pixels of 10 m with one between."""
    inside, deviation = np.ones((1, 2)), np.full((1, 2), 20.0)
    calibration = correlate(0.0, 0.0, (1.0, 4.0))
    _, found = surround(inside, deviation, calibration, sides=(20.0, 20.0))
    assert found.standard_error == pytest.approx(20 * np.sqrt((1 + np.exp(-2 / 4)) / 2))
    _, oblong = surround(inside, deviation, calibration, sides=(20.0, 5.0))
    assert oblong.standard_error == pytest.approx(20 * np.sqrt((1 + np.exp(-0.5 / 4)) / 2))


def test_size_of_a_zone_counts_in_pixels_of_ten_metres() -> None:
    """The factor of a zone of one pixel of 20 m is that of four pixels."""
    calibration = correlate(0.0, 1.0)
    _, found = surround(np.ones((1, 1)), np.full((1, 1), 10.0), calibration, sides=(20.0, 20.0))
    assert found.upper == pytest.approx(100 + 10 * calibration.area.at(4))
