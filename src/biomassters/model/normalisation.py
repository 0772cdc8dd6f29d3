"""From stored integers to the model's inputs: scaled bands, with 0 wherever there is no data.

Source: the winner's normalised tensor of a real chip, from which it follows that backscatter is not
clipped, that the cloud probability is divided by 255 as any band is by its maximum, and that nodata
is 0 after normalisation. That chip has no pixel without a cloud probability: to be 0 there is this
project's choice, in line with all other nodata; `store.cleaning` has the winner's.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from biomassters.errors import ModelError
from biomassters.model.input_bands import ALL_BANDS, InputBands, pick_channels
from biomassters.params.sections import NormalisationName
from biomassters.statistics.figures import Normalisation
from biomassters.store.bands import (
    BANDS,
    N_BANDS,
    S1_STORED_NODATA,
    S1_STORED_SCALE_DB,
    S2_STORED_NODATA,
)

_S1_SCALE: Final = np.float32(S1_STORED_SCALE_DB)


class BandNormalisation(nn.Module):
    """Scale each band as (value - offset) * scale.

    Attributes:
        bands: The bands that the images have, C of them: by default all 15.
        offset: (C,), dB, DN or percent.
        scale: (C,), per dB, DN or percent; 0 where a band has no spread, so that it is 0.
    """

    offset: Tensor
    scale: Tensor

    def __init__(
        self,
        *,
        offset: Sequence[float],
        scale: Sequence[float],
        bands: InputBands = ALL_BANDS,
    ) -> None:
        super().__init__()
        self.bands = bands
        self.register_buffer("offset", torch.tensor(offset, dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))

    @classmethod
    def from_statistics(
        cls,
        name: NormalisationName,
        statistics: Normalisation,
        bands: InputBands = ALL_BANDS,
    ) -> "BandNormalisation":
        """Build a normalisation by name.

        Args:
            name: `minmax` to 0...1, `zscore` to mean 0 and standard deviation 1, `percentile` from
                the 1st...99th percentile to 0...1; nothing is clipped.
            statistics: By band, of all 15; only what the name needs must be known.
            bands: Those that the model sees.

        Raises:
            ModelError: What the name needs is not known, or not of every band.
        """
        if name == "zscore":
            offset = _need(statistics.mean, name, "mean")
            spread = _need(statistics.standard_deviation, name, "standard_deviation")
        elif name == "percentile":
            offset = _need(statistics.p1, name, "p1")
            spread = _subtract(_need(statistics.p99, name, "p99"), offset)
        else:
            offset = _need(statistics.minimum, name, "minimum")
            spread = _subtract(_need(statistics.maximum, name, "maximum"), offset)
        scale = [1 / width if width > 0 else 0.0 for width in spread]
        return cls(offset=bands.pick(offset), scale=bands.pick(scale), bands=bands)

    def forward(self, s1: Tensor, s2: Tensor, s2_present: Tensor) -> Tensor:
        """Return the model's input, (B, T, C, H, W) float32; 0 in nodata and absent months.

        Args:
            s1: Backscatter, (B, T, 4, H, W), int16, 0.01 dB; -32768 = nodata.
            s2: Reflectance and cloud probability, (B, T, 11, H, W), uint16; 65535 = nodata.
            s2_present: (B, T) bool; False = absent month.
        """
        n_chips, n_months, _, height, width = s1.shape
        shape = n_chips, n_months, self.bands.n_bands, height, width
        if s1.device.type == "cpu":
            images = np.empty(shape, np.float32)
            for place in np.ndindex(n_chips, n_months):
                optical = s2[place].numpy() if s2_present[place] else None
                self.normalise_month(s1[place].numpy(), optical, images[place])
            return torch.from_numpy(images)
        return self._normalise_at_once(s1, s2, s2_present)

    def normalise_month(
        self, s1: npt.NDArray[np.int16], s2: npt.NDArray[np.uint16] | None, out: npt.NDArray[Any]
    ) -> None:
        """Normalise a month of a chip, on the CPU; the very numbers of `forward` on any device.

        Band by band, so that all of the arithmetic happens in the core's own cache: a fifth of the
        time that passes over whole chips took, each of which waits for memory.

        Args:
            s1: Backscatter, (4, H, W), 0.01 dB.
            s2: Reflectance and cloud probability, (11, H, W); None = absent month.
            out: Where they go, (C, H, W) float32, of any strides.
        """
        offset, scale = self.offset.numpy(), self.scale.numpy()
        plane = np.empty(s1.shape[1:], np.float32)
        for band, stored in enumerate(s1[channel] for channel in self.bands.s1):
            np.multiply(stored, _S1_SCALE, out=plane, dtype=np.float32, casting="unsafe")
            np.subtract(plane, offset[band], out=plane)
            np.multiply(plane, scale[band], out=plane)
            np.putmask(plane, stored == S1_STORED_NODATA, 0.0)
            out[band] = plane
        n_s1 = len(self.bands.s1)
        if s2 is None:
            out[n_s1:] = 0.0
            return
        for band, stored in enumerate((s2[channel] for channel in self.bands.s2), n_s1):
            np.subtract(stored, offset[band], out=plane, dtype=np.float32, casting="unsafe")
            np.multiply(plane, scale[band], out=plane)
            np.putmask(plane, stored == S2_STORED_NODATA, 0.0)
            out[band] = plane

    def _normalise_at_once(self, s1: Tensor, s2: Tensor, s2_present: Tensor) -> Tensor:
        """Normalise a batch in a few operations, as a GPU likes it."""
        offset, scale = self.offset[:, None, None], self.scale[:, None, None]
        n_s1 = len(self.bands.s1)
        n_chips, n_months, _, height, width = s1.shape
        s1 = pick_channels(s1, self.bands.s1)
        # As int16, where nodata is -1: a GPU can neither join nor compare uint16.
        as_int16 = pick_channels(s2.view(torch.int16), self.bands.s2)
        images = s1.new_empty(
            (n_chips, n_months, self.bands.n_bands, height, width), dtype=torch.float32
        )
        backscatter, optical = images[:, :, :n_s1], images[:, :, n_s1:]
        backscatter.copy_(s1).mul_(S1_STORED_SCALE_DB).sub_(offset[:n_s1]).mul_(scale[:n_s1])
        backscatter.masked_fill_(s1 == S1_STORED_NODATA, 0.0)
        optical.copy_(as_int16.view(torch.uint16))  # a GPU can do little else with uint16
        nodata = as_int16 == S2_STORED_NODATA - 2**16
        nodata |= ~s2_present[:, :, None, None, None]
        optical.sub_(offset[n_s1:]).mul_(scale[n_s1:]).masked_fill_(nodata, 0.0)
        return images


def fill_absent_months(s2: Tensor, s2_present: Tensor) -> tuple[Tensor, Tensor]:
    """Give each absent month the images of the nearest month that has some.

    Months are on the time line of one year: September and August lie eleven months apart, so that
    no image stands in for one of the other end, before or after what may have been felled. Of two
    equally near months the earlier is taken.

    Args:
        s2: Reflectance and cloud probability, (B, T, 11, H, W), uint16; not modified.
        s2_present: (B, T) bool; False = absent month.

    Returns:
        Images as given, and which months have some now: all months of a chip, or none of one that
        has none at all.
    """
    n_chips, n_months = s2_present.shape
    nearest = find_nearest_months(s2_present)
    rows = torch.arange(n_chips, device=s2.device)[:, None] * n_months + nearest
    # As int16: a GPU cannot index uint16.
    images = s2.view(torch.int16).flatten(0, 1)[rows].view(torch.uint16)
    return images, s2_present.any(dim=1, keepdim=True).expand_as(s2_present)


def find_nearest_months(s2_present: Tensor) -> Tensor:
    """Return for each month the one that shows itself or stands in for it, (B, T) int64.

    Args:
        s2_present: (B, T) bool; False = absent month. Of a chip without any month, all are 0.
    """
    n_months = s2_present.shape[1]
    months = torch.arange(n_months, device=s2_present.device)
    later = months - months[:, None]  # of a month (row), how much later is another (column)
    distance = 2 * later.abs() + (later > 0)
    far = 2 * n_months + 1
    return torch.where(s2_present[:, None, :], distance, far).argmin(dim=2)


def _need(values: Sequence[float] | None, name: str, statistic: str) -> list[float]:
    n_values = 0 if values is None else len(values)
    if values is None or n_values != N_BANDS:
        raise ModelError(
            f"expected the {statistic} of {N_BANDS} bands ({BANDS[0]} ... {BANDS[-1]}) for the"
            f" normalisation {name}, got {n_values}, at model.normalisation; choose minmax or"
            " set statistics.source to computed"
        )
    return list(values)


def _subtract(upper: Sequence[float], lower: Sequence[float]) -> list[float]:
    return [high - low for high, low in zip(upper, lower, strict=True)]
