"""Sentinel-2 over a synthetic chip: crowns over ground or snow, low sun, clouds and shadows."""

from typing import Final

import numpy as np
import numpy.typing as npt

from biomassters.simulator.forest import Ground, Land
from biomassters.simulator.noise import Array, NoiseSource, decay
from biomassters.simulator.weather import Weather
from biomassters.store.bands import CLP, CLP_NODATA, N_MONTHS, N_S2

_MAX_DN: Final = 18000.0
_SUMMER_GROUND: Final = np.array(
    [
        [270, 500, 360, 880, 2350, 2750, 2900, 3000, 1500, 790],  # forest floor
        [340, 560, 540, 1030, 2000, 2300, 2450, 2550, 2150, 1250],  # clear-cut
        [300, 520, 480, 950, 1950, 2200, 2350, 2450, 1650, 850],  # mire
        [360, 680, 430, 1150, 3000, 3600, 3800, 3900, 1800, 900],  # field
        [620, 780, 860, 1150, 1900, 2150, 2300, 2400, 2250, 1600],  # road
        [1000, 1100, 1150, 1300, 1900, 2050, 2200, 2250, 2100, 1700],  # building
        [140, 130, 80, 70, 60, 55, 50, 50, 30, 25],  # water
    ],
    np.float64,
)
"""Reflectance of each `Ground` in July, DN, bands B2...B12."""
_DORMANT_GROUND: Final = np.array(
    [
        [290, 420, 470, 800, 1350, 1550, 1750, 1760, 1600, 1000],
        [380, 560, 660, 1000, 1500, 1700, 1950, 1950, 2150, 1400],
        [310, 470, 560, 900, 1350, 1500, 1700, 1750, 1700, 1000],
        [560, 760, 960, 1250, 1650, 1800, 2050, 2100, 2350, 1700],
        [600, 750, 850, 1050, 1400, 1550, 1700, 1750, 2100, 1600],
        [950, 1050, 1100, 1250, 1600, 1700, 1850, 1900, 2000, 1700],
        [150, 140, 95, 80, 65, 60, 55, 55, 30, 25],
    ],
    np.float64,
)
_SUMMER_CROWN: Final = np.array(
    [
        [175, 330, 215, 570, 1800, 2150, 2260, 2340, 980, 460],  # pine
        [140, 280, 165, 460, 1550, 1900, 1980, 2050, 780, 350],  # spruce
        [175, 390, 195, 680, 2500, 3150, 3250, 3400, 1280, 550],  # birch
    ],
    np.float64,
)
_DORMANT_CROWN: Final = np.array(
    [
        [180, 290, 270, 560, 1250, 1450, 1620, 1600, 880, 510],
        [145, 245, 215, 460, 1150, 1350, 1480, 1460, 690, 380],
        [210, 310, 340, 580, 1150, 1300, 1480, 1500, 1280, 730],
    ],
    np.float64,
)
_SNOW: Final = np.array([8400, 8000, 8150, 8250, 8000, 7600, 8000, 7200, 430, 420], np.float64)
_CLOUD: Final = np.array([1.0, 0.96, 0.97, 0.99, 1.01, 1.0, 1.02, 0.98, 0.52, 0.42])
"""Spectrum of a thick cloud against its B2."""
_HAZE: Final = np.array([1.0, 0.55, 0.38, 0.3, 0.22, 0.18, 0.15, 0.12, 0.03, 0.02])
_REDDENING: Final = np.array([-0.1, 0.2, 0.3, 0.3, 0.3, 0.35, 0.3, 0.35, 0.4, 0.4])
"""What each band loses beyond the rest under a low sun: skylight, which is blue, remains."""
_CLOUDY_CHANCE: Final = 0.2
_MAX_SHADOW_PX: Final = 24
_COARSE_BANDS: Final = (3, 4, 5, 7, 8, 9)
"""B5 B6 B7 B8A B11 B12: imaged at 20 m."""


def simulate_s2(chip_id: str, land: Land, weather: Weather) -> npt.NDArray[np.uint16]:
    """Image the land in visible and infrared light.

    Returns:
        (12, 11, H, W): reflectance, DN, 1 and more; cloud probability 0-100. A nodata pixel, and
        all of an absent month, has reflectance 0 and cloud probability 255.
    """
    size = len(land.ground)
    images = np.zeros((N_MONTHS, N_S2, size, size), np.uint16)
    images[:, CLP] = CLP_NODATA
    for month in np.flatnonzero(weather.s2_present):
        noise = NoiseSource("s2", chip_id, str(size), str(month))
        clear = _clear_view(noise, land, weather, int(month))
        image, cloudiness = _add_clouds(noise, clear, float(weather.snow[month]))
        seen = _swath(noise, size)
        images[month, :CLP] = np.rint(np.clip(image, 1, _MAX_DN)) * seen
        images[month, CLP] = np.where(seen, np.rint(cloudiness), CLP_NODATA)
    return images


def _clear_view(noise: NoiseSource, land: Land, weather: Weather, month: int) -> Array:
    """Compute the reflectance of a month without clouds, (10, H, W), DN."""
    size = len(land.ground)
    sun = float(weather.sun[month])
    crowns = _crowns(noise, land, weather, month)
    # A low sun hardly reaches the ground between tall trees.
    lit = 1 - 0.6 * land.depth - 1.4 * (1 - sun) * _northward_shadow(land.depth)
    ground = _ground(noise, land, weather, month) * np.maximum(lit, 0.1)
    view = ground + land.cover * (crowns - ground)
    shade = 1 - (0.02 + 0.22 * (1 - sun)) * land.relief[1]
    texture = 1 + 0.08 * land.clumps[0] + 0.06 * noise.grain(1, size)[0]
    view *= np.maximum(shade * texture, 0.05)
    view *= (sun - (1 - sun) * _REDDENING)[:, None, None]
    view += (noise.uniform(0, 40) + noise.uniform(0, 400) * (1 - sun)) * _HAZE[:, None, None]
    view *= 1 + 0.025 * noise.grain(len(view), size)
    return _blur_coarse_bands(view)


