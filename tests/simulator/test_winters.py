"""Simulated months against those of seven real chips, above all in winter.

Two real chips have their 256 pixels, five were resized to 32: all are compared on a grid of 32.
REAL records what was measured, so that the tests hold without these chips; where they are at hand,
the record is measured again. Seven chips are few: the tolerances are about two and a half standard
errors of the real mean (images of one chip are not independent, so chips count, not images).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from biomassters.simulator.area import ChipArea
from biomassters.simulator.chip import SimulatedChip, simulate_chip
from biomassters.simulator.clouds import mistake_for_clouds
from biomassters.simulator.forest import Ground, grow_land
from biomassters.simulator.noise import NoiseSource
from biomassters.simulator.weather import draw_weather
from biomassters.store.bands import BANDS, CLP
from chip_figures import MEAN, WITH_AGBM, measure_chip, read_real_chips

Floats = npt.NDArray[np.float64]

NOV, DEC, JAN, FEB, MAR, APR, MAY, JUN, JUL = range(2, 11)

#         months, band, kind, real mean, tolerance
REAL = {
    "NIR and AGBM in the dark": ((DEC, JAN), "B8", WITH_AGBM, -0.14, 0.35),
    "SWIR and AGBM in winter": ((DEC, JAN, FEB, MAR), "B11", WITH_AGBM, -0.20, 0.25),
    "blue and AGBM over snow": ((FEB, MAR), "B2", WITH_AGBM, -0.69, 0.15),
    "cloud probability in the dark": ((NOV, DEC, JAN), "CLP", MEAN, 33.6, 16.0),
    "cloud probability in summer": ((MAY, JUN, JUL), "CLP", MEAN, 2.9, 5.0),
}
CLP_SPREAD = 0.40
"""Real standard deviation of the correlation of cloud probability with AGBM, December to March."""
#            band, real mean at 10 m in clear months of summer, tolerance: two chips, many pixels
NEIGHBOURS = {"B2": (0.922, 0.08), "B4": (0.936, 0.07), "B8": (0.953, 0.04), "CLP": (0.731, 0.12)}


@pytest.fixture(scope="module")
def chips() -> list[SimulatedChip]:
    return [simulate_chip(f"winter-{i}", 256) for i in range(24)]


@pytest.fixture(scope="module")
def figures(chips: list[SimulatedChip]) -> Floats:
    return np.stack([measure_chip(chip) for chip in chips])


@pytest.fixture(scope="module")
def real_chips(shared_folder: Path) -> dict[str, SimulatedChip]:
    folders = [shared_folder / name for name in ("real-chips", "real-chips-32")]
    chips = dict(chip for folder in folders for chip in read_real_chips(folder))
    if len(chips) != 7:
        pytest.skip(f"needs the seven real chips, of which {7 - len(chips)} are absent")
    return chips


def _pool(figures: Floats, months: Sequence[int], band: str, kind: int) -> Floats:
    values = figures[:, list(months), BANDS.index(band), kind]
    return values[np.isfinite(values)]


def _neighbours(chips: Sequence[SimulatedChip], band: str) -> float:
    """Correlate pixels of 10 m with the next in their rows, on average over clear images."""
    correlations = []
    for image in (chip.s2[month] for chip in chips for month in (MAY, JUN, JUL)):
        if (image[CLP] < 20).mean() > 0.9:
            values = image[BANDS.index(band) - 4].astype(np.float64)
            pair = np.corrcoef(values[:, 1:].ravel(), values[:, :-1].ravel())
            correlations.append(pair[0, 1])
    return float(np.mean(correlations))


@pytest.mark.parametrize("name", REAL)
def test_simulated_months_are_as_the_real_ones(figures: Floats, name: str) -> None:
    months, band, kind, real, tolerance = REAL[name]
    assert _pool(figures, months, band, kind).mean() == pytest.approx(real, abs=tolerance)


@pytest.mark.parametrize("name", REAL)
def test_recorded_means_are_those_of_the_real_chips(
    real_chips: dict[str, SimulatedChip], name: str
) -> None:
    months, band, kind, real, _ = REAL[name]
    measured = np.stack([measure_chip(chip) for chip in real_chips.values()])
    assert _pool(measured, months, band, kind).mean() == pytest.approx(real, rel=0.02, abs=0.006)


def test_cloud_probability_knows_the_land_in_winter(figures: Floats) -> None:
    # In some real images it rises with AGBM, in others it falls: simulated, half of that at least.
    correlations = _pool(figures, (DEC, JAN, FEB, MAR), "CLP", WITH_AGBM)
    assert correlations.std() > 0.5 * CLP_SPREAD
    assert correlations.min() < -0.1 < 0.3 < correlations.max()


def test_recorded_spread_is_that_of_the_real_chips(real_chips: dict[str, SimulatedChip]) -> None:
    measured = np.stack([measure_chip(chip) for chip in real_chips.values()])
    correlations = _pool(measured, (DEC, JAN, FEB, MAR), "CLP", WITH_AGBM)
    assert correlations.std() == pytest.approx(CLP_SPREAD, abs=0.01)


@pytest.mark.parametrize("band", NEIGHBOURS)
def test_neighbouring_pixels_are_as_alike_as_real_ones(
    chips: list[SimulatedChip], band: str
) -> None:
    real, tolerance = NEIGHBOURS[band]
    assert _neighbours(chips, band) == pytest.approx(real, abs=tolerance)


@pytest.mark.parametrize("band", NEIGHBOURS)
def test_recorded_neighbours_are_those_of_the_real_chips(
    real_chips: dict[str, SimulatedChip], band: str
) -> None:
    sharp = [chip for chip in real_chips.values() if len(chip.agbm) == 256]
    assert _neighbours(sharp, band) == pytest.approx(NEIGHBOURS[band][0], abs=0.001)


def test_snow_lies_for_one_season_which_is_longer_in_the_north() -> None:
    # In the far north no thaw: snow, once it lies, stays until it melts.
    for i in range(50):
        snowy = np.flatnonzero(draw_weather(f"season-{i}", 1.0).snow)
        assert snowy.tolist() == list(range(snowy[0], snowy[-1] + 1))
        assert DEC in snowy
        assert JUL not in snowy
    south, north = (
        np.mean([draw_weather(f"season-{i}", where).snow > 0 for i in range(200)], axis=0)
        for where in (0.0, 1.0)
    )
    assert north[MAY] > 0.5 > 0.05 > south[MAY]
    assert south.sum() < north.sum() - 2


def test_snow_ages_towards_spring_and_falls_from_the_crowns() -> None:
    weathers = [draw_weather(f"age-{i}", 0.8) for i in range(200)]
    grain = np.mean([weather.snow_grain for weather in weathers], axis=0)
    on_crowns = np.mean([weather.crown_snow for weather in weathers], axis=0)
    assert grain[DEC] < grain[MAR] < grain[APR]
    assert on_crowns[JAN] > 2 * on_crowns[FEB] > 8 * on_crowns[APR]
    assert on_crowns[JUL] == 0


def test_cloud_probability_is_sure_of_open_snow_and_water() -> None:
    land = grow_land(ChipArea("doubt", 64))
    snow = np.array([9000, 8900, 8800, 9000, 9000, 8900, 9000, 8800, 800, 800], np.float64)
    water = np.array([140, 130, 80, 70, 60, 55, 50, 50, 30, 25], np.float64)
    crowns = np.array([175, 330, 215, 570, 1800, 2150, 2260, 2340, 980, 460], np.float64)
    means = [
        mistake_for_clouds(
            NoiseSource("doubt"), np.tile(spectrum[:, None, None], (1, 64, 64)), 0.05, land
        ).mean()
        for spectrum in (snow, water, crowns)
    ]
    assert means[0] < 0.5
    assert means[1] < 0.5
    assert means[2] > 1


def test_open_snow_is_bright_in_visible_and_dark_in_shortwave_infrared() -> None:
    for i in range(8):
        chip, land = simulate_chip(f"snow-{i}", 64), grow_land(ChipArea(f"snow-{i}", 64))
        open_land = (land.ground == Ground.FIELD) | (land.ground == Ground.MIRE)
        image = chip.s2[MAR]
        snow = open_land & (image[2] > 6000) & (image[CLP] < 30)
        if snow.sum() > 50:
            assert np.median(image[8][snow]) < 0.2 * np.median(image[2][snow])
