"""The land that is simulated: stands, fields, water and roads, and the biomass on them.

Knows forests, not sensors: `s1` and `s2` see this land through the weather.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from biomassters.simulator.area import Area
from biomassters.simulator.noise import (
    Array,
    NoiseSource,
    Shape,
    Window,
    decay,
    gamma_factor,
)

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
    """Some land; every image is (H, W).

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


@dataclass(frozen=True)
class Cells:
    """The stands, or the field parcels, of the land.

    Attributes:
        number: Of the cell of each pixel, (H, W): the place of its site among `sites`, row by row.
        sites: Where the cells that may be seen have their sites, on a lattice of one a cell.
    """

    number: npt.NDArray[np.intp]
    sites: Window

    def draw(self, noise: NoiseSource) -> Array:
        """Draw a number 0...1 for each site, row by row."""
        return noise.uniforms_at(self.sites).ravel()


def grow_land(area: Area) -> Land:
    """Grow the land of a chip, or of a part of a landscape."""
    noise = area.open_noise("land")
    north = noise.uniform(0, 1)
    stands = _draw_cells(noise, area.shape, _STAND_SPACING_PX, warp_px=5.0)
    parcels = _draw_cells(noise, area.shape, _PARCEL_SPACING_PX, warp_px=1.2)
    stand = stands.number
    ground = _draw_ground(noise, area.shape, north, parcels)
    fertility, age = _draw_stands(noise, stands, north)
    forest = ground == Ground.FOREST_FLOOR
    ground[forest & (age[stand] < 6)] = Ground.CLEAR_CUT
    seen, agbm = _grow_biomass(noise, ground, fertility[stand], age[stand])
    # Stands of one biomass differ in stem number and height, which is what sensors respond to.
    cover_scale = 20 * stands.draw(noise)[stand] + 40
    depth_scale = 70 * stands.draw(noise)[stand] + 225
    crop = parcels.draw(noise)[parcels.number]
    stand_number = stands.draw(noise)[stand]
    return Land(
        north=north,
        ground=ground,
        agbm=agbm,
        cover=1 - decay(seen / cover_scale),
        depth=seen / (seen + depth_scale),
        species=_mix_species(noise, fertility[stand], stands),
        parcel=np.where(ground == Ground.FIELD, crop, stand_number),
        relief=noise.smooth(area.shape, 24.0, 2) * 0.8 + noise.smooth(area.shape, 9.0, 2) * 0.6,
        clumps=noise.smooth(area.shape, 2.2, 4) * 0.8 + noise.smooth(area.shape, 7.0, 4) * 0.6,
    )


def _draw_cells(noise: NoiseSource, shape: Shape, spacing_px: float, warp_px: float) -> Cells:
    """Divide the land into warped Voronoi cells of uneven size."""
    sites = noise.place_sites(shape, spacing_px)
    warp = noise.smooth(shape, spacing_px, 2) * warp_px
    warp += noise.smooth(shape, 4.0, 2) * min(warp_px, 2.0) * 0.4
    rows, columns = noise.number_pixels(shape)
    y = (rows / spacing_px + 2.5)[:, None] + warp[0] / spacing_px
    x = (columns / spacing_px + 2.5) + warp[1] / spacing_px
    site_y = np.arange(sites.row, sites.row + sites.height)[:, None] + noise.uniforms_at(sites)[0]
    site_x = np.arange(sites.column, sites.column + sites.width) + noise.uniforms_at(sites)[0]
    handicap = 0.6 * noise.uniforms_at(sites)[0]
    row = np.clip(np.floor(y).astype(np.intp) - sites.row, 2, sites.height - 3)
    column = np.clip(np.floor(x).astype(np.intp) - sites.column, 2, sites.width - 3)
    nearest = np.full(shape, np.inf)
    cell = np.zeros(shape, np.intp)
    flat_y, flat_x, flat_handicap = site_y.ravel(), site_x.ravel(), handicap.ravel()
    for shift in [(i, j) for i in range(-2, 3) for j in range(-2, 3) if abs(i) + abs(j) < 4]:
        candidate = (row + shift[0]) * sites.width + column + shift[1]
        dy, dx = y - flat_y[candidate], x - flat_x[candidate]
        distance = dy * dy + dx * dx + flat_handicap[candidate]
        closer = distance < nearest
        nearest = np.where(closer, distance, nearest)
        cell = np.where(closer, candidate, cell)
    return Cells(cell, sites)


