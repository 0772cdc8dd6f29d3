"""What a map is made of, whatever it lies in: twelve months of both sensors, box by box."""

from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from biomassters.scenes.grid import Box, Grid
from biomassters.store.bands import (
    CLP,
    N_MONTHS,
    N_S1,
    N_S2,
    S1_STORED_NODATA,
    S2_STORED_NODATA,
)

BYTES_PER_PIXEL: Final = N_MONTHS * 2 * (N_S1 + N_S2)
"""Of `Pixels`."""


class Pixels(NamedTuple):
    """The inputs of a box, as a chip store has them.

    Attributes:
        s1: Backscatter, (12, 4, H, W), int16, 0.01 dB; `bands.S1_STORED_NODATA` = nodata.
        s2: Reflectance and cloud probability, (12, 11, H, W), uint16; `bands.S2_STORED_NODATA` =
            nodata, in absent months and bands too.
    """

    s1: NDArray[np.int16]
    s2: NDArray[np.uint16]

    def cut(self, rows: slice, columns: slice) -> "Pixels":
        """Return a part, as views."""
        return Pixels(self.s1[..., rows, columns], self.s2[..., rows, columns])

    def find_valid(self) -> NDArray[np.bool_]:
        """Return the pixels of which any month has any measurement, (H, W).

        A cloud probability alone is none.
        """
        of_s1 = (self.s1 != S1_STORED_NODATA).any(axis=(0, 1))
        return np.asarray(of_s1 | (self.s2[:, :CLP] != S2_STORED_NODATA).any(axis=(0, 1)))

    def find_present_months(self) -> NDArray[np.bool_]:
        """Return the months in which any pixel has any measurement of Sentinel-2, (12,)."""
        return np.asarray((self.s2[:, :CLP] != S2_STORED_NODATA).any(axis=(1, 2, 3)))


class Scene(Protocol):
    """A scene that is open; `read` may be called by several threads at once."""

    @property
    def name(self) -> str:
        """Of its file, without `.yaml`."""
        ...

    @property
    def grid(self) -> Grid:
        """Its pixels."""
        ...

    @property
    def identity(self) -> str:
        """16 hex digits over all that decides its pixels' values."""
        ...

    @property
    def period(self) -> tuple[str, str]:
        """Its first and its last day, ISO 8601."""
        ...

    @property
    def bands(self) -> tuple[str, ...]:
        """The names of the bands that it has in any month, as `store.bands` has them."""
        ...

    @property
    def kept_bytes(self) -> int:
        """Memory that it keeps between reads, at most."""
        ...

    def read(self, box: Box) -> Pixels:
        """Read a box, also beyond the map's bounds; pixels beyond the scene's data are nodata.

        Law: a pixel has the same values in whatever box it is read.

        Raises:
            UnreadableRasterError: A raster cannot be read, for now or for good.
        """
        ...


def make_nodata(box: Box) -> Pixels:
    """Return a box without any measurement, to be filled."""
    return Pixels(
        np.full((N_MONTHS, N_S1, *box.shape), S1_STORED_NODATA, np.int16),
        np.full((N_MONTHS, N_S2, *box.shape), S2_STORED_NODATA, np.uint16),
    )
