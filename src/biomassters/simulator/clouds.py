"""Clouds over the land, their shadows, and the cloud probability, which also errs."""

from typing import Final

import numpy as np

from biomassters.simulator.forest import Land
from biomassters.simulator.noise import Array, NoiseSource, Shape, decay, gamma_factor

#                           Sep   Oct   Nov   Dec   Jan   Feb   Mar   Apr   May   Jun   Jul   Aug
_BROKEN_CHANCE: Final = (0.30, 0.15, 0.10, 0.08, 0.08, 0.10, 0.12, 0.10, 0.16, 0.16, 0.16, 0.20)
_OVERCAST_CHANCE: Final = (0.03, 0.06, 0.28, 0.50, 0.45, 0.05, 0.04, 0.03, 0.03, 0.01, 0.01, 0.03)
"""How often the month's clearest image is cloudy all the same.

Source: the Nordic sky is overcast by low stratus for most of November to January, and few orbits
see the ground then.
"""
_WATER_CLOUD: Final = np.array([1.0, 0.96, 0.97, 0.99, 1.01, 1.0, 1.02, 0.98, 0.60, 0.50])
_ICE_CLOUD: Final = np.array([1.0, 0.93, 0.93, 0.95, 0.96, 0.95, 0.97, 0.93, 0.24, 0.22])
"""Spectra of thick clouds against their B2: ice absorbs shortwave infrared more than droplets."""
_MAX_SHADOW_PX: Final = 24


def mistake_for_clouds(noise: NoiseSource, view: Array, dusk: float, land: Land) -> Array:
    """Compute the cloud probability of a cloudless view, (H, W), 0-100.

    The competition's cloud probability is a classifier's, pixel by pixel, from the spectrum. Open
    snow (bright and black in shortwave infrared) and water (dark in all) it knows for sure; canopy
    under a low sun, veiled by scattered light, looks to it like a thin cloud, and so do bright
    grey grounds.

    Args:
        noise: The month's.
        view: Reflectance, (10, H, W), DN.
        dusk: How low the noon's sun stands, 0 (summer)...1.
        land: What was viewed: each stand, and each clump of trees in it, has its own look.

    Source: the snow index (B3 - B11) / (B3 + B11) is near 1 for snow, below 0 for plants.
    """
    blue, green, near_infrared, shortwave = view[0], view[1], view[6], view[8]
    snow_index = (green - shortwave) / (green + shortwave + 1)
    # Snow under a low sun is as dim and as blue as a veil of cloud: some days it is mistaken too.
    doubt = np.clip(1.3 + dusk * noise.uniform(0, 2.2) - 2 * snow_index, 0, 1)
    # Snow seen between crowns is the worst: some days it alone is doubted, some days all plants.
    doubt = np.minimum(doubt, noise.uniform(0.15, 1) + np.clip(2 * snow_index, 0, 1))
    doubt *= np.clip(near_infrared / 600, 0, 1)
    level = noise.uniform(1, 3.5) + dusk * noise.uniform(15, 85)
    speckled = gamma_factor(0.6 * noise.grain(1, land.ground.shape)[0] + 0.6 * land.clumps[1], 6.0)
    speckled *= (0.8 + 0.2 * land.cover) * (0.5 + land.parcel)
    grey = np.clip(0.02 * (blue - 500), 0, 20)
    probability: Array = np.minimum(doubt * (level * speckled + grey), 80)
    return probability


def add_clouds(
    noise: NoiseSource, view: Array, probability: Array, month: int, light: Array
) -> tuple[Array, Array]:
    """Draw clouds and their shadows over a view, if the month has any.

    Args:
        noise: The month's.
        view: Reflectance, (10, H, W), DN.
        probability: Cloud probability of the cloudless view, (H, W), 0-100.
        month: 0 = September.
        light: Colour of the sunlight against midsummer's, (10,).

    Returns:
        The view under clouds, and the cloud probability, (H, W), 0-100.
    """
    _, height, width = view.shape
    chance = noise.uniform(0, 1)
    overcast = chance < _OVERCAST_CHANCE[month]
    if chance >= _OVERCAST_CHANCE[month] + _BROKEN_CHANCE[month]:
        return view, probability
    thickness = _draw_clouds(
        noise, (height + _MAX_SHADOW_PX, width + _MAX_SHADOW_PX), overcast=overcast
    )
    opacity = 1 - decay(thickness * (0.4 + thickness))
    shift = int(noise.uniform(6, _MAX_SHADOW_PX))
    shadow = opacity[shift : shift + height, shift : shift + width]
    opacity, thickness = opacity[:height, :width], thickness[:height, :width]
    white = noise.uniform(4500, 8500) * (0.8 + 0.3 * np.minimum(thickness, 2))
    ice = noise.uniform(0, 1)
    spectrum = light * (_WATER_CLOUD + ice * (_ICE_CLOUD - _WATER_CLOUD))
    view = view * (1 - 0.6 * shadow * (1 - opacity))
    view += opacity * (white * spectrum[:, None, None] - view)
    return view, np.minimum(probability + opacity * (110 - probability), 100)


def _draw_clouds(noise: NoiseSource, shape: Shape, *, overcast: bool) -> Array:
    """Draw the thickness of the clouds, (H, W), 0 where none.

    Stratus is one wide sheet, thin enough here and there to see the ground through; broken clouds
    are lumps, some days few, some days many.
    """
    if overcast:
        return np.maximum(noise.uniform(0.35, 1.5) + 0.25 * noise.rough(shape, 150.0, 4), 0.1)
    return 1.5 * np.maximum(noise.rough(shape, 40.0, 4) - noise.uniform(-0.6, 2.0), 0)
