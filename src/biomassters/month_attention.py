"""Attention over months: one weight a month and pixel, at one feature level.

Knows features and masks; knows nothing of encoders, levels or images.
"""

import torch
from torch import Tensor, nn


class MonthAttention(nn.Module):
    """Reduce the months of a feature level to their weighted mean, pixel by pixel.

    Source: the winner's model; the names of its parameters (`attn.0`, `attn.1`, `attn.3`) are kept.
    """

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.attn = nn.Sequential(
            nn.Linear(channels, channels), nn.LayerNorm(channels), nn.GELU(), nn.Linear(channels, 1)
        )

    def forward(self, features: Tensor, ignored: Tensor | None) -> Tensor:
        """Return the weighted mean over months, (B, C, H, W).

        Args:
            features: One level's features, (B, T, C, H, W).
            ignored: Months that get no weight, (B, T) bool; None: no month is ignored.
        """
        weights = self.weigh_months(features, ignored).to(features.dtype)
        return (weights.unsqueeze(2) * features).sum(dim=1)

    def weigh_months(self, features: Tensor, ignored: Tensor | None) -> Tensor:
        """Return each month's weight, (B, T, H, W) float32: 0...1, of sum 1 over the months.

        Where all months are ignored, all get the same weight: a prediction, though without meaning,
        in place of NaN, which would spread to the whole batch's gradient.
        """
        # (B, T, C, H, W) -> (B, T, H, W, C): a view, and contiguous where C is the fastest axis.
        scores: Tensor = self.attn(features.permute(0, 1, 3, 4, 2))
        scores = scores.squeeze(-1).float()
        if ignored is not None:
            lowest = torch.finfo(scores.dtype).min
            scores = scores.masked_fill(ignored[:, :, None, None], lowest)
        return scores.softmax(dim=1)
