"""Several models whose predictions are averaged: whether that has a meaning."""

from collections.abc import Mapping
from pathlib import Path

from biomassters.errors import ModelError
from biomassters.model.biomass_model import BiomassModel


def check_ensemble(models: Mapping[Path, BiomassModel]) -> None:
    """Refuse models of which one predicts what another does not.

    Args:
        models: By their files.

    Raises:
        ModelError: Their heads differ, or the levels of their quantiles.
    """
    (first, model), *others = models.items()
    for path, other in others:
        if other.quantiles != model.quantiles:
            raise ModelError(
                f"expected models of one head, got {_describe(model)} at {first} and"
                f" {_describe(other)} at {path}; take away one of them, or train it again"
            )


def _describe(model: BiomassModel) -> str:
    if model.quantiles is None:
        return "model.head mean"
    return f"model.head quantiles of {', '.join(f'{level:g}' for level in model.quantiles)}"
