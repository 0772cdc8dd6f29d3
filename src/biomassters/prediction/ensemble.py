"""Several models whose predictions are averaged: whether all run, and predict the same."""

from collections.abc import Mapping
from pathlib import Path

from biomassters.errors import ModelError
from biomassters.model.biomass_model import BiomassModel
from biomassters.model.trial import try_prediction


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