def _draw_ground(
    noise: NoiseSource, shape: Shape, north: float, parcels: Cells
) -> npt.NDArray[np.uint8]:
    """Lay out fields, mires, water, buildings and roads on forest floor."""
    ground = np.full(shape, Ground.FOREST_FLOOR, np.uint8)
    wetness = noise.rough(shape, 70.0, 4)
    ground[wetness > noise.uniform(0.7, 2.2) + 0.6 * (1 - north)] = Ground.MIRE
    farmland = (
        noise.smooth(shape, 80.0)[0] + 0.7 * noise.normals_at(parcels.sites).ravel()[parcels.number]
    )
    fields = farmland > noise.uniform(0.2, 2.2) + 0.8 * north
    ground[fields] = Ground.FIELD
    village = noise.smooth(shape, 30.0)[0] + 1.2 * noise.smooth(shape, 2.0)[0]
    ground[(village > 3.3) & (farmland > 0.3)] = Ground.BUILDING
    ground[_draw_roads(noise, shape)] = Ground.ROAD
    if noise.uniform(0, 1) < 0.48:
        lake = noise.rough(shape, 75.0, 4)
        ground[lake > noise.uniform(0.7, 2.2)] = Ground.WATER
    return ground


def _draw_roads(noise: NoiseSource, shape: Shape) -> npt.NDArray[np.bool_]:
    """Draw lines about a pixel wide along level curves of smooth fields."""
    roads = np.zeros(shape, np.bool_)
    wider = (shape[0] + 1, shape[1] + 1)
    for scale_px in (150.0, 90.0):
        field = noise.smooth(wider, scale_px)[0] + 0.012 * noise.smooth(wider, 12.0)[0]
        here = field[:-1, :-1]
        slope_y, slope_x = field[1:, :-1] - here, field[:-1, 1:] - here
        steepness = slope_y * slope_y + slope_x * slope_x
        # |f| / |grad f| is the distance to the curve in pixels; where the field is flat, curves
        # close to rings, which roads do not: there they end.
        roads |= (here * here < 0.3 * steepness) & (steepness > 0.36 / (scale_px * scale_px))
    return roads


def _draw_stands(noise: NoiseSource, stands: Cells, north: float) -> tuple[Array, Array]:
    """Draw the fertility (about 1 in the south) and the age (years) of each stand."""
    richness = noise.uniform(0.85, 1.15) * (1.15 - 0.6 * north)
    fertility = richness * (0.7 + 0.6 * stands.draw(noise))
    oldest = noise.uniform(75, 145)
    age = 6 + oldest * stands.draw(noise)
    recently_cut = stands.draw(noise) < noise.uniform(0.02, 0.14)
    return fertility, np.where(recently_cut, 5 * stands.draw(noise), age)


def _grow_biomass(
    noise: NoiseSource, ground: npt.NDArray[np.uint8], fertility: Array, age: Array
) -> tuple[Array, Array]:
    """Grow the stands.

    Returns:
        The biomass that shows in the canopy, and the AGBM, which differs by what no sensor sees;
        t/ha.
    """
    full = _BIOMASS_CEILING * fertility * age * age / (age * age + _HALF_AGE_YEARS**2)
    share = np.array([1.0, 0.0, 0.12, 0.0, 0.0, 0.0, 0.0])[ground]
    patches = (
        1 + 0.30 * noise.smooth(ground.shape, 13.0)[0] + 0.22 * noise.smooth(ground.shape, 4.5)[0]
    )
    trees = gamma_factor(noise.grain(1, ground.shape)[0], 24.0)
    seen = full * share * np.maximum(patches, 0.03) * trees
    agbm = seen * gamma_factor(noise.white(1, ground.shape)[0], 40.0)
    return seen, np.where(agbm < 4.0, 0.0, agbm)


def _mix_species(noise: NoiseSource, fertility: Array, stands: Cells) -> Array:
    """Mix pine (on poor sites), spruce (on rich ones) and birch, (3, H, W), sum 1."""
    shape = stands.number.shape
    liking = noise.uniforms_at(stands.sites, 3).reshape(3, -1)[:, stands.number]
    liking = np.maximum(liking + 0.12 * noise.smooth(shape, 5.0, 3), 0)
    liking = liking * liking * liking
    liking[0] *= 1.9 - fertility
    liking[1] *= 0.3 + fertility
    liking[2] *= 0.6
    return np.asarray(liking / (liking[0] + liking[1] + liking[2] + 1e-6))
