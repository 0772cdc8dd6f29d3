"""The whole of params.yaml, and what its sections ask of each other."""

from typing import Final

from pydantic import model_validator

from biomassters.params.map_sections import MapParams, SceneNames
from biomassters.params.sections import (
    AugmentationParams,
    BaselinesParams,
    CalibrationParams,
    CleaningName,
    DataParams,
    FinetuneParams,
    Folds,
    ModelParams,
    OptimisationParams,
    Positive,
    PredictParams,
    RobustnessParams,
    Section,
    Seed,
    SplitParams,
    StatisticsParams,
    TrainParams,
)

CALIBRATION: Final = "calibration.json"
"""What `calibrate` writes."""


class Params(Section):
    """params.yaml.

    Attributes:
        lr: Peak learning rate of `train`.
        seed: Seed of everything random but the split.
        folds: The folds that are trained, each 0...split.n_folds - 1.
        maps: The scenes that are mapped, NAME for scenes/NAME.yaml.
        cleaning: What is done to a chip's values when it is read.
    """

    lr: Positive
    seed: Seed
    folds: Folds
    data: DataParams
    cleaning: CleaningName
    split: SplitParams
    statistics: StatisticsParams
    model: ModelParams
    augmentation: AugmentationParams
    optimisation: OptimisationParams
    train: TrainParams
    finetune: FinetuneParams
    calibration: CalibrationParams
    predict: PredictParams
    maps: SceneNames
    map: MapParams
    baselines: BaselinesParams
    robustness: RobustnessParams

    @model_validator(mode="after")
    def _check_across_sections(self) -> "Params":
        self._check_folds()
        self._check_model()
        self._check_training()
        self._check_calibration()
        return self

    def _check_folds(self) -> None:
        if len(set(self.folds)) < len(self.folds):
            raise ValueError(f"folds: expected each fold once, got {list(self.folds)}")
        if max(self.folds) >= self.split.n_folds:
            raise ValueError(
                f"folds: expected folds below split.n_folds = {self.split.n_folds},"
                f" got {list(self.folds)}"
            )
        if self.finetune.fold not in self.folds:
            raise ValueError(
                f"finetune.fold: expected one of folds = {list(self.folds)},"
                f" got {self.finetune.fold}"
            )

    def _check_model(self) -> None:
        if self.model.month_encoding != "none" and self.model.month_aggregation != "attention":
            raise ValueError(
                "model.month_encoding: expected none with model.month_aggregation ="
                f" {self.model.month_aggregation} (it tells the attention which month it looks at),"
                f" got {self.model.month_encoding}"
            )
        if self.statistics.source == "published" and self.model.normalisation != "minmax":
            raise ValueError(
                "model.normalisation: expected minmax with statistics.source = published (only"
                f" minima and maxima were published), got {self.model.normalisation}"
            )

    def _check_training(self) -> None:
        if self.optimisation.batch_size % self.optimisation.micro_batch_size:
            raise ValueError(
                "optimisation.micro_batch_size: expected a divisor of optimisation.batch_size ="
                f" {self.optimisation.batch_size}, got {self.optimisation.micro_batch_size}"
            )
        for name, phase in (("train", self.train), ("finetune", self.finetune)):
            for key in ("warmup_epochs", "frozen_encoder_epochs", "plain_epochs"):
                if getattr(phase, key) > phase.epochs:
                    raise ValueError(
                        f"{name}.{key}: expected at most {name}.epochs = {phase.epochs},"
                        f" got {getattr(phase, key)}"
                    )

    def _check_calibration(self) -> None:
        if self.predict.models == "imported" and self.predict.calibration == CALIBRATION:
            raise ValueError(
                "predict.calibration: expected presets/uncalibrated.json (or the calibration that"
                " came with the weights) with predict.models = imported, got"
                f" {CALIBRATION}, which the folds of this project are trained for"
            )
