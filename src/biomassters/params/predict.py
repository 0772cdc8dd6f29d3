"""Section `predict`: from models and chips to maps."""

from typing import Literal

from pydantic import Field

from biomassters.params.section import Section


class PredictedModels(Section, extra="ignore"):
    """The part of the section that scoring depends on.

    Attributes:
        models: The models whose predictions are averaged: `final`, all the `folds`, or all that
            were `imported` (`python -m biomassters import-weights`).
    """

    models: Literal["final", "folds", "imported"]


class PredictParams(PredictedModels, extra="forbid"):
    """From models and chips to maps.

    Attributes:
        tta: The views whose predictions are averaged.
        clamp: Raise negative predictions to 0 t/ha.
        batch_size: Chips a forward pass.
        precision: Arithmetic of the forward pass.
    """

    tta: Literal["none", "flips", "dihedral"]
    clamp: bool
    batch_size: int = Field(gt=0)
    precision: Literal["fp32", "bf16", "fp16"]
