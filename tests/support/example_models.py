"""A small model of the winner's kind, with all its parts, and inputs for it."""

import torch
from example_statistics import describe_chips
from golden import DECODER_CHANNELS
from torch import Tensor

from biomassters.model.biomass_model import BiomassModel
from biomassters.params.sections import ModelParams

SETTINGS = ModelParams(
    backbone="mobilenetv3_small_050",
    pretrained=False,
    decoder_channels=DECODER_CHANNELS["mobilenetv3_small_050"],
    normalisation="minmax",
    target_scaling="none",
    month_aggregation="attention",
    month_encoding="none",
    missing_months="zero",
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
