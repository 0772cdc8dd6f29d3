"""The sections of params.yaml: one class each, in the file's order; `whole` has all of them.

Knows which values each key may have; knows nothing of what is done with them. It has no defaults
and changes no value: it accepts or refuses, and changes no result.
"""

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from biomassters.params.bands import Bands, ConditionName

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fold = Annotated[int, Field(ge=0)]
# Not strict about the container: YAML has lists only.
Folds = Annotated[tuple[Fold, ...], Field(min_length=1, strict=False)]
ChipIds = Annotated[tuple[str, ...], Field(strict=False)]
CleaningName: TypeAlias = Literal["none", "winner", "second", "third"]
"""What is done to a chip's values when it is read: the rules of the competition's three winners."""
NormalisationName: TypeAlias = Literal["minmax", "zscore", "percentile"]
TargetScaling: TypeAlias = Literal["none", "standard", "log", "sqrt"]
AggregationName: TypeAlias = Literal["attention", "mean", "max"]
MonthEncodingName: TypeAlias = Literal["none", "learned"]
MissingMonthsName: TypeAlias = Literal["zero", "nearest", "mask"]
HeadName: TypeAlias = Literal["mean", "quantiles"]
LossName: TypeAlias = Literal["rmse", "huber", "mse", "mae_ssim"]
Precision: TypeAlias = Literal["fp32", "bf16", "fp16"]
ViewsName: TypeAlias = Literal["none", "flips", "dihedral"]
EngineName: TypeAlias = Literal["auto", "torch", "openvino"]


class Section(BaseModel):
    """A mapping of params.yaml. Unknown keys and values of another type or range are errors.

    Strict, since DVC knows a value as the file has it: "1", 1.0 and true are no 1, "yes" is no
    true. A whole number is a number, and a list stands for a tuple.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


CHIP_SIZE_STEP: Final = 32
"""A chip's side is a multiple of it: the encoder halves it five times."""


class SubsetParams(Section):
    """Which chips of the catalogue are used, to try the real thing in an hour; all by default.

    At most one of `first`, `fraction` and `chip_ids` may say so; each split is cut by itself.

    Attributes:
        first: This many of each split, by chip id; null = all.
        fraction: This share of each split, drawn at random, at least one chip; 1.0 = all.
        seed: Seed of that draw.
        chip_ids: These alone, in quotes (2831e417 is a number to YAML); empty = all.
    """

    first: Annotated[int, Field(ge=1)] | None
    fraction: float = Field(gt=0, le=1)
    seed: Seed
    chip_ids: ChipIds

    @model_validator(mode="after")
    def _check_one_rule(self) -> "SubsetParams":
        rules = (self.first is not None, self.fraction < 1, bool(self.chip_ids))
        if sum(rules) > 1:
            raise ValueError(
                "data.subset: expected at most one of first, fraction and chip_ids, got"
                f" first = {self.first}, fraction = {self.fraction:g} and"
                f" {len(self.chip_ids)} chip_ids"
            )
        return self


class DataParams(Section):
    """Where the chips come from, and their size.

    Attributes:
        source: `synthetic` simulates every file of the catalogue; `folder` reads the official
            layout, and `archives` the official zips and tars, from the directory that the
            environment variable BIOMASSTERS_FOLDER names; `s3` reads the public buckets, or a
            mirror; `hub` downloads the archives from the Hugging Face hub.
        chip_size: Side of a chip, pixels; a multiple of 32.
        on_bad_chip: What to do when a chip's file cannot be had or fails its verification:
            `fail` fetches the others and then ends with an error, `skip` leaves the chip out.
        subset: Which chips of the catalogue are used.
    """

    source: Literal["synthetic", "folder", "archives", "s3", "hub"]
    chip_size: int = Field(gt=0, multiple_of=CHIP_SIZE_STEP)
    on_bad_chip: Literal["fail", "skip"]
    subset: SubsetParams


class SplitParams(Section):
    """How the train chips are divided into folds.

    Attributes:
        method: `random` is the winner's; `stratified` balances the chips' mean biomass.
        n_folds: Number of folds.
        seed: Seed of the division.
    """

    method: Literal["random", "stratified"]
    n_folds: int = Field(ge=2)
    seed: Seed


class StatisticsParams(Section):
    """Which band statistics normalise the inputs.

    Attributes:
        source: `computed` from the train chips; `published` are the winner's constants.
    """

    source: Literal["computed", "published"]


