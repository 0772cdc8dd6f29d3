"""Sentinel-1 over a synthetic chip: the water-cloud model, frost, wind, geometry and speckle."""

from typing import Final

import numpy as np
import numpy.typing as npt

from biomassters.simulator.area import Area
from biomassters.simulator.forest import Ground, Land
from biomassters.simulator.noise import Array, NoiseSource, decibels, gamma_factor
from biomassters.simulator.weather import Weather
from biomassters.store.bands import N_MONTHS, N_S1, S1_NODATA_DB

_GROUND_DB: Final = np.array(
    [
        [-11.3, -10.4, -10.9, -12.2, -13.0, -3.5, -20.3],  # VV
        [-17.8, -16.6, -17.7, -19.8, -20.5, -12.5, -31.0],  # VH
    ]
)
"""Backscatter of each `Ground`, dB."""
_CANOPY_DB: Final = (-9.2, -14.9)
_LOOKS: Final = 24.0
"""Equivalent looks of a monthly mean: some five acquisitions of 4.9 looks."""


def simulate_s1(area: Area, land: Land, weather: Weather) -> npt.NDArray[np.float32]:
    """Image the land by radar.

    Returns:
        Backscatter, (12, 4, H, W), dB in steps of 0.01; an absent orbit is -9999.
    """
    noise = area.open_noise("s1")
    factors = _persistent_factors(land)
    backscatter = np.full((N_MONTHS, N_S1, *area.shape), S1_NODATA_DB, np.float32)
    for month in range(N_MONTHS):
        powers = _month_powers(noise, land, weather, month)
        speckle = gamma_factor(noise.grain(N_S1, area.shape), _LOOKS)
        offset_db = 0.3 * noise.uniforms(N_S1, 1, 1) - 0.15
        for band in np.flatnonzero(weather.s1_present[month].repeat(2)):
            power = powers[band % 2] * factors[band] * speckle[band]
            level_db = decibels(power) + offset_db[band]
            backscatter[month, band] = np.rint(level_db * 100) / 100
    return backscatter


def _persistent_factors(land: Land) -> Array:
    """Compute what stays the same in all months: slopes, forest edges and clumps, (4, H, W)."""
    height = np.pad(land.depth, ((0, 0), (1, 1)), mode="edge")
    edge = height[:, 2:] - height[:, :-2]
    wooded = 0.35 + 0.65 * land.cover
    factors = []
    for band in range(N_S1):
        orbit, polarisation = divmod(band, 2)
        # An edge or slope that faces the radar is bright: ascending orbits look to the east.
        facing = (1.0, -1.0)[orbit] * (1.2 * edge - 0.06 * land.relief[0])
        clumps = 0.8 * land.clumps[polarisation] + 0.6 * land.clumps[2 + orbit]
        factors.append(gamma_factor(clumps * wooded, 15.0) * np.maximum(1 + facing, 0.2))
    return np.stack(factors)


def _month_powers(noise: NoiseSource, land: Land, weather: Weather, month: int) -> Array:
    """Compute the mean backscatter of VV and VH in a month, (2, H, W), linear power.

    Source: the water-cloud model of Attema and Ulaby (1978): the canopy's own backscatter, and the
    ground's as far as the canopy lets it through.
    """
    frost, moisture = weather.frost[month], weather.moisture[month]
    change_db = np.zeros(_GROUND_DB.shape)
    change_db[:, :4] += 1.6 * (moisture - 0.5) - 1.5 * frost
    change_db[1] -= 1.0 * frost
    change_db[:, 6] = noise.uniform(-3.5, 4.0) + 3.0 * frost
    ground = _from_decibels(_GROUND_DB + change_db)[:, land.ground]
    crop = np.where(land.ground == Ground.FIELD, (land.parcel - 0.5) * noise.uniform(-1.2, 1.2), 0)
    ground = ground * np.maximum(1 + crop, 0.2)
    bare = 1 - land.cover
    canopy = _from_decibels(
        np.array(_CANOPY_DB) + 0.6 * (moisture - 0.5) - np.array([1.1, 2.2]) * frost
    )
    birch = 1 - land.species[2] * (0.25 - 0.15 * weather.leaves[month])
    crowns = canopy[:, None, None] * birch * (0.88 + 0.6 * land.depth)
    return np.asarray(ground * bare + crowns * land.cover)


def _from_decibels(level_db: Array) -> Array:
    """Invert `decibels` for a small table: 10 ** (level / 10), by squaring a short series."""
    x = level_db * (0.23025850929940458 / 256)
    y = 1 + x * (1 + x * (0.5 + x / 6))
    for _ in range(8):
        y = y * y
    return np.asarray(y)
