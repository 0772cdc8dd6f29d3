"""A small model of the winner's kind with inputs for it, and models that are told by hand."""

import torch
from example_statistics import describe_chips
from golden import DECODER_CHANNELS
from torch import Tensor, nn

from biomassters.model.biomass_model import BiomassModel
from biomassters.params.sections import ModelParams

SETTINGS = ModelParams(
    bands="all",
    backbone="mobilenetv3_small_050",
    pretrained=False,
    decoder_channels=DECODER_CHANNELS["mobilenetv3_small_050"],
    normalisation="minmax",
    target_scaling="none",
    month_aggregation="attention",
    month_encoding="none",
    missing_months="zero",
    head="mean",
    quantile_level=0.9,
)
STATISTICS = describe_chips(minimum=(-60.0,) * 4 + (0.0,) * 11, maximum=(3e4,) * 15)


def build(seed: int = 0, **changes: object) -> BiomassModel:
    """Build a model, with changes of its params; the same seed gives the same weights."""
    torch.manual_seed(seed)
    return BiomassModel.build(SETTINGS.model_copy(update=changes), STATISTICS)


def make_images(height: int = 64, width: int = 64) -> Tensor:
    """Return normalised bands of two chips, (2, 12, 15, height, width)."""
    return torch.rand(2, 12, 15, height, width, generator=torch.Generator().manual_seed(3))


def ignore(*months: int) -> Tensor:
    """Return a mask that ignores some months of both chips, (2, 12)."""
    ignored = torch.zeros(2, 12, dtype=torch.bool)
    ignored[:, list(months)] = True
    return ignored


class Pixelwise(nn.Module):
    """Predicts `scale` times a pixel's mean backscatter, dB: the same in every view."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    @property
    def device(self) -> torch.device:
        """Where its number lies."""
        return self.scale.device

    def normalise(self, s1: Tensor, s2: Tensor, s2_present: Tensor) -> Tensor:  # noqa: ARG002
        """Return backscatter, (B, T, 4, H, W), dB."""
        return s1.float() * 0.01

    def ignore_months(self, s2_present: Tensor) -> None:
        """Ignore no month."""

    def forward(self, images: Tensor, ignored: Tensor | None) -> Tensor:  # noqa: ARG002
        """Return (B, H, W)."""
        return images.mean((1, 2)) * self.scale


class Ramp(Pixelwise):
    """Predicts `scale` times the column's number, whatever it sees: another in every view."""

    def forward(self, images: Tensor, ignored: Tensor | None) -> Tensor:  # noqa: ARG002
        """Return (B, H, W)."""
        width = images.shape[-1]
        return (torch.arange(width) * self.scale).expand(len(images), images.shape[-2], width)