class Architecture(Section):
    """The architecture, and how its inputs and its output are scaled: all that weights depend on.

    Attributes:
        bands: The bands that the model sees: `all` 15 (the winner's), or a list of names, say for
            an archive without a cloud probability. In whatever order: the model has its own.
        backbone: A timm encoder with 5 feature levels.
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
            month gets no attention. Without any band of Sentinel-2 no month lacks anything.
        head: What is predicted of a pixel: `mean`, one number, as the loss has it (the winner's);
            `quantiles`: its median, which is the map, and a bound on either side, by pinball loss.
        quantile_level: Of a head `quantiles`, the share of pixels between its bounds: with 0.9
            they are the quantiles of 0.05 and 0.95.
    """

    bands: Bands
    backbone: str = Field(min_length=1)
    decoder_channels: tuple[Annotated[int, Field(gt=0)], ...] = Field(
        min_length=5, max_length=5, strict=False
    )
    normalisation: NormalisationName
    target_scaling: TargetScaling
    month_aggregation: AggregationName
    month_encoding: MonthEncodingName
    missing_months: MissingMonthsName
    head: HeadName
    quantile_level: float = Field(gt=0, lt=1)


class ModelParams(Architecture):
    """The model that is trained.

    Attributes:
        pretrained: Start from timm's published weights (downloaded once).
    """

    pretrained: bool


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
            Of a head `mean` alone: `quantiles` have a loss of their own.
        max_target: Pixels of this AGBM (t/ha) and more do not enter the loss.
        ema_decay: Decay a step of an exponential moving average of the weights, which is then what
            is validated and handed over; 0: no average.
        batch_norm_chips: Train chips from which the running statistics of batch normalisation are
            computed anew before each validation, and for what `finetune` hands over; 0: they are
            the moving averages that the last steps leave (the winner's).
    """

    batch_size: int = Field(gt=0)
    micro_batch_size: int = Field(gt=0)
    weight_decay: NotNegative
    clip_norm: Positive
    precision: Precision
    compile: bool
    loss: LossName
    max_target: Positive
    ema_decay: float = Field(ge=0, lt=1)
    batch_norm_chips: int = Field(ge=0)


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

    validation_tta: ViewsName
    validation_every: int = Field(gt=0)


class FinetunedFold(Section, extra="ignore"):
    """The part of the section that tells which fold's model is the one to look at.

    Attributes:
        fold: The fold whose model it starts from.
    """

    fold: Fold


class FinetuneParams(FinetunedFold, PhaseParams, extra="forbid"):
    """The training on all chips, from a fold's model.

    Attributes:
        lr: Peak learning rate.
        weights: `last`, or the `average` over the epochs of the last quarter.
    """

    lr: Positive
    weights: Literal["last", "average"]


class CalibrationParams(Section):
    """What `calibrate` says of the errors of the maps.

    Attributes:
        method: `conformal`: from the errors on the folds' held-out chips; `none`: AGBM alone.
        level: Share of pixels, or of areas, that shall lie in their interval.
    """

    method: Literal["conformal", "none"]
    level: float = Field(gt=0, lt=1)


class PredictedModels(Section, extra="ignore"):
    """The part of the section that scoring depends on.

    Attributes:
        models: The models whose predictions are averaged: `final`, all the `folds`, or all that
            were `imported` (`python -m biomassters import-weights`).
        calibration: The file with their intervals: `calibration.json`, which `calibrate` writes,
            or another; `presets/uncalibrated.json` has none.
    """

    models: Literal["final", "folds", "imported"]
    calibration: str = Field(min_length=1)


class PredictParams(PredictedModels, extra="forbid"):
    """From models and chips to maps.

    Attributes:
        tta: The views whose predictions are averaged.
        clamp: Raise negative predictions to 0 t/ha.
        batch_size: Chips a forward pass; on a CPU, where each passes alone, those that are read
            together.
        precision: Arithmetic of the forward pass.
        engine: `torch`, `openvino` (faster on a CPU), or `auto`: OpenVINO on a CPU that can.
    """

    tta: ViewsName
    clamp: bool
    batch_size: int = Field(gt=0)
    precision: Precision
    engine: EngineName


class BaselinesParams(Section):
    """What the network should beat: gradient-boosted trees, pixel by pixel.

    Attributes:
        pixels: That trees are fitted to, drawn from all train chips, as many of each.
        max_iter: Trees that are added up.
        seed: Seed of the draw.
    """

    pixels: int = Field(gt=0)
    max_iter: int = Field(gt=0)
    seed: Seed


class RobustnessParams(Section):
    """What is taken from chips, to see how much worse they are predicted without it.

    Attributes:
        chips: At most so many are predicted: test chips or, where none has a target, the train
            chips that `finetune.fold` held out, by that fold's model.
        months_removed: How many months of Sentinel-2 are taken from each chip, for the curve.
        conditions: What else chips are predicted without; see `bands.ConditionName`.
        tta: The views whose predictions are averaged; all else is as the section `predict` says.
        seed: Seed of the months, and of the chips where there are more.
    """

    chips: int = Field(gt=0)
    months_removed: tuple[Annotated[int, Field(ge=1, le=12)], ...] = Field(strict=False)
    conditions: tuple[ConditionName, ...] = Field(strict=False)
    tta: ViewsName
    seed: Seed
