"""Which of a chip's bands a model sees: all, or some, always in the store's order."""

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeVar

import torch
from torch import Tensor

from biomassters.params.bands import Bands
from biomassters.store.bands import BANDS, N_S1, S1_BANDS, S2_BANDS

T = TypeVar("T")


class InputBands(NamedTuple):
    """The bands of a model's images, those of Sentinel-1 first.

    Attributes:
        s1: Positions among `S1_BANDS`, ascending.
        s2: Positions among `S2_BANDS`, ascending.
    """

    s1: tuple[int, ...]
    s2: tuple[int, ...]

    @property
    def n_bands(self) -> int:
        """How many they are."""
        return len(self.s1) + len(self.s2)

    def pick(self, of_all: Sequence[T]) -> list[T]:
        """Return what belongs to these bands of a value for each of `BANDS`."""
        return [of_all[band] for band in (*self.s1, *(N_S1 + band for band in self.s2))]


def choose_bands(names: Bands) -> InputBands:
    """Return the bands that `model.bands` names."""
    chosen = BANDS if names == "all" else names
    s1, s2 = (
        tuple(band for band, name in enumerate(of_sensor) if name in chosen)
        for of_sensor in (S1_BANDS, S2_BANDS)
    )
    return InputBands(s1, s2)


ALL_BANDS: Final = choose_bands("all")


def pick_channels(images: Tensor, bands: Sequence[int]) -> Tensor:
    """Return some bands of a sensor's images, (B, T, C, H, W) -> (B, T, len(bands), H, W).

    All of them are a view. So are none; of some, no index has to travel to a GPU.
    """
    if len(bands) == images.shape[2]:
        return images
    if not bands:
        return images[:, :, :0]
    return torch.cat([images[:, :, band, None] for band in bands], dim=2)
