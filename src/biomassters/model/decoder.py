"""The U-Net decoder: five blocks that double the resolution, with scSE attention.

Source: the winner's decoder, which is that of segmentation-models-pytorch without a centre block;
the names of its parameters are kept. scSE: Roy et al. 2018, arXiv:1808.08127.
"""

from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CSE_REDUCTION: Final = 16
"""Channels per channel of the bottleneck of the channel attention."""


class ScseGates(nn.Module):
    """Gate by channel (cSE) and by pixel (sSE), and add both."""

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        bottleneck = max(1, channels // CSE_REDUCTION)
        self.cSE = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, bottleneck, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(bottleneck, channels, 1),
            nn.Sigmoid(),
        )
        self.sSE = nn.Sequential(nn.Conv2d(channels, 1, 1), nn.Sigmoid())

    def forward(self, features: Tensor) -> Tensor:
        """Return gated features of the same shape, (B, C, H, W)."""
        gates: Tensor = self.cSE(features) + self.sSE(features)
        return features * gates


class ScseAttention(nn.Module):
    """The scSE gates under the name that they have in the winner's weights."""

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.attention = ScseGates(channels=channels)

    def forward(self, features: Tensor) -> Tensor:
        """Return gated features of the same shape, (B, C, H, W)."""
        gated: Tensor = self.attention(features)
        return gated


class DecoderBlock(nn.Module):
    """Double the resolution, join the encoder's level of that resolution, and convolve twice.

    The first attention belongs to the join. The winner's last block, which joins nothing, has one
    among its weights all the same and never calls it; ours is frozen, since it gets no gradient.
    """

    def __init__(self, *, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        joined = in_channels + skip_channels
        self.conv1 = _conv_norm_relu(joined, out_channels)
        self.attention1 = ScseAttention(channels=joined).requires_grad_(skip_channels > 0)
        self.conv2 = _conv_norm_relu(out_channels, out_channels)
        self.attention2 = ScseAttention(channels=out_channels)

    def forward(self, features: Tensor, skip: Tensor | None) -> Tensor:
        """Return features of twice the resolution.

        Args:
            features: The level below, (B, in_channels, H, W).
            skip: The encoder's level, (B, skip_channels, 2H, 2W); None: there is none.
        """
        features = F.interpolate(features, scale_factor=2, mode="nearest")
        if skip is not None:
            features = self.attention1(torch.cat([features, skip], dim=1))
        attended: Tensor = self.attention2(self.conv2(self.conv1(features)))
        return attended


class Decoder(nn.Module):
    """Five blocks from the coarsest feature level to the image's resolution."""

    def __init__(self, *, encoder_channels: Sequence[int], decoder_channels: Sequence[int]) -> None:
        """Create the blocks.

        Args:
            encoder_channels: Channels of the five feature levels, the finest first.
            decoder_channels: Channels of the five blocks, the coarsest first.
        """
        super().__init__()
        coarsest, *skips = reversed(encoder_channels)
        self.blocks = nn.ModuleList(
            DecoderBlock(in_channels=below, skip_channels=skip, out_channels=out)
            for below, skip, out in zip(
                [coarsest, *decoder_channels[:-1]], [*skips, 0], decoder_channels, strict=True
            )
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                _initialise(module)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return features at the image's resolution, (B, decoder_channels[-1], H, W).

        Args:
            features: The five feature levels, the finest first.
        """
        decoded, *skips = reversed(features)
        for block, skip in zip(self.blocks, [*skips, None], strict=True):
            decoded = block(decoded, skip)
        return decoded


def _initialise(convolution: nn.Conv2d) -> None:
    # Source: the winner's code (He et al. 2015, arXiv:1502.01852).
    nn.init.kaiming_uniform_(convolution.weight, nonlinearity="relu")
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)


def _conv_norm_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
