"""Simulated scenes: the simulator's landscapes, of any size, to try everything with."""

from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from biomassters.fingerprint.digest import digest_facts
from biomassters.packing.decoding import mark_missing_clouds, store_backscatter
from biomassters.scenes.description import SyntheticDescription
from biomassters.scenes.grid import Box, Grid
from biomassters.scenes.scene import Pixels, make_nodata
from biomassters.simulator.chip import SimulatedChip
from biomassters.simulator.landscape import (
    LANDSCAPE_VERSION,
    simulate_landscape,
    simulate_landscape_agbm,
)
from biomassters.store.bands import BANDS

_PART_PX: Final = 256
"""Largest side that is simulated at once: its images are small enough for the processor's cache."""


@dataclass(frozen=True)
class SyntheticScene:
    """A simulated landscape, as a scene; it goes on beyond the grid's extent.

    Attributes:
        name: Of its file, without `.yaml`.
        grid: Its pixels.
        identity: 16 hex digits over all that decides its pixels' values.
        period: Its first and its last day, ISO 8601.
        bands: The names of the bands that it has in any month.
        landscape: Its name in the simulator.
    """

    name: str
    grid: Grid
    identity: str
    period: tuple[str, str]
    bands: tuple[str, ...]
    landscape: str

    @property
    def kept_bytes(self) -> int:
        """Memory that it keeps between reads: none."""
        return 0

    def read(self, box: Box) -> Pixels:
        """Simulate a box.

        Law: a pixel has the same values in whatever box it is read.
        """
        pixels = make_nodata(box)
        for part in _cut(box):
            chip = simulate_landscape(self.landscape, (part.row, part.column), part.shape)
            store_simulated(chip, pixels.cut(*part.within(box)))
        return pixels

    def read_target(self, box: Box) -> NDArray[np.float32]:
        """Return the AGBM of a box, (H, W), t/ha: what a map of it should say."""
        agbm = np.empty(box.shape, np.float32)
        for part in _cut(box):
            values = simulate_landscape_agbm(self.landscape, (part.row, part.column), part.shape)
            agbm[part.within(box)] = values
        return agbm


def open_synthetic_scene(description: SyntheticDescription, path: Path) -> SyntheticScene:
    """Open a simulated scene.

    Args:
        description: What its YAML says.
        path: The YAML.

    Raises:
        SceneError: There is no such CRS, or nothing within the bounds.
    """
    grid = description.lay_grid(str(path))
    decides = [LANDSCAPE_VERSION, description.landscape, *astuple(grid)]
    return SyntheticScene(
        name=path.stem,
        grid=grid,
        identity=digest_facts(decides),
        period=(f"{description.year}-09-01", f"{description.year + 1}-08-31"),
        bands=BANDS,
        landscape=description.landscape,
    )


def store_simulated(chip: SimulatedChip, out: Pixels) -> None:
    """Store simulated images as packing stores those of a chip's files.

    Args:
        chip: In the files' units.
        out: Gets the same in the store's units; absent months are nodata.
    """
    store_backscatter(chip.s1, out.s1)
    out.s2[:] = chip.s2
    for month in out.s2:
        mark_missing_clouds(month)


def _cut(box: Box) -> Iterator[Box]:
    """Yield the parts of a box, none larger than `_PART_PX`, all about as large as the others."""
    for row, height in _cut_side(box.row, box.height):
        for column, width in _cut_side(box.column, box.width):
            yield Box(row, column, height, width)


def _cut_side(first: int, n: int) -> Iterator[tuple[int, int]]:
    """Yield the beginnings and the lengths of the parts of a side."""
    n_parts = -(-n // _PART_PX)
    for part in range(n_parts):
        start, end = n * part // n_parts, n * (part + 1) // n_parts
        yield first + start, end - start
