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
            deviation about their mean; `none`: in t/ha (the winner's); `log`, `sqrt`: it predicts
            log(1 + AGBM), the square root of AGBM, and the loss is taken there.
        month_aggregation: How the months of a feature level become one: `attention` (the
            winner's), or their `mean` or `max`.
        month_encoding: `learned`: the attention is told which month it looks at; `none` (the
            winner's): only what it looks like.
        missing_months: What the model sees of a month without Sentinel-2 images: `zero`: images of
            0 (the winner's); `nearest`: the images of the nearest month that has some; `mask`: the
            month gets no attention.
    """

    backbone: str = Field(min_length=1)
    pretrained: bool
    decoder_channels: tuple[int, ...] = Field(min_length=5, max_length=5)
    normalisation: Literal["minmax", "zscore", "percentile"]
    target_scaling: Literal["none", "standard", "log", "sqrt"]
    month_aggregation: Literal["attention", "mean", "max"]
    month_encoding: Literal["none", "learned"]
    missing_months: Literal["zero", "nearest", "mask"]


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
        batch_size: Chips a step, over all processes.
        micro_batch_size: Chips a forward pass, over which batch normalisation averages; gradients
            add up over the micro-batches of a step. A divisor of `batch_size`.
        weight_decay: AdamW's; none on biases and norms.
        clip_norm: Largest gradient norm.
        precision: Arithmetic of the forward pass.
        compile: Let torch compile the network, where it can.
        loss: Of a chip, by default its RMSE (the winner's); all leave out what `max_target` says.
        max_target: Pixels of this AGBM (t/ha) and more do not enter the loss.
        ema_decay: Decay a step of an exponential moving average of the weights, which is then what
            is validated and handed over; 0: no average.
    """

    batch_size: int = Field(gt=0)
    micro_batch_size: int = Field(gt=0)
    weight_decay: NotNegative
    clip_norm: Positive
    precision: Literal["fp32", "bf16", "fp16"]
    compile: bool
    loss: Literal["rmse", "huber", "mse", "mae_ssim"]
    max_target: Positive
    ema_decay: float = Field(ge=0, lt=1)


class PhaseParams(Section):
    """What `train` and `finetune` each have of their own.

    Attributes:
        epochs: Passes over the training chips.
        lr_min: The learning rate at the end of the cosine.
        warmup_epochs: First epochs, over which the learning rate rises linearly from 0.
        frozen_encoder_epochs: First epochs, in which the encoder stays as it is.
        plain_epochs: Last epochs, without augmentation.
    """

    epochs: int = Field(gt=0)
    lr_min: NotNegative
    warmup_epochs: int = Field(ge=0)
    frozen_encoder_epochs: int = Field(ge=0)
    plain_epochs: int = Field(ge=0)


class TrainParams(PhaseParams):
    """The training of each fold; the peak of its learning rate is the top-level `lr`.

    Attributes:
        validation_tta: Views that the logged TTA score of an epoch averages.
        validation_every: Epochs between two validations (the last epoch always has one).
    """

    validation_tta: Literal["none", "flips", "dihedral"]
    validation_every: int = Field(gt=0)


class FinetuneParams(PhaseParams):
    """The training on all chips, from a fold's model.

    Attributes:
        fold: The fold whose model it starts from.
        lr: Peak learning rate.
        weights: `last`, or the `average` over the epochs of the last quarter.
    """

    fold: int = Field(ge=0)
    lr: Positive
    weights: Literal["last", "average"]
