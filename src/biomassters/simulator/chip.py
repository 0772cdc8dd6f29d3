"""Synthetic BioMassters chips: twelve months of both sensors over a forest, and its biomass.

With them the whole pipeline runs, and is tested, without the 300 GB of real files. A chip is a pure
function of its id and its size, to the last bit and on every machine.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from biomassters.simulator.area import Area, ChipArea
from biomassters.simulator.forest import grow_land
from biomassters.simulator.noise import Array
from biomassters.simulator.s1 import simulate_s1
from biomassters.simulator.s2 import simulate_s2
from biomassters.simulator.weather import draw_weather


@dataclass(frozen=True)
class SimulatedChip:
    """A synthetic chip, with the types and nodata values of the real ones.

    Attributes:
        s1: Backscatter, (12, 4, H, W), float32, dB; an absent orbit is -9999.
        s2: Reflectance (DN) and cloud probability, (12, 11, H, W), uint16; a nodata pixel, and all
            of an absent month, has reflectance 0 and cloud probability 255.
        s2_present: Which months of S2 there are, (12,), bool.
        agbm: Above-ground biomass, (H, W), float32, t/ha.
    """

    s1: npt.NDArray[np.float32]
    s2: npt.NDArray[np.uint16]
    s2_present: npt.NDArray[np.bool_]
    agbm: npt.NDArray[np.float32]


def simulate_chip(chip_id: str, chip_size: int = 256) -> SimulatedChip:
    """Simulate a chip.

    Args:
        chip_id: Any text; another id is another forest.
        chip_size: Side, pixels of 10 m.
    """
    return simulate_area(ChipArea(chip_id, chip_size))


def simulate_area(area: Area) -> SimulatedChip:
    """Simulate a chip or, without a margin for what happens at its edges, a part of a landscape."""
    land = grow_land(area)
    weather = draw_weather(area.name, land.north)
    return SimulatedChip(
        s1=simulate_s1(area, land, weather),
        s2=simulate_s2(area, land, weather),
        s2_present=weather.s2_present,
        agbm=round_agbm(land.agbm),
    )


def round_agbm(agbm: Array) -> npt.NDArray[np.float32]:
    """Round AGBM to steps of 0.01 t/ha, as in the official files."""
    return (np.rint(agbm * 100) / 100).astype(np.float32)