def _northward_shadow(depth: Array) -> Array:
    """Give the depth of the canopy that stands between each pixel and the sun, (H, W)."""
    southern = np.pad(depth, ((0, 3), (0, 0)), mode="edge")
    n = len(depth)
    return np.maximum(np.maximum(depth, southern[1 : n + 1]), 0.6 * southern[3 : n + 3])


def _crowns(noise: NoiseSource, land: Land, weather: Weather, month: int) -> Array:
    """Compute the reflectance of the crowns, (10, H, W), DN: darker the deeper the canopy."""
    vigour = np.array([weather.green[month], weather.green[month], weather.leaves[month]])
    spectra = _DORMANT_CROWN + vigour[:, None] * (_SUMMER_CROWN - _DORMANT_CROWN)
    on_crowns = 0.25 * float(weather.snow[month]) * max(noise.uniform(-0.6, 1), 0)
    spectra = spectra + on_crowns * (_SNOW - spectra)
    crowns = sum(spectra[kind][:, None, None] * share for kind, share in enumerate(land.species))
    return np.asarray(crowns * (1.32 - 0.95 * land.depth))


def _ground(noise: NoiseSource, land: Land, weather: Weather, month: int) -> Array:
    """Compute the reflectance of the open ground, (10, H, W), DN, with its snow."""
    size = len(land.ground)
    green = float(weather.green[month])
    dormant = np.ascontiguousarray(_DORMANT_GROUND.T)
    growth = np.ascontiguousarray((_SUMMER_GROUND - _DORMANT_GROUND).T)
    # Each parcel has its own calendar of sowing, ripening and ploughing.
    calendar = noise.uniform(-0.9, 0.9) * (land.parcel - 0.5)
    is_field = land.ground == Ground.FIELD
    vigour = np.clip(green + np.where(is_field, 1.6, 0.25) * calendar, 0, 1.3)
    ground = dormant[:, land.ground] + vigour * growth[:, land.ground]
    ground *= 1 + np.where(is_field, 0.7, 0.12) * (land.parcel - 0.5)
    amount = float(weather.snow[month])
    if amount > 0:
        patches = 4 * (amount - 0.5) + 0.8 * noise.rough(size, 20.0, 4)
        lying = np.clip(patches, 0, 1) * np.array([0.95, 0.95, 1, 1, 0.7, 0.6, 1])[land.ground]
        brightness = noise.uniform(0.8, 1.0)
        ground += lying * (brightness * _SNOW[:, None, None] - ground)
    return ground


def _blur_coarse_bands(view: Array) -> Array:
    """Smooth the bands of 20 m over 2 x 2 pixels."""
    coarse = view[list(_COARSE_BANDS)]
    padded = np.pad(coarse, ((0, 0), (0, 1), (0, 1)), mode="edge")
    rows = padded[:, 1:] + padded[:, :-1]
    view[list(_COARSE_BANDS)] = (rows[:, :, 1:] + rows[:, :, :-1]) / 4
    return view


def _add_clouds(noise: NoiseSource, view: Array, snow: float) -> tuple[Array, Array]:
    """Draw clouds and their shadows over a view.

    Returns:
        The view under clouds, and the cloud probability, (H, W), 0-100.
    """
    size = view.shape[-1]
    # Bright ground, and some days any ground, passes for a thin cloud.
    base = noise.uniform(0, 5) + 20 * max(noise.uniform(-2, 1), 0) + 6 * snow
    probability = base + np.maximum(6 * noise.smooth(size, 6.0)[0], -0.5 * base)
    if noise.uniform(0, 1) < _CLOUDY_CHANCE:
        thickness = _draw_clouds(noise, size + _MAX_SHADOW_PX)
        opacity = 1 - decay(thickness * (0.4 + thickness))
        shift = int(noise.uniform(6, _MAX_SHADOW_PX))
        shadow = opacity[shift : shift + size, shift : shift + size]
        opacity, thickness = opacity[:size, :size], thickness[:size, :size]
        white = noise.uniform(4500, 8500) * (0.8 + 0.3 * np.minimum(thickness, 2))
        view = view * (1 - 0.6 * shadow * (1 - opacity))
        view += opacity * (white * _CLOUD[:, None, None] - view)
        probability = probability + opacity * (105 - probability)
    return view, np.clip(probability, 0, 100)


def _draw_clouds(noise: NoiseSource, size: int) -> Array:
    """Draw the thickness of the clouds, from few to overcast, (size, size), 0 where none."""
    return np.maximum(noise.rough(size, 55.0, 4) - noise.uniform(-1.8, 2.0), 0)


def _swath(noise: NoiseSource, size: int) -> npt.NDArray[np.bool_]:
    """Draw where the image has data: now and then the edge of a swath crosses the chip."""
    at_edge = noise.uniform(0, 1) < 0.015
    lean, position = noise.uniform(-0.5, 0.5), noise.uniform(0.1, 0.9) * size
    axis = np.arange(size)
    return np.asarray((axis + lean * axis[:, None] < position) | (not at_edge))
