"""The network for one chip: what inference engines are given to convert.

The network itself knows batches whose chips keep different months, and is written for training. For
one chip the kept months are all that there is: how many they are is the only thing that varies.
"""

import torch
from torch import Tensor, nn

from biomassters.model.network import Network


class OneChip(nn.Module):
    """A network, on the kept months of one chip.

    Law: it returns what the network returns, but for rounding.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, months: Tensor) -> Tensor:
        """Return the head's output, (1, n_outputs, H, W).

        Args:
            images: Normalised bands of the kept months, (M, C, H, W).
            months: Which these are, 0...11, (M,) int64.
        """
        network = self.network
        merged = [
            aggregate.merge_months(level, months)  # type: ignore[operator]  # of any aggregation
            for aggregate, level in zip(network.attn, network.encoder(images), strict=True)
        ]
        output: Tensor = network.segmentation_head(network.decoder(merged))
        return output


def draw_example(n_bands: int, chip_size: int) -> tuple[Tensor, Tensor]:
    """Return inputs of `OneChip`: two months of noise."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, n_bands, chip_size, chip_size, generator=generator)
    return images, torch.tensor([3, 9])
