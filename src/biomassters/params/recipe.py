"""Sections `model`, `augmentation`, `optimisation`, `train` and `finetune`: the recipe.

`train` and `finetune` share this module: what retrains the first reruns the second anyway.
"""

from typing import Annotated, Literal

from pydantic import Field

from biomassters.params.section import Section

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ModelParams(Section):
    """The architecture, and how its inputs and its output are scaled.

    Attributes:
        backbone: A timm encoder with 5 feature levels.
        pretrained: Start from timm's published weights (downloaded once).
        decoder_channels: Channels of the 5 decoder blocks, the coarsest first.
        normalisation: How bands are scaled: `minmax` to 0...1 (the winner's), `zscore` to mean 0
            and standard deviation 1, `percentile` from the 1st...99th percentile to 0...1.
        target_scaling: `standard`: the head predicts in units of the training targets' standard
            deviation about their mean; `none`: in t/ha (the winner's).
    """

    backbone: str = Field(min_length=1)
    pretrained: bool
    decoder_channels: tuple[int, ...] = Field(min_length=5, max_length=5)
    normalisation: Literal["minmax", "zscore", "percentile"]
    target_scaling: Literal["none", "standard"]


class AugmentationParams(Section):
    """Random changes of the training chips; each chip draws its own.

    Attributes:
        symmetries: Apply one of the eight flips and quarter turns.
        rotation_p: Probability of a rotation about a jittered centre.
        rotation_degrees: The largest rotation to either side.
        month_dropout_p: Probability that a chip loses months at all.
        month_dropout_rate: Probability that such a chip loses a month; never all twelve.
    """

    symmetries: bool
    rotation_p: Probability
    rotation_degrees: float = Field(ge=0, le=180)
    month_dropout_p: Probability
    month_dropout_rate: float = Field(ge=0, lt=1)


class OptimisationParams(Section):
    """What `train` and `finetune` share.

    Attributes:
        batch_size: Chips a step, over all GPUs.
        weight_decay: AdamW's; none on biases and norms.
        clip_norm: Largest gradient norm.
        precision: Arithmetic of the forward pass.
        max_target: Pixels of this AGBM (t/ha) and more do not enter the loss.
    """

    batch_size: int = Field(gt=0)
    weight_decay: NotNegative
    clip_norm: Positive
    precision: Literal["fp32", "bf16", "fp16"]
    max_target: Positive


class TrainParams(Section):
    """The training of each fold.

    Attributes:
        epochs: Passes over the fold's training chips.
        lr_min: The learning rate at the end of the cosine; the peak is the top-level `lr`.
        validation_tta: Views that the logged TTA score of an epoch averages.
        validation_every: Epochs between two validations (the last epoch always has one).
    """

    epochs: int = Field(gt=0)
    lr_min: NotNegative
    validation_tta: Literal["none", "flips", "dihedral"]
    validation_every: int = Field(gt=0)


class FinetuneParams(Section):
    """The training on all chips, from a fold's model.

    Attributes:
        fold: The fold whose model it starts from.
        epochs: Passes over all train chips.
        lr: Peak learning rate.
        lr_min: The learning rate at the end of the cosine.
        weights: `last`, or the `average` over the epochs of the last quarter.
    """

    fold: int = Field(ge=0)
    epochs: int = Field(gt=0)
    lr: Positive
    lr_min: NotNegative
    weights: Literal["last", "average"]
