"""Synthetic landscapes: endless, of the same land, weather and sensors as synthetic chips.

A landscape is a function of its name: a pixel has the same values in whatever rectangle it is
simulated. It has one climate and one year of weather, whose months are drawn as a chip's.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from biomassters.simulator.area import LandscapeArea
from biomassters.simulator.chip import SimulatedChip, round_agbm, simulate_area
from biomassters.simulator.forest import grow_land
from biomassters.simulator.noise import Shape

LANDSCAPE_VERSION: Final = 1
"""Another one where the simulation changes a pixel of any landscape."""

_REACH_PX: Final = 4
"""How far a pixel of the land is seen: the shadows of trees are 3 pixels long, optics blur by 1."""


def simulate_landscape(name: str, origin: Shape, shape: Shape) -> SimulatedChip:
    """Simulate a rectangle of a landscape.

    Law: a pixel has the same values in whatever rectangle it is simulated.

    Args:
        name: Any text; another name is another landscape.
        origin: Row and column of the first pixel; rows count to the south.
        shape: Height and width, pixels of 10 m.
    """
    (row, column), (height, width) = origin, shape
    wider = LandscapeArea(
        name,
        (row - _REACH_PX, column - _REACH_PX),
        (height + 2 * _REACH_PX, width + 2 * _REACH_PX),
    )
    around = simulate_area(wider)
    inner = (..., slice(_REACH_PX, -_REACH_PX), slice(_REACH_PX, -_REACH_PX))
    return SimulatedChip(
        s1=around.s1[inner],
        s2=around.s2[inner],
        s2_present=around.s2_present,
        agbm=around.agbm[inner],
    )


def simulate_landscape_agbm(name: str, origin: Shape, shape: Shape) -> npt.NDArray[np.float32]:
    """Simulate only the biomass of a rectangle of a landscape, (H, W), t/ha."""
    return round_agbm(grow_land(LandscapeArea(name, origin, shape)).agbm)
