"""How far to trust the mean of a zone of any size: the errors of its pixels go together.

A calibration knows the correlation of errors by distance; the error of a mean needs it between all
pairs of pixels. Of a large zone, pixels are first joined to blocks, so that memory is bounded.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from biomassters.calibration.areas import AreaInterval
from biomassters.calibration.calibration import Calibration
from biomassters.calibration.correlation import Correlation, autocorrelate, measure_lags
from biomassters.calibration.quantiles import Floats
from biomassters.scenes.grid import Box
from biomassters.store.bands import PIXEL_SIZE_M

MOST_BLOCKS: Final = 250_000
"""Of a zone's box; at 10 m, boxes of up to 25 km² are summed pixel by pixel."""

NEAR: Final = 2
"""Blocks, between which the correlation is the mean over pairs of pixels; beyond, that at the
distance of their middles."""


@dataclass
class ErrorBlocks:
    """Sums of the errors of a zone's pixels, block by block.

    Attributes:
        box: The blocks, on a lattice of theirs.
        side: Of a block, pixels.
        deviations: Sum of area times standard deviation over the pixels of each, m² t/ha.
        variance: Sum of the squares of these products over all pixels.
        area: Sum of the pixels' areas, m².
        squares: Sum of their squares.
    """

    box: Box
    side: int
    deviations: NDArray[np.float64]
    variance: float = 0.0
    area: float = 0.0
    squares: float = 0.0

    @classmethod
    def lay(cls, box: Box, most: int = MOST_BLOCKS) -> "ErrorBlocks":
        """Return blocks over a box of pixels, without errors yet: the smallest that are no more.

        Args:
            box: Of the zone.
            most: Blocks.
        """
        side = 1
        while (blocks := _join(box, side)).height * blocks.width > most:
            side *= 2
        return cls(blocks, side, np.zeros(blocks.shape))

    def add(self, box: Box, area: Floats, deviation: Floats) -> None:
        """Add pixels.

        Args:
            box: Where they lie.
            area: Of each within the zone, (H, W), m²; 0 outside.
            deviation: Standard deviation of each, (H, W), t/ha.
        """
        products = area * deviation
        blocks = _join(box, self.side)
        top, left = box.row - blocks.row * self.side, box.column - blocks.column * self.side
        height, width = (length * self.side for length in blocks.shape)
        padded = np.zeros((height, width))
        padded[top : top + box.height, left : left + box.width] = products
        parts = padded.reshape(blocks.height, self.side, blocks.width, self.side)
        self.deviations[blocks.within(self.box)] += parts.sum((1, 3))
        self.variance += float((products**2).sum())
        self.area += float(area.sum())
        self.squares += float((area**2).sum())

    def surround(
        self, mean: float, calibration: Calibration, sides_m: tuple[float, float]
    ) -> AreaInterval:
        """Return the mean with its interval.

        Law: of pixels of 10 m, one a block, it is that of `Calibration.area_interval`.

        Args:
            mean: Of the pixels by area, t/ha.
            calibration: Its correlation is by distance in pixels of 10 m.
            sides_m: Height and width of this map's pixels.
        """
        height, width = (side / PIXEL_SIZE_M for side in sides_m)
        return calibration.area.surround(
            mean,
            error=self._sum_errors(calibration.correlation, (height, width)) / self.area,
            naive=float(np.sqrt(self.variance)) / self.area,
            pixels=self.area**2 / self.squares * height * width,
        )

    def _sum_errors(self, correlation: Correlation, sides: tuple[float, float]) -> float:
        """Return the standard deviation of the sum of all errors.

        Its variance is the sum over lags of the blocks' autocorrelation times the correlation;
        what no two pixels have in common is summed pixel by pixel.

        Args:
            correlation: By distance in pixels of 10 m.
            sides: Height and width of a pixel, in those.
        """
        common = correlation.model_copy(update={"nugget": 0.0})
        kernel = common.at(
            measure_lags(*self.box.shape, (self.side * sides[0], self.side * sides[1]))
        )
        if self.side > 1:
            self._average_near(kernel, common, sides)
        common_variance = float((autocorrelate(self.deviations) * kernel).sum())
        variance = common_variance + correlation.nugget * self.variance
        return float(np.sqrt(max(0.0, variance)))

    def _average_near(
        self, kernel: Floats, correlation: Correlation, sides: tuple[float, float]
    ) -> None:
        """Put the mean over pairs of pixels into a kernel where blocks are near or the same.

        Pairs of two blocks of n pixels a side differ by u pixels, from -n to n, in n - |u| ways.
        """
        steps = np.arange(1 - self.side, self.side)
        share = (self.side - np.abs(steps)) / self.side**2
        near_rows, near_columns = (range(min(NEAR + 1, length)) for length in self.box.shape)
        for row in near_rows:
            for column in near_columns:
                down, right = (
                    (lag * self.side + steps) * side
                    for lag, side in zip((row, column), sides, strict=True)
                )
                pairs = correlation.at(np.hypot(down[:, None], right[None, :]))
                mean = share @ pairs @ share
                for place in ((row, column), (-row, column), (row, -column), (-row, -column)):
                    kernel[place] = mean


def _join(box: Box, side: int) -> Box:
    """Return the blocks that a box touches, on their own lattice."""
    row, column = box.row // side, box.column // side
    return Box(row, column, -(-box.end_row // side) - row, -(-box.end_column // side) - column)
