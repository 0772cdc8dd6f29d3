"""The model: encoder, month attention, decoder and head, with all scaling of inputs and output.

Knows how the parts fit together; knows nothing of files, training or views.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor, nn

from biomassters.bands import N_BANDS
from biomassters.decoder import Decoder
from biomassters.encoder import REDUCTIONS, Encoder
from biomassters.errors import ModelError
from biomassters.month_attention import MonthAttention
from biomassters.normalisation import BandNormalisation, BandStatistics, NormalisationName

TargetScaling = Literal["none", "standard"]


class TargetStatistics(Protocol):
    """Of the AGBM of the train chips, t/ha."""

    mean: float
    standard_deviation: float


class Statistics(Protocol):
    """What a new model takes from the train chips."""

    @property
    def normalisation(self) -> BandStatistics:
        """Statistics by band."""

    @property
    def target(self) -> TargetStatistics:
        """Statistics of the target."""


class ModelSettings(Protocol):
    """Section `model` of params.yaml, whose schema says what each means."""

    backbone: str
    pretrained: bool
    decoder_channels: tuple[int, ...]
    normalisation: NormalisationName
    target_scaling: TargetScaling


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What a weights file says about its model.

    Law: `Architecture.from_json(architecture.to_json()) == architecture`.

    Attributes:
        backbone: A timm encoder with 5 feature levels.
        decoder_channels: Channels of the 5 decoder blocks, the coarsest first.
        normalisation: How bands were scaled; the numbers are among the weights.
        target_scaling: How the head's output is scaled; the numbers are among the weights.
    """

    backbone: str
    decoder_channels: tuple[int, ...]
    normalisation: NormalisationName
    target_scaling: TargetScaling

    def to_json(self) -> str:
        """Return one line of JSON with sorted keys."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Architecture":
        """Read what `to_json` wrote.

        Raises:
            ModelError: It is not such a line.
        """
        try:
            fields = json.loads(text)
            architecture = cls(**fields | {"decoder_channels": tuple(fields["decoder_channels"])})
        except (ValueError, TypeError, KeyError):
            architecture = None
        if architecture is None or not architecture._is_sound():
            raise ModelError(
                f"expected an architecture (backbone, {len(REDUCTIONS)} decoder_channels,"
                f" normalisation, target_scaling), got {text}"
            )
        return architecture

    def _is_sound(self) -> bool:
        return (
            isinstance(self.backbone, str)
            and len(self.decoder_channels) == len(REDUCTIONS)
            and all(type(n) is int and n > 0 for n in self.decoder_channels)
            and self.normalisation in get_args(NormalisationName)
            and self.target_scaling in get_args(TargetScaling)
        )


class Network(nn.Module):
    """The winner's network: its state dict has the keys and shapes of his published weights."""

    def __init__(
        self, *, backbone: str, decoder_channels: Sequence[int], pretrained: bool = False
    ) -> None:
        super().__init__()
        self.encoder = Encoder(backbone=backbone, pretrained=pretrained)
        channels = self.encoder.channels
        self.attn = nn.ModuleList(MonthAttention(channels=n) for n in channels)
        self.decoder = Decoder(encoder_channels=channels, decoder_channels=decoder_channels)
        self.segmentation_head = nn.Conv2d(decoder_channels[-1], 1, 3, padding=1)

    def forward(self, images: Tensor, ignored: Tensor | None) -> Tensor:
        """Return the head's output, (B, 1, H, W).

        Args:
            images: Normalised bands, (B, T, 15, H, W); H and W multiples of 32.
            ignored: Months that get no weight, (B, T) bool; None: no month is ignored.
        """
        batch_and_months = images.shape[:2]
        levels = self.encoder(images.flatten(0, 1))  # (B, T, 15, H, W) -> (B*T, 15, H, W)
        merged = [
            attention(level.unflatten(0, batch_and_months), ignored)
            for attention, level in zip(self.attn, levels, strict=True)
        ]
        output: Tensor = self.segmentation_head(self.decoder(merged))
        return output


class BiomassModel(nn.Module):
    """A network with all the numbers that its inputs and its output are scaled by.

    The winner's weights belong to `network`; the buffers beside it make the model self-contained.

    Attributes:
        architecture: What to build before weights are loaded.
        network: The winner's network.
        normalisation: From stored integers to the network's input.
        target_scale: t/ha per unit of the head's output.
        target_offset: t/ha where the head's output is 0.
    """

    target_scale: Tensor
    target_offset: Tensor

    def __init__(
        self,
        *,
        architecture: Architecture,
        normalisation: BandNormalisation,
        target_scale: float = 1.0,
        target_offset: float = 0.0,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.network = Network(
            backbone=architecture.backbone,
            decoder_channels=architecture.decoder_channels,
            pretrained=pretrained,
        )
        self.normalisation = normalisation
        self.register_buffer("target_scale", torch.tensor(target_scale))
        self.register_buffer("target_offset", torch.tensor(target_offset))

    @classmethod
    def build(cls, settings: ModelSettings, statistics: Statistics) -> "BiomassModel":
        """Build a model to be trained.

        Args:
            settings: Section `model` of params.yaml.
            statistics: Of the train chips.

        Raises:
            ModelError: The backbone cannot be used, or a statistic is missing.
        """
        architecture = Architecture(
            backbone=settings.backbone,
            decoder_channels=settings.decoder_channels,
            normalisation=settings.normalisation,
            target_scaling=settings.target_scaling,
        )
        scale, offset = 1.0, 0.0
        if settings.target_scaling == "standard":
            scale, offset = statistics.target.standard_deviation, statistics.target.mean
        return cls(
            architecture=architecture,
            normalisation=BandNormalisation.from_statistics(
                settings.normalisation, statistics.normalisation
            ),
            target_scale=scale,
            target_offset=offset,
            pretrained=settings.pretrained,
        )

    @classmethod
    def build_blank(cls, architecture: Architecture) -> "BiomassModel":
        """Build a model whose every number is still to be loaded; nothing is downloaded."""
        blank = [0.0] * N_BANDS
        return cls(
            architecture=architecture, normalisation=BandNormalisation(offset=blank, scale=blank)
        )

    def normalise(self, s1: Tensor, s2: Tensor, s2_present: Tensor) -> Tensor:
        """Return the network's input for chips as stored; see `BandNormalisation.forward`."""
        images: Tensor = self.normalisation(s1, s2, s2_present)
        return images

    def forward(self, images: Tensor, ignored: Tensor | None = None) -> Tensor:
        """Return the prediction, (B, H, W) float32, t/ha.

        Args:
            images: Normalised bands, (B, T, 15, H, W); H and W multiples of 32.
            ignored: Months that get no weight, (B, T) bool; None: no month is ignored.
        """
        output: Tensor = self.network(images, ignored)
        return output.squeeze(1).float() * self.target_scale + self.target_offset
