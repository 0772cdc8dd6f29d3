"""Models whose predictions can be told by hand."""

import torch
from torch import Tensor, nn


class Pixelwise(nn.Module):
    """Predicts `scale` times a pixel's mean backscatter, dB: the same in every view."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

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
