"""A head that predicts quantiles of a pixel's AGBM: two bounds beside the median, which is the map.

The bounds are the median less one positive number and plus another, so they cross nowhere. Sorting
three free numbers would do, too, but then a channel is one quantile here and another there, and
gets the gradient of either. Averages over views and models keep the order as well.

Source: Koenker and Bassett 1978, Regression Quantiles, Econometrica 46 (what the loss is).
"""

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

N_QUANTILES: Final = 3
MEDIAN: Final = 1
"""Position of the median among them."""


def list_quantiles(level: float) -> tuple[float, ...]:
    """Return the levels of lower bound, median and upper bound, 0...1.

    Args:
        level: Share of pixels that shall lie between the bounds.
    """
    return (1 - level) / 2, 0.5, (1 + level) / 2


def order_quantiles(output: Tensor) -> Tensor:
    """Return lower bound, median and upper bound, (B, 3, H, W), in no falling order.

    Args:
        output: Of the head, (B, 3, H, W): how far down, the median, how far up.
    """
    down, median, up = output.unbind(1)
    return torch.stack([median - F.softplus(down), median, median + F.softplus(up)], dim=1)
