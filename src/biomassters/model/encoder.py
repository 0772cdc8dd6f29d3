"""The image encoder: any timm backbone with five feature levels, on the bands of a month.

Months are images like any others to it: what makes them a year is `month_aggregation`.
"""

import difflib
from typing import Any, Final, Self

from torch import Tensor, nn

from biomassters.errors import ModelError
from biomassters.store.bands import N_BANDS

REDUCTIONS: Final = (2, 4, 8, 16, 32)
"""Pixels of the image per pixel of each feature level; the decoder doubles five times."""


class Encoder(nn.Module):
    """A timm backbone that returns its five feature levels, the finest first.

    Attributes:
        model: The backbone.
        channels: Channels of each level.
        reductions: Pixels of the image per pixel of each level.
        is_frozen: Whether it stays as it is, whatever is trained.
    """

    def __init__(self, *, backbone: str, pretrained: bool, n_bands: int = N_BANDS) -> None:
        """Create the backbone.

        Args:
            backbone: A name that timm lists, with or without the tag of its weights.
            pretrained: Start from timm's published weights, which timm adapts to the bands.
            n_bands: Channels of the images.

        Raises:
            ModelError: timm does not know the name, it has not the five levels of REDUCTIONS, or
                its weights cannot be had.
        """
        super().__init__()
        _check_name(backbone)
        self.model = _create(backbone, pretrained, n_bands)
        self.channels = tuple(self.model.feature_info.channels())
        self.reductions = tuple(self.model.feature_info.reduction())
        _check_levels(backbone, self.reductions)
        self.is_frozen = False

    def freeze(self, frozen: bool) -> None:
        """Let all its weights learn or none, and its running statistics with them.

        Frozen, it is in evaluation mode, whatever mode is asked of it later, and keeps nothing for
        a gradient. No longer frozen, it is in the mode that is asked of it next.
        """
        self.is_frozen = frozen
        self.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Switch to training mode, if it is not frozen."""
        return super().train(mode and not self.is_frozen)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the feature levels of images, (N, n_bands, H, W), H and W multiples of 32."""
        features: list[Tensor] = self.model(images)
        return features


def _check_name(backbone: str) -> None:
    # timm brings torchvision and torch's compiler with it, and takes longer to import than torch
    # alone: not before a network is built, so that a stage that is refused ends soon.
    import timm

    known = [*timm.list_models(), *timm.list_pretrained()]
    if backbone in known:
        return
    closest = difflib.get_close_matches(backbone, known, n=3, cutoff=0)
    raise ModelError(
        f"expected a backbone that timm {timm.__version__} lists, got {backbone!r},"
        f" at model.backbone; the closest are {', '.join(closest)}"
    )


def _check_levels(backbone: str, reductions: tuple[int, ...]) -> None:
    if reductions == REDUCTIONS:
        return
    raise ModelError(
        f"expected a backbone with {len(REDUCTIONS)} feature levels (at 1/2, 1/4 ... 1/32 of the"
        f" image), got {len(reductions)} levels (at 1/{', 1/'.join(map(str, reductions))}) of"
        f" {backbone}, at model.backbone; choose another, such as tf_efficientnetv2_b0"
    )


def _create(backbone: str, pretrained: bool, n_bands: int) -> Any:
    # What a backbone raises when it has no feature levels, or a download when there is no network,
    # is not one class of exception, nor timm's own; so both handlers take any.
    import timm

    try:
        return timm.create_model(
            backbone, features_only=True, in_chans=n_bands, pretrained=pretrained
        )
    except Exception as error:
        cause = " ".join(str(error).split())
        if pretrained:
            _create(backbone, False, n_bands)
            raise ModelError(
                f"expected timm's published weights of {backbone}, got {type(error).__name__}"
                f" ({cause}), at model.pretrained; connect to the network once (they are kept),"
                " name a backbone with weights, or set model.pretrained to false"
            ) from error
        raise ModelError(
            f"expected a backbone with feature levels, got {backbone} ({cause}),"
            " at model.backbone; choose another, such as tf_efficientnetv2_b0"
        ) from error
