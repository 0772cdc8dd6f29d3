"""The model: a network, with all the numbers that its inputs and its output are scaled by.

From chips as stored to AGBM in t/ha; how the network itself is composed is in `network`.
"""

import logging

import torch
from torch import Tensor, nn

from biomassters.errors import ModelError
from biomassters.model import activation_checkpointing, target_scaling
from biomassters.model.input_bands import choose_bands
from biomassters.model.kept_months import KeptMonths, ignore_absent_months
from biomassters.model.network import Network
from biomassters.model.normalisation import BandNormalisation, fill_absent_months
from biomassters.model.quantile_head import N_QUANTILES, list_quantiles, order_quantiles
from biomassters.params.sections import Architecture, ModelParams
from biomassters.processes.environment import ACTIVATION_CHECKPOINTING_VARIABLE
from biomassters.statistics.figures import Statistics

log = logging.getLogger(__name__)


class BiomassModel(nn.Module):
    """A network with all the numbers that its inputs and its output are scaled by.

    The winner's weights belong to `network`; the buffers beside it make the model self-contained.

    Attributes:
        architecture: What to build before weights are loaded.
        bands: The bands that it sees, C of them.
        quantiles: The levels of the quantiles that it predicts; None: it predicts one number.
        network: The winner's network.
        normalisation: From stored integers to the network's input.
        target_scale: What the head's output is multiplied by, in the space of the target scaling
            (t/ha for `none` and `standard`).
        target_offset: The value there where the head's output is 0.
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
        self.bands = choose_bands(architecture.bands)
        self.quantiles: tuple[float, ...] | None = None
        if architecture.head == "quantiles":
            self.quantiles = list_quantiles(architecture.quantile_level)
        self.network = Network(
            backbone=architecture.backbone,
            decoder_channels=architecture.decoder_channels,
            month_aggregation=architecture.month_aggregation,
            month_encoding=architecture.month_encoding,
            n_bands=self.bands.n_bands,
            n_outputs=N_QUANTILES if self.quantiles else 1,
            pretrained=pretrained,
        )
        self.normalisation = normalisation
        self.register_buffer("target_scale", torch.tensor(target_scale))
        self.register_buffer("target_offset", torch.tensor(target_offset))

    @classmethod
    def build(cls, settings: ModelParams, statistics: Statistics) -> "BiomassModel":
        """Build a model to be trained.

        Args:
            settings: Section `model` of params.yaml.
            statistics: Of the train chips.

        Raises:
            ModelError: The backbone cannot be used, a statistic is missing, or an encoding of the
                months has no attention to tell.
        """
        if settings.month_encoding != "none" and settings.month_aggregation != "attention":
            raise ModelError(
                "expected no month_encoding without attention, got"
                f" {settings.month_encoding} with month_aggregation {settings.month_aggregation},"
                " at model.month_encoding; set it to none"
            )
        architecture = Architecture(**settings.model_dump(include=set(Architecture.model_fields)))
        scale, offset = target_scaling.fit_output(settings.target_scaling, statistics.target)
        return cls(
            architecture=architecture,
            normalisation=BandNormalisation.from_statistics(
                settings.normalisation, statistics.normalisation, choose_bands(settings.bands)
            ),
            target_scale=scale,
            target_offset=offset,
            pretrained=settings.pretrained,
        )

    @classmethod
    def build_blank(cls, architecture: Architecture) -> "BiomassModel":
        """Build a model whose every number is still to be loaded; nothing is downloaded."""
        bands = choose_bands(architecture.bands)
        blank = [0.0] * bands.n_bands
        normalisation = BandNormalisation(offset=blank, scale=blank, bands=bands)
        return cls(architecture=architecture, normalisation=normalisation)

    @property
    def device(self) -> torch.device:
        """Where its numbers lie."""
        return self.target_scale.device

    def freeze_encoder(self, frozen: bool) -> None:
        """Keep the encoder as it is, whatever is trained, or let it learn; see `Encoder.freeze`."""
        self.network.encoder.freeze(frozen)
        self.train(self.training)

    def compile_network(self) -> None:
        """Let torch compile the network, in place and under the same names; see `Compiled`.

        Not together with activation checkpointing, which decides otherwise what is computed again.
        """
        if activation_checkpointing.is_checkpointed(self.network):
            log.warning(
                "expected %s to be 0 where optimisation.compile is true, got 1;"
                " going on without torch.compile",
                ACTIVATION_CHECKPOINTING_VARIABLE,
            )
            return
        self.network.compile_in_place()

    def normalise(self, s1: Tensor, s2: Tensor, s2_present: Tensor) -> Tensor:
        """Return the network's input for chips as stored; see `BandNormalisation.forward`.

        With `missing_months` `nearest`, absent months show another month's Sentinel-2 images.
        """
        s2_present = s2_present.to(s2.device, non_blocking=True)
        if self.fills_absent_months:
            s2, s2_present = fill_absent_months(s2, s2_present)
        images: Tensor = self.normalisation(s1, s2, s2_present)
        return images

    @property
    def fills_absent_months(self) -> bool:
        """Whether a month without Sentinel-2 images shows those of another."""
        return self.architecture.missing_months == "nearest" and bool(self.bands.s2)

    @property
    def ignores_absent_months(self) -> bool:
        """Whether months are ignored for what a chip lacks."""
        # A month without Sentinel-2 lacks nothing to a model that sees none of its bands.
        return self.architecture.missing_months == "mask" and bool(self.bands.s2)

    def ignore_months(self, s2_present: Tensor) -> Tensor | None:
        """Return the months to ignore for what a chip lacks, (B, T) bool; None: no month.

        Args:
            s2_present: (B, T) bool; False = absent month. On the CPU, it makes no GPU wait.
        """
        if not self.ignores_absent_months:
            return None
        return ignore_absent_months(s2_present)

    def scale_target(self, target: Tensor) -> Tensor:
        """Return AGBM, t/ha, in the space of `predict_scaled`; NaN stays NaN."""
        return target_scaling.scale_target(self.architecture.target_scaling, target)

    def predict_scaled(self, images: Tensor, ignored: Tensor | None = None) -> Tensor:
        """Return the prediction where the loss is taken, (B, H, W) float32.

        Of a model of quantiles (B, 3, H, W): lower bound, median, upper bound.

        That is t/ha, or with `target_scaling` `log` and `sqrt`, log(1 + AGBM) and the square root
        of AGBM.

        Args:
            images: Normalised bands, (B, T, C, H, W); H and W multiples of 32.
            ignored: Months that are neither encoded nor get any weight, (B, T) bool, on any device
                (on the CPU, it makes no GPU wait); None: no month is ignored.
        """
        return self._scale_output(self.network(images, ignored))

    def predict_kept(self, images: Tensor, kept: KeptMonths) -> Tensor:
        """Return `predict_scaled` from the images of the kept months alone.

        Args:
            images: Normalised bands, (M, C, H, W); channels last in memory, they need no copy.
            kept: Which months they are.
        """
        return self._scale_output(self.network.predict_kept(images, kept))

    def forward(self, images: Tensor, ignored: Tensor | None = None) -> Tensor:
        """Return the prediction, (B, H, W) or (B, 3, H, W), float32, t/ha; see `predict_scaled`."""
        return self.finish(self.network(images, ignored))

    def finish(self, output: Tensor) -> Tensor:
        """Return `forward` of what the network put out, (B, 1, H, W) or (B, 3, H, W)."""
        scaled = self._scale_output(output)
        return target_scaling.unscale_prediction(self.architecture.target_scaling, scaled)

    def _scale_output(self, output: Tensor) -> Tensor:
        ordered = order_quantiles(output.float()) if self.quantiles else output.squeeze(1).float()
        return ordered * self.target_scale + self.target_offset
