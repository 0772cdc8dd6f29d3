"""From the months of a feature level to one image: their attention, mean or maximum."""

from typing import Any

import torch
from torch import Tensor, nn

from biomassters.model.kept_months import KeptMonths
from biomassters.params.sections import AggregationName, MonthEncodingName
from biomassters.store.bands import N_MONTHS


def build_aggregation(
    name: AggregationName, *, channels: int, month_encoding: MonthEncodingName
) -> nn.Module:
    """Build what reduces the months of a level with so many channels."""
    match name:
        case "attention":
            return MonthAttention(channels=channels, month_encoding=month_encoding)
        case "mean":
            return MonthMean()
        case "max":
            return MonthMaximum()


class MonthAttention(nn.Module):
    """Reduce the months of a feature level to their weighted mean, pixel by pixel.

    Source: the winner's model; the names of its parameters (`attn.0`, `attn.1`, `attn.3`) are kept.

    Attributes:
        attn: Scores a pixel of a month.
        month_encoding: What is added to each month's features before they are scored, (12, C),
            0 at first; None: nothing, so that months are told apart by what they show alone.
    """

    def __init__(self, *, channels: int, month_encoding: MonthEncodingName = "none") -> None:
        super().__init__()
        self.attn = nn.Sequential(
            nn.Linear(channels, channels), nn.LayerNorm(channels), nn.GELU(), nn.Linear(channels, 1)
        )
        self.month_encoding = (
            nn.Parameter(torch.zeros(N_MONTHS, channels)) if month_encoding == "learned" else None
        )

    def forward(self, features: Tensor, kept: KeptMonths) -> Tensor:
        """Return the weighted mean over months, (B, C, H, W).

        Args:
            features: Of the kept months at one level, (M, C, H, W).
            kept: Which these are.
        """
        weights = self.weigh_months(features, kept)
        merged: Tensor = _WeightedSum.apply(weights, _spread_features(features, kept, 0))
        return merged

    def merge_months(self, features: Tensor, months: Tensor) -> Tensor:
        """Return the weighted mean over the kept months of one chip, (1, C, H, W).

        Args:
            features: (M, C, H, W).
            months: Which months these are, (M,) int64.
        """
        pixels = features.permute(0, 2, 3, 1)
        if self.month_encoding is not None:
            pixels = pixels + self.month_encoding[months][:, None, None]
        weights: Tensor = self.attn(pixels).softmax(dim=0).permute(0, 3, 1, 2)  # (M, 1, H, W)
        return (weights * features).sum(dim=0, keepdim=True)

    def weigh_months(self, features: Tensor, kept: KeptMonths) -> Tensor:
        """Return each month's weight, (B, T, H, W) float32: 0...1, of sum 1 over the months."""
        # (M, C, H, W) -> (M, H, W, C): a view, and contiguous where C is the fastest axis.
        pixels = features.permute(0, 2, 3, 1)
        if self.month_encoding is not None:
            encoding = kept.pick(self.month_encoding.expand(kept.n_chips, -1, -1))  # (M, C)
            pixels = pixels + encoding[:, None, None].to(pixels.dtype)
        scores = self.attn(pixels).squeeze(-1).float()  # (M, H, W)
        # The lowest number: as good as minus infinity, of which a softmax may make NaN.
        return kept.spread(scores, torch.finfo(scores.dtype).min).softmax(dim=1)


class MonthMean(nn.Module):
    """Reduce the months of a feature level to their mean."""

    def forward(self, features: Tensor, kept: KeptMonths) -> Tensor:
        """Return the mean over months, (B, C, H, W); see `MonthAttention.forward`."""
        pixels = kept.spread(features.permute(0, 2, 3, 1), 0)  # (B, T, H, W, C)
        n_kept = kept.spread(features.new_ones(len(features)), 0).sum(dim=1)  # (B,)
        # (B, H, W, C) -> (B, C, H, W)
        return (pixels.sum(dim=1) / n_kept[:, None, None, None]).permute(0, 3, 1, 2)

    def merge_months(self, features: Tensor, months: Tensor) -> Tensor:  # noqa: ARG002
        """Return the mean over the kept months of one chip; see `MonthAttention.merge_months`."""
        return features.mean(dim=0, keepdim=True)


class MonthMaximum(nn.Module):
    """Reduce the months of a feature level to their maximum, channel by channel."""

    def forward(self, features: Tensor, kept: KeptMonths) -> Tensor:
        """Return the maximum over months, (B, C, H, W); see `MonthAttention.forward`."""
        lowest = torch.finfo(features.dtype).min
        pixels = kept.spread(features.permute(0, 2, 3, 1), lowest)  # (B, T, H, W, C)
        return pixels.amax(dim=1).permute(0, 3, 1, 2)

    def merge_months(self, features: Tensor, months: Tensor) -> Tensor:  # noqa: ARG002
        """Return the maximum over the kept months; see `MonthAttention.merge_months`."""
        return features.amax(dim=0, keepdim=True)


class _WeightedSum(torch.autograd.Function):
    """Sum over months without the products of all months at once, which would be written and read.

    On a CPU it took a thirtieth of the time of `(weights * features).sum(1)` forward, and an eighth
    with the gradient, for one chip of 256 pixels at the finest level.
    """

    @staticmethod
    def forward(ctx: Any, weights: Tensor, features: Tensor) -> Tensor:
        """Return (B, C, H, W) of weights, (B, T, H, W) float32, and features, (B, T, C, H, W)."""
        ctx.save_for_backward(weights, features)
        # float32, though the features may be half as wide: twelve roundings would show.
        merged = torch.zeros_like(features[:, 0], dtype=torch.float32)
        for month in range(features.shape[1]):
            merged.addcmul_(weights[:, month, None], features[:, month])
        return merged.to(features.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of weights and features."""
        weights, features = ctx.saved_tensors
        of_features = torch.empty_like(features)  # for its layout
        of_weights = torch.empty_like(weights)
        for month in range(features.shape[1]):
            of_features[:, month] = gradient * weights[:, month, None].to(gradient.dtype)
            of_weights[:, month] = (gradient * features[:, month]).sum(dim=1)
        return of_weights, of_features


def _spread_features(features: Tensor, kept: KeptMonths, fill: float) -> Tensor:
    """Return (M, C, H, W) as (B, T, C, H, W), channels last where months have to be filled in."""
    if kept.positions is None:
        return kept.spread(features, fill)  # a view, in whatever layout
    # By way of (B, T, H, W, C): what is filled in is then written in the layout of the features.
    return kept.spread(features.permute(0, 2, 3, 1), fill).permute(0, 1, 4, 2, 3)
