"""The network: encoder, month aggregation, decoder and head, composed as the winner composed them.

What the numbers mean that go in and come out is in `biomass_model`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from biomassters.model import activation_checkpointing
from biomassters.model.decoder import Decoder
from biomassters.model.encoder import Encoder
from biomassters.model.execution import Compiled
from biomassters.model.kept_months import KeptMonths, find_kept_months
from biomassters.model.month_aggregation import build_aggregation
from biomassters.params.sections import AggregationName, MonthEncodingName
from biomassters.store.bands import N_BANDS


class Network(nn.Module):
    """The winner's network: its state dict has the keys and shapes of his published weights.

    Other ways to aggregate months than his attention have no weights of their own.
    """

    def __init__(
        self,
        *,
        backbone: str,
        decoder_channels: Sequence[int],
        month_aggregation: AggregationName = "attention",
        month_encoding: MonthEncodingName = "none",
        n_bands: int = N_BANDS,
        n_outputs: int = 1,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(backbone=backbone, pretrained=pretrained, n_bands=n_bands)
        channels = self.encoder.channels
        self.attn = nn.ModuleList(
            build_aggregation(month_aggregation, channels=n, month_encoding=month_encoding)
            for n in channels
        )
        self.decoder = Decoder(encoder_channels=channels, decoder_channels=decoder_channels)
        self.segmentation_head = nn.Conv2d(decoder_channels[-1], n_outputs, 3, padding=1)
        nn.init.xavier_uniform_(self.segmentation_head.weight)  # Source: the winner's code.
        nn.init.zeros_(self.segmentation_head.bias)  # type: ignore[arg-type]  # it has one
        self._compiled: Compiled[[Network, Tensor, KeptMonths], Tensor] | None = None

    def compile_in_place(self) -> None:
        """Let torch compile the forward pass; see `Compiled`."""
        self._compiled = Compiled(Network._predict_kept)

    def checkpoint_activations(self) -> None:
        """Keep few activations for the gradient; see `activation_checkpointing`."""
        blocks = activation_checkpointing.find_blocks(self.encoder)
        activation_checkpointing.checkpoint_activations([*blocks, *self.attn, *self.decoder.blocks])

    def forward(self, images: Tensor, ignored: Tensor | None) -> Tensor:
        """Return the head's output, (B, n_outputs, H, W).

        Args:
            images: Normalised bands, (B, T, n_bands, H, W); H and W multiples of 32.
            ignored: Months that are not looked at, (B, T) bool; see `find_kept_months`.
        """
        kept = find_kept_months(ignored, images.shape, images.device)
        return self.predict_kept(kept.pick(images), kept)

    def predict_kept(self, images: Tensor, kept: KeptMonths) -> Tensor:
        """Return the head's output, (B, 1, H, W), from the images of the kept months alone.

        Args:
            images: Normalised bands, (M, C, H, W), as `kept.pick` returns them.
            kept: Which months they are.
        """
        # Not in what is compiled: how many months are kept is not known before it runs.
        if self._compiled is None:
            return self._predict_kept(images, kept)
        if kept.positions is not None:  # so many now, others next time: one graph for all
            torch._dynamo.maybe_mark_dynamic(images, 0)
            torch._dynamo.maybe_mark_dynamic(kept.positions, 0)
        return self._compiled(self, images, kept)

    def _predict_kept(self, images: Tensor, kept: KeptMonths) -> Tensor:
        # Each of the five levels, (M, C, H, W), becomes (B, C, H, W).
        merged = [
            aggregate(level, kept)
            for aggregate, level in zip(self.attn, self.encoder(images), strict=True)
        ]
        output: Tensor = self.segmentation_head(self.decoder(merged))
        return output
