"""Sentinel-2 over the land: crowns over ground or snow, under a high or low sun."""

from typing import Final

import numpy as np
import numpy.typing as npt

from biomassters.simulator.area import Area
from biomassters.simulator.clouds import add_clouds, mistake_for_clouds
from biomassters.simulator.forest import Ground, Land
from biomassters.simulator.noise import Array, NoiseSource, Shape
from biomassters.simulator.weather import Weather
from biomassters.store.bands import CLP, CLP_NODATA, N_MONTHS, N_S2

_MAX_DN: Final = 18000.0
_SUMMER_GROUND: Final = np.array(
    [
        [240, 460, 320, 840, 2350, 2750, 2900, 3000, 1500, 790],  # forest floor
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
        [175, 330, 215, 590, 1800, 2150, 2260, 2340, 1080, 520],  # pine
        [140, 280, 165, 480, 1550, 1900, 1980, 2050, 880, 400],  # spruce
        [175, 390, 195, 700, 2500, 3150, 3250, 3400, 1400, 610],  # birch
    ],
    np.float64,
)
_DORMANT_CROWN: Final = np.array(
    [
        [180, 290, 270, 560, 1250, 1450, 1620, 1600, 720, 410],
        [145, 245, 215, 460, 1150, 1350, 1480, 1460, 570, 310],
        [210, 310, 340, 580, 1150, 1300, 1480, 1500, 1080, 600],
    ],
    np.float64,
)
_FINE_SNOW: Final = np.array(
    [9000, 8750, 8850, 9050, 9150, 8950, 9500, 8900, 1200, 1250], np.float64
)
_COARSE_SNOW: Final = np.array(
    [9000, 9000, 8850, 9200, 8950, 8300, 8250, 7600, 160, 120], np.float64
)
"""Snow of grains of about 0.1 and 1 mm: equal in visible light, darker the longer the wavelength.

Source: ice absorbs weakly at 0.5 um and strongly beyond 1.4 um, and light travels further through
coarse grains (Wiscombe and Warren 1980).
"""
_SKYLIGHT: Final = np.array([1.0, 0.55, 0.38, 0.3, 0.22, 0.18, 0.15, 0.12, 0.03, 0.02])
"""What the air between adds, against B2. Source: Rayleigh scattering, about wavelength ** -4."""
_REDDENING: Final = np.array([-0.1, 0.2, 0.3, 0.3, 0.3, 0.35, 0.3, 0.35, 0.4, 0.4])
"""What each band loses beyond the rest under a low sun: skylight, which is blue, remains."""
_WET: Final = np.array([0.15, 0.18, 0.2, 0.22, 0.25, 0.25, 0.27, 0.27, 0.38, 0.42])
"""What soaked litter and soil lose, most where water absorbs."""
_FINE_BANDS: Final = (0, 1, 2, 6)
"""B2 B3 B4 B8: imaged at 10 m; the others at 20 m."""
_EDGE_CHANCE: Final = 0.015
"""How often the edge of a swath crosses a chip."""
_SWATH_PX: Final = 10_000
"""From the edge of a swath to that of the next, along the rows of a landscape."""


def simulate_s2(area: Area, land: Land, weather: Weather) -> npt.NDArray[np.uint16]:
    """Image the land in visible and infrared light.

    Returns:
        (12, 11, H, W): reflectance, DN, 1 and more; cloud probability 0-100. A nodata pixel, and
        all of an absent month, has reflectance 0 and cloud probability 255.
    """
    images = np.zeros((N_MONTHS, N_S2, *area.shape), np.uint16)
    images[:, CLP] = CLP_NODATA
    for month in np.flatnonzero(weather.s2_present):
        noise = area.open_noise("s2", str(month))
        sun = float(weather.sun[month])
        dusk = max(1 - sun, 0)
        light = sun - dusk * _REDDENING
        clear = _clear_view(noise, land, weather, int(month), dusk, light)
        probability = mistake_for_clouds(noise, clear, dusk, land)
        image, probability = add_clouds(noise, clear, probability, int(month), light / sun)
        seen = _swath(noise, area.shape)
        for band, view in enumerate(image):
            images[month, band] = np.rint(np.clip(view, 1, _MAX_DN)) * seen
        images[month, CLP] = np.where(seen, np.rint(probability), CLP_NODATA)
    return images


def _clear_view(
    noise: NoiseSource, land: Land, weather: Weather, month: int, dusk: float, light: Array
) -> Array:
    """Compute the reflectance of a month without clouds, (10, H, W), DN.

    Args:
        noise: The month's.
        land: What is seen.
        weather: And through what.
        month: 0 = September.
        dusk: How low the noon's sun stands, 0 (summer)...1.
        light: Illumination of each band against midsummer's, (10,).
    """
    snow = _snow(weather, month)
    crowns = _crowns(land, weather, month, snow)
    # A low sun hardly reaches the ground between tall trees.
    lit = 1 - 0.5 * land.depth - 1.4 * dusk * _northward_shadow(land.depth)
    lit = np.maximum(lit, 0.1)
    view = _ground(noise, land, weather, month, snow)
    texture = 1 + 0.08 * land.clumps[0] + 0.035 * noise.grain(1, land.ground.shape)[0]
    shade = np.maximum(_shade(land, dusk) * texture, 0.05)
    air = noise.uniform(0, 1)
    veil = (40 * air + (120 + 1100 * air * air * air) * dusk) * _SKYLIGHT
    shimmer = noise.white(len(view), land.ground.shape)
    # Band by band: an image stays in the processor's cache, all ten do not.
    for band, image in enumerate(view):
        image *= lit
        image += land.cover * (crowns[band] - image)
        image *= shade
        image *= light[band]
        image += veil[band]
        image[:] = _blur(image, fine=band in _FINE_BANDS)
        image *= 1 + 0.008 * shimmer[band]
    return view


