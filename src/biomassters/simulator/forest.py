"""The land of a synthetic chip: stands, fields, water and roads, and the biomass on them.

Knows forests, not sensors: simulated_s1 and simulated_s2 see this land through the weather.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from biomassters.simulator.noise import Array, NoiseSource, decay, gamma_factor

_STAND_SPACING_PX: Final = 16.0  # stands of 1 to 6 ha
_PARCEL_SPACING_PX: Final = 21.0
_BIOMASS_CEILING: Final = 208.0
"""AGBM that an old stand approaches on an average site of the south, t/ha."""
_HALF_AGE_YEARS: Final = 55.0
"""Age at which a stand has half of its ceiling."""


class Ground(IntEnum):
    """What lies under the crowns, or alone."""

    FOREST_FLOOR = 0
    CLEAR_CUT = 1
    MIRE = 2
    FIELD = 3
    ROAD = 4
    BUILDING = 5
    WATER = 6


@dataclass(frozen=True)
class Land:
    """The land of a chip; every image is (H, W).

    Attributes:
        north: 0 in the south of Finland, 1 in the north.
        ground: The `Ground` of each pixel, uint8.
        agbm: Above-ground biomass, t/ha.
        cover: Fraction of the ground under crowns.
        depth: 0...1, how tall and shaded the canopy is; saturates later than `cover`.
        species: Shares of the crowns, (3, H, W): pine, spruce, birch.
        parcel: A number 0...1 of each field parcel (or stand): its crop and its timing.
        relief: Slope towards the east and towards the south, (2, H, W), unit deviation.
        clumps: Texture of the crowns that biomass does not explain, (4, H, W), unit deviation.
    """

    north: float
    ground: npt.NDArray[np.uint8]
    agbm: Array
    cover: Array
    depth: Array
    species: Array
    parcel: Array
    relief: Array
    clumps: Array


def grow_land(chip_id: str, size: int) -> Land:
    """Grow the land of a chip of size x size pixels of 10 m."""
    noise = NoiseSource("land", chip_id, str(size))
    north = noise.uniform(0, 1)
    stand, n_stands = _draw_cells(noise, size, _STAND_SPACING_PX, warp_px=5.0)
    parcel, n_parcels = _draw_cells(noise, size, _PARCEL_SPACING_PX, warp_px=1.2)
    ground = _draw_ground(noise, size, north, parcel, n_parcels)
    fertility, age = _draw_stands(noise, n_stands, north)
    forest = ground == Ground.FOREST_FLOOR
    ground[forest & (age[stand] < 6)] = Ground.CLEAR_CUT
    seen, agbm = _grow_biomass(noise, ground, fertility[stand], age[stand])
    # Stands of one biomass differ in stem number and height, which is what sensors respond to.
    cover_scale = 20 * noise.uniforms(n_stands)[stand] + 40
    depth_scale = 70 * noise.uniforms(n_stands)[stand] + 225
    crop = noise.uniforms(n_parcels)[parcel]
    stand_number = noise.uniforms(n_stands)[stand]
    return Land(
        north=north,
        ground=ground,
        agbm=agbm,
        cover=1 - decay(seen / cover_scale),
        depth=seen / (seen + depth_scale),
        species=_mix_species(noise, fertility[stand], stand, n_stands),
        parcel=np.where(ground == Ground.FIELD, crop, stand_number),
        relief=noise.smooth(size, 24.0, 2) * 0.8 + noise.smooth(size, 9.0, 2) * 0.6,
        clumps=noise.smooth(size, 2.2, 4) * 0.8 + noise.smooth(size, 7.0, 4) * 0.6,
    )


def _draw_cells(
    noise: NoiseSource, size: int, spacing_px: float, warp_px: float
) -> tuple[npt.NDArray[np.intp], int]:
    """Divide the chip into warped Voronoi cells of uneven size.

    Returns:
        The number of the cell of each pixel, and how many numbers there are.
    """
    n = int(size / spacing_px) + 6
    warp = noise.smooth(size, spacing_px, 2) * warp_px
    warp += noise.smooth(size, 4.0, 2) * min(warp_px, 2.0) * 0.4
    axis = np.arange(size) / spacing_px + 2.5
    y = axis[:, None] + warp[0] / spacing_px
    x = axis + warp[1] / spacing_px
    site_y = np.arange(n)[:, None] + noise.uniforms(n, n)
    site_x = np.arange(n) + noise.uniforms(n, n)
    handicap = 0.6 * noise.uniforms(n, n)
    row = np.clip(np.floor(y).astype(np.intp), 2, n - 3)
    column = np.clip(np.floor(x).astype(np.intp), 2, n - 3)
    nearest = np.full((size, size), np.inf)
    cell = np.zeros((size, size), np.intp)
    flat_y, flat_x, flat_handicap = site_y.ravel(), site_x.ravel(), handicap.ravel()
    for shift in [(i, j) for i in range(-2, 3) for j in range(-2, 3) if abs(i) + abs(j) < 4]:
        candidate = (row + shift[0]) * n + column + shift[1]
        dy, dx = y - flat_y[candidate], x - flat_x[candidate]
        distance = dy * dy + dx * dx + flat_handicap[candidate]
        closer = distance < nearest
        nearest = np.where(closer, distance, nearest)
        cell = np.where(closer, candidate, cell)
    return cell, n * n


def _draw_ground(
    noise: NoiseSource,
    size: int,
    north: float,
    parcel: npt.NDArray[np.intp],
    n_parcels: int,
) -> npt.NDArray[np.uint8]:
    """Lay out fields, mires, water, buildings and roads on forest floor."""
    ground = np.full((size, size), Ground.FOREST_FLOOR, np.uint8)
    wetness = noise.rough(size, 70.0, 4)
    ground[wetness > noise.uniform(0.7, 2.2) + 0.6 * (1 - north)] = Ground.MIRE
    farmland = noise.smooth(size, 80.0)[0] + 0.7 * noise.normals(n_parcels)[parcel]
    fields = farmland > noise.uniform(0.2, 2.2) + 0.8 * north
    ground[fields] = Ground.FIELD
    village = noise.smooth(size, 30.0)[0] + 1.2 * noise.smooth(size, 2.0)[0]
    ground[(village > 3.3) & (farmland > 0.3)] = Ground.BUILDING
    ground[_draw_roads(noise, size)] = Ground.ROAD
    if noise.uniform(0, 1) < 0.48:
        lake = noise.rough(size, 75.0, 4)
        ground[lake > noise.uniform(0.7, 2.2)] = Ground.WATER
    return ground


def _draw_roads(noise: NoiseSource, size: int) -> npt.NDArray[np.bool_]:
    """Draw lines about a pixel wide along level curves of smooth fields."""
    roads = np.zeros((size, size), np.bool_)
    for scale_px in (150.0, 90.0):
        field = noise.smooth(size + 1, scale_px)[0] + 0.012 * noise.smooth(size + 1, 12.0)[0]
        here = field[:-1, :-1]
        slope_y, slope_x = field[1:, :-1] - here, field[:-1, 1:] - here
        steepness = slope_y * slope_y + slope_x * slope_x
        # |f| / |grad f| is the distance to the curve in pixels; where the field is flat, curves
        # close to rings, which roads do not: there they end.
        roads |= (here * here < 0.3 * steepness) & (steepness > 0.36 / (scale_px * scale_px))
    return roads


def _draw_stands(noise: NoiseSource, n_stands: int, north: float) -> tuple[Array, Array]:
    """Draw the fertility (about 1 in the south) and the age (years) of each stand."""
    richness = noise.uniform(0.85, 1.15) * (1.15 - 0.6 * north)
    fertility = richness * (0.7 + 0.6 * noise.uniforms(n_stands))
    oldest = noise.uniform(75, 145)
    age = 6 + oldest * noise.uniforms(n_stands)
    recently_cut = noise.uniforms(n_stands) < noise.uniform(0.02, 0.14)
    return fertility, np.where(recently_cut, 5 * noise.uniforms(n_stands), age)


def _grow_biomass(
    noise: NoiseSource, ground: npt.NDArray[np.uint8], fertility: Array, age: Array
) -> tuple[Array, Array]:
    """Grow the stands.

    Returns:
        The biomass that shows in the canopy, and the AGBM, which differs by what no sensor sees;
        t/ha.
    """
    size = len(ground)
    full = _BIOMASS_CEILING * fertility * age * age / (age * age + _HALF_AGE_YEARS**2)
    share = np.array([1.0, 0.0, 0.12, 0.0, 0.0, 0.0, 0.0])[ground]
    patches = 1 + 0.30 * noise.smooth(size, 13.0)[0] + 0.22 * noise.smooth(size, 4.5)[0]
    trees = gamma_factor(noise.grain(1, size)[0], 24.0)
    seen = full * share * np.maximum(patches, 0.03) * trees
    agbm = seen * gamma_factor(noise.normals(size, size), 40.0)
    return seen, np.where(agbm < 4.0, 0.0, agbm)


def _mix_species(
    noise: NoiseSource, fertility: Array, stand: npt.NDArray[np.intp], n_stands: int
) -> Array:
    """Mix pine (on poor sites), spruce (on rich ones) and birch, (3, H, W), sum 1."""
    size = len(stand)
    liking = noise.uniforms(3, n_stands)[:, stand]
    liking = np.maximum(liking + 0.12 * noise.smooth(size, 5.0, 3), 0)
    liking = liking * liking * liking
    liking[0] *= 1.9 - fertility
    liking[1] *= 0.3 + fertility
    liking[2] *= 0.6
    return np.asarray(liking / (liking[0] + liking[1] + liking[2] + 1e-6))
