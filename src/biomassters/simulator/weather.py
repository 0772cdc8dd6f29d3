"""The twelve months over a synthetic chip: snow, frost, moisture, leaves, sun, and what was imaged.

Both sensors see the same weather. Knows neither the land nor the bands.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from biomassters.simulator.noise import Array, NoiseSource
from biomassters.store.bands import N_MONTHS

#                    Sep   Oct   Nov   Dec   Jan   Feb   Mar   Apr   May   Jun   Jul   Aug
_GREEN: Final = (0.80, 0.50, 0.25, 0.15, 0.10, 0.08, 0.08, 0.15, 0.55, 0.92, 1.00, 0.95)
_LEAVES: Final = (0.85, 0.30, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00, 0.50, 1.00, 1.00, 1.00)
_SUN: Final = (0.90, 0.74, 0.60, 0.55, 0.58, 0.80, 0.95, 1.00, 1.00, 1.00, 1.00, 1.00)
_CROWN_LOAD: Final = (0.0, 0.50, 0.80, 1.00, 1.00, 0.35, 0.08, 0.04, 0.02, 0.0, 0.0, 0.0)
"""The most snow that crowns keep: in the cold and dark it stays for weeks, the spring sun sheds it.

Source: field studies of interception (Hedstrom and Pomeroy 1998: unloading grows with time, wind
and warmth).
"""
_SNOW_AGE: Final = (0.0, 0.0, 0.1, 0.1, 0.15, 0.2, 0.45, 0.75, 0.8, 0.0, 0.0, 0.0)
"""How coarse the grains of lying snow are, after the least of melting and refreezing, 0...1."""

_S2_MONTHS: Final = (
    ("111011111111", 3991),
    ("000000111111", 1311),
    ("111111111111", 1251),
    ("111001111111", 879),
    ("110001111111", 739),
    ("000000011111", 518),
)
"""Which months of S2 are present, and for how many chips.

Source: counted in the competition's catalogue of the 8,689 train chips; no others occur.
"""


@dataclass(frozen=True)
class Weather:
    """The state of each month over a chip; every array is (12,).

    Attributes:
        snow: Share of the open ground under snow, 0...1.
        crown_snow: Share of the crowns under snow that they caught, 0...1.
        snow_grain: Size of the snow's grains: 0 new and fine, 1 old, melted and refrozen.
        frost: How frozen soil and trees are, 0...1.
        moisture: Of the soil, 0 (dry)...1 (rain).
        green: How green fields and forest floors are, 0...1.
        leaves: Share of the birches' leaves, 0...1.
        sun: Illumination against midsummer's.
        s2_present: Whether the month has an image of S2, bool.
        s1_present: Whether it has the ascending and the descending orbit of S1, (12, 2), bool.
    """

    snow: Array
    crown_snow: Array
    snow_grain: Array
    frost: Array
    moisture: Array
    green: Array
    leaves: Array
    sun: Array
    s2_present: npt.NDArray[np.bool_]
    s1_present: npt.NDArray[np.bool_]


def draw_weather(chip_id: str, north: float) -> Weather:
    """Draw a year of weather for a chip in the south (north = 0) to the north (1)."""
    noise = NoiseSource("weather", chip_id)
    snow = _draw_snow(noise, north)
    fallen = noise.uniforms(N_MONTHS)
    crown_snow = np.where(snow > 0, np.array(_CROWN_LOAD) * fallen, 0)
    oldest = np.array(_SNOW_AGE)
    # What the crowns still hold fell lately, and lies on the ground in fine grains.
    snow_grain = oldest + 0.4 * (1 - fallen) * (1 - oldest)
    frost = np.where(snow > 0, 0.3 + 0.7 * noise.uniforms(N_MONTHS), 0)
    shift = 0.12 * (noise.uniforms(2, N_MONTHS) - 0.5) - 0.06 * north
    green, leaves = np.array(_GREEN), np.array(_LEAVES)
    return Weather(
        snow=snow,
        crown_snow=crown_snow,
        snow_grain=snow_grain,
        frost=frost,
        moisture=noise.uniforms(N_MONTHS),
        green=np.clip(green + shift[0], 0, 1),
        leaves=np.clip(leaves + shift[1] * (leaves > 0) * (leaves < 1), 0, 1),
        sun=np.array(_SUN) * (1.04 - 0.08 * noise.uniforms(N_MONTHS)),
        s2_present=_draw_s2_months(noise),
        s1_present=_draw_s1_orbits(noise),
    )


def _draw_snow(noise: NoiseSource, north: float) -> Array:
    """Draw the snow of a winter, (12,), 0...1: one season, thin at both ends.

    In the south it lasts from about December to March, with weeks of thaw; in the north from
    October to May.

    Source: dates of permanent snow cover in the climate statistics of Finland.
    """
    first = 3.2 - 2.0 * north + 1.2 * (noise.uniform(0, 1) - 0.5)
    last = 6.3 + 2.3 * north * north + 1.2 * (noise.uniform(0, 1) - 0.5)
    month = np.arange(N_MONTHS)
    depth = np.minimum(month - first, last - month)
    snow = np.where(depth > 0, 0.55 + 0.5 * depth + 0.2 * noise.uniforms(N_MONTHS), 0)
    thaw = noise.uniforms(N_MONTHS) < 0.35 * (1 - north)
    return np.minimum(np.where(thaw, 0, snow), 1)


def _draw_s2_months(noise: NoiseSource) -> npt.NDArray[np.bool_]:
    """Draw which months of S2 are present, at the real rates."""
    n_chips = sum(count for _, count in _S2_MONTHS)
    rank = noise.uniform(0, n_chips)
    ranks = np.cumsum([count for _, count in _S2_MONTHS])
    months = _S2_MONTHS[int(np.searchsorted(ranks, rank, side="right"))][0]
    return np.array([month == "1" for month in months])


def _draw_s1_orbits(noise: NoiseSource) -> npt.NDArray[np.bool_]:
    """Draw which orbits of S1 are present, (12, 2): one chip in eight hardly has a descending one.

    Source: the rate follows from the training set's means of the descending bands, which count
    nodata, against the ascending ones; the manner from the real chip 288afc34.
    """
    absence = np.array([0.001, 0.92 if noise.uniform(0, 1) < 0.13 else 0.01])
    return np.asarray(noise.uniforms(N_MONTHS, 2) >= absence)
