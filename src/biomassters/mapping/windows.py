"""The windows that a model sees of a map: on a lattice that the CRS fixes, overlapping.

Window (i, j) begins at row i · stride and column j · stride of the CRS's pixels, whatever the
scene: so a pixel lies in the same windows in every map of its CRS and resolution. Windows are
computed in *blocks*, which are fixed likewise: what is read, and on a GPU predicted, at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from biomassters.scenes.grid import Box

BLOCK_SIDE: Final = 256
"""Pixels that a block advances by, about: of 64-pixel windows it holds 25, of 256-pixel ones 4."""

LEAST_WINDOWS: Final = 2
"""Along a block's side: else each pixel would be read as often as there are windows over it."""


@dataclass(frozen=True)
class Windows:
    """The lattice of windows.

    Attributes:
        size: Side of a window, pixels.
        overlap: Pixels that neighbours share, at most half of the side.
    """

    size: int
    overlap: int

    @property
    def stride(self) -> int:
        """Pixels from one window to the next."""
        return self.size - self.overlap

    @property
    def per_block(self) -> int:
        """Windows along a block's side."""
        return max(LEAST_WINDOWS, BLOCK_SIDE // self.stride)

    @property
    def block_size(self) -> int:
        """Side of a block, pixels."""
        return (self.per_block - 1) * self.stride + self.size

    def block_box(self, block: tuple[int, int]) -> Box:
        """Return a block's pixels, by its row and column among the blocks."""
        row, column = (index * self.per_block * self.stride for index in block)
        return Box(row, column, self.block_size, self.block_size)

    def list_blocks(self, area: Box) -> Iterator[tuple[int, int]]:
        """Yield the blocks that have a window in an area, row by row."""
        step = self.per_block * self.stride
        reach = self.block_size - 1
        for row in range((area.row - reach + step - 1) // step, (area.end_row - 1) // step + 1):
            for column in range(
                (area.column - reach + step - 1) // step, (area.end_column - 1) // step + 1
            ):
                yield row, column

    def list_windows(self, block: tuple[int, int]) -> list[Box]:
        """Return a block's windows, row by row."""
        corner = self.block_box(block)
        return [
            Box(corner.row + i * self.stride, corner.column + j * self.stride, self.size, self.size)
            for i in range(self.per_block)
            for j in range(self.per_block)
        ]

    @cached_property
    def weights(self) -> NDArray[np.float32]:
        """The weight of each pixel of a window, (size, size), greater than 0.

        Law: over all windows of the lattice a pixel's weights add up to 1. In the part that no
        other window sees it is 1; from there it falls along half a wave of a cosine, whose slope is
        0 at both ends, so that no border shows.
        """
        phase = (np.arange(self.overlap) + 0.5) / max(self.overlap, 1)
        rise = np.sin(np.pi / 2 * phase) ** 2
        profile = np.concatenate([rise, np.ones(self.size - 2 * self.overlap), rise[::-1]])
        return np.outer(profile, profile).astype(np.float32)