def _shade(land: Land, dusk: float) -> Array:
    """Compute how much more light than level ground a slope or a stand's edge gets, (H, W).

    The sun stands in the south. Its light on a slope goes with the cosine of the angle between, so
    that the contrast grows as it sinks; so does that of the tops of stands of unlike height.
    """
    top = np.pad(land.depth, ((1, 1), (0, 0)), mode="edge")
    facing_away = land.relief[1] * (0.02 + 0.45 * dusk) + (top[2:] - top[:-2]) * (1.5 * dusk)
    return np.asarray(1 - facing_away)


def _northward_shadow(depth: Array) -> Array:
    """Give the depth of the canopy that stands between each pixel and the sun, (H, W)."""
    southern = np.pad(depth, ((0, 3), (0, 0)), mode="edge")
    n = len(depth)
    return np.maximum(np.maximum(depth, southern[1 : n + 1]), 0.6 * southern[3 : n + 3])


def _snow(weather: Weather, month: int) -> Array:
    """Compute the reflectance of the month's snow, (10,), DN."""
    grain = float(weather.snow_grain[month])
    return np.asarray(_FINE_SNOW + grain * (_COARSE_SNOW - _FINE_SNOW))


def _crowns(land: Land, weather: Weather, month: int, snow: Array) -> Array:
    """Compute the reflectance of the crowns, (10, H, W), DN: darker the deeper the canopy."""
    vigour = np.array([weather.green[month], weather.green[month], weather.leaves[month]])
    spectra = _DORMANT_CROWN + vigour[:, None] * (_SUMMER_CROWN - _DORMANT_CROWN)
    # Snow on crowns lies between shadows: some 70 % of its brightness on level ground is seen.
    spectra = spectra + float(weather.crown_snow[month]) * (0.7 * snow - spectra)
    pine, spruce, birch = land.species
    tone, look = 1.25 - 0.75 * land.depth, 0.93 + 0.14 * land.parcel
    crowns = np.empty((N_S2 - 1, *land.ground.shape))
    for image, colour in zip(crowns, spectra.T, strict=True):
        image[:] = colour[0] * pine + colour[1] * spruce + colour[2] * birch
        image *= tone
        image *= look
    return crowns


def _ground(noise: NoiseSource, land: Land, weather: Weather, month: int, snow: Array) -> Array:
    """Compute the reflectance of the open ground, (10, H, W), DN, with its snow."""
    green = float(weather.green[month])
    wet = 1 - (1 - green) * float(weather.moisture[month]) * _WET
    dormant = np.ascontiguousarray(_DORMANT_GROUND.T) * wet[:, None]
    growth = np.ascontiguousarray(_SUMMER_GROUND.T) - dormant
    # Each parcel has its own calendar of sowing, ripening and ploughing.
    calendar = noise.uniform(-0.9, 0.9) * (land.parcel - 0.5)
    is_field = land.ground == Ground.FIELD
    vigour = np.clip(green + np.where(is_field, 1.6, 0.25) * calendar, 0, 1.3)
    look = 1 + np.where(is_field, 0.7, 0.12) * (land.parcel - 0.5)
    kind = land.ground.astype(np.intp)
    ground = np.empty((N_S2 - 1, *land.ground.shape))
    for band, image in enumerate(ground):
        image[:] = dormant[band].take(kind) + vigour * growth[band].take(kind)
        image *= look
    amount = float(weather.snow[month])
    if amount > 0:
        patches = 4 * (amount - 0.5) + 0.8 * noise.rough(land.ground.shape, 20.0, 4)
        lying = np.clip(patches, 0, 1) * np.array([0.95, 0.95, 1, 1, 0.7, 0.6, 1])[land.ground]
        brightness = noise.uniform(0.85, 1.05)
        for image, white in zip(ground, brightness * snow, strict=True):
            image += lying * (white - image)
    return ground


def _blur(image: Array, *, fine: bool) -> Array:
    """Smooth a band of 10 m, (H, W), as the optics do, and one of 20 m over 2 x 2 pixels.

    Source: the optics leave a tenth to a third of the contrast of single pixels (ESA's quality
    reports of Sentinel-2 give the modulation transfer at half the sampling rate).
    """
    padded = np.pad(image, 1, mode="edge")
    rows = padded[1:] + padded[:-1]
    quads = rows[:, 1:] + rows[:, :-1]
    if not fine:
        return np.asarray(quads[1:, 1:] / 4)
    corners = quads[1:] + quads[:-1]
    return np.asarray((image + (corners[:, 1:] + corners[:, :-1]) / 16) / 2)


def _swath(noise: NoiseSource, shape: Shape) -> npt.NDArray[np.bool_]:
    """Draw where the image has data.

    Now and then the edge of a swath crosses a chip. A landscape is crossed by swaths, one beside
    the other, with narrow gaps: so that a pixel is as seldom without data as one of a chip.
    """
    at_edge = noise.uniform(0, 1) < _EDGE_CHANCE
    lean, position = noise.uniform(-0.5, 0.5), noise.uniform(0.1, 0.9)
    rows, columns = noise.number_pixels(shape)
    across = columns + lean * rows[:, None]
    if noise.is_endless:
        gap_px = _SWATH_PX * _EDGE_CHANCE / 2
        return np.asarray((across - position * _SWATH_PX) % _SWATH_PX >= gap_px)
    return np.asarray((across < position * shape[1]) | (not at_edge))
