"""Several models whose predictions are averaged: opened, tried, each with its engine."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from biomassters.errors import ModelError
from biomassters.model.biomass_model import BiomassModel
from biomassters.model.execution import place_model
from biomassters.model.trial import try_prediction
from biomassters.model.weights import load_model
from biomassters.params.sections import CleaningName, PredictParams
from biomassters.prediction.engines import Predictor, choose_engine


def open_ensemble(
    paths: Iterable[Path],
    chip_size: int,
    *,
    cleaning: CleaningName,
    precision: str,
    device: torch.device,
) -> dict[Path, BiomassModel]:
    """Load models, and try them; see `try_ensemble`.

    Args:
        paths: Their files.
        chip_size: Of the chips that they will predict, pixels.
        cleaning: What is done to these; the models must have been trained with it.
        precision: Arithmetic of the forward pass.
        device: Where they will run.

    Raises:
        ModelError: One of them cannot be used, or predicts what another does not.
    """
    models = {path: place_model(load_model(path, cleaning=cleaning), device) for path in paths}
    try_ensemble(models, chip_size, precision=precision)
    return models


def choose_engines(
    models: Iterable[BiomassModel], params: PredictParams, chip_size: int
) -> list[Predictor]:
    """Return what computes each model; see `choose_engine`.

    Raises:
        ModelError: OpenVINO is asked for, and is not there or cannot do it.
    """
    return [
        choose_engine(model, params.engine, precision=params.precision, chip_size=chip_size)
        for model in models
    ]


def try_ensemble(models: Mapping[Path, BiomassModel], chip_size: int, *, precision: str) -> None:
    """Refuse models of which one does not run on chips, or predicts what another does not.

    Args:
        models: By their files, on the device where they will run; nothing of them changes.
        chip_size: Pixels.
        precision: Arithmetic of the forward pass.

    Raises:
        ModelError: A backbone does not take the size; heads differ, or levels of quantiles.
    """
    (first, model), *others = models.items()
    for path, other in others:
        if other.quantiles != model.quantiles:
            raise ModelError(
                f"expected models of one head, got {_describe(model)} at {first} and"
                f" {_describe(other)} at {path}; take away one of them, or train it again"
            )
    for path, each in models.items():
        try_prediction(each, chip_size, precision=precision, where=str(path))


def _describe(model: BiomassModel) -> str:
    if model.quantiles is None:
        return "model.head mean"
    return f"model.head quantiles of {', '.join(f'{level:g}' for level in model.quantiles)}"
