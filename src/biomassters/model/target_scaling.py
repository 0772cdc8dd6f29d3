"""The space in which the target is learnt: AGBM itself, its logarithm or its square root.

The loss is taken there, and a model's output is mapped back to t/ha.
"""

import math
from typing import Final

import torch
from torch import Tensor

from biomassters.errors import ModelError
from biomassters.params.sections import TargetScaling
from biomassters.statistics.figures import TargetFigures

DEVIATIONS_2_TO_98: Final = 4.1075
"""Standard deviations from the 2nd to the 98th percentile of a normal distribution."""


def fit_output(name: TargetScaling, statistics: TargetFigures) -> tuple[float, float]:
    """Return what the head's output is multiplied by, and what is then added to it.

    Thus a new model, whose outputs are about 0 and of the order of 1, starts near the data: with
    `standard` at their mean, with `log` and `sqrt`, which keep the order, at their median. With
    `none`, the winner's, it starts at 0 t/ha.

    Args:
        name: The space.
        statistics: Of the train chips.

    Raises:
        ModelError: A percentile is not known.
    """
    if name == "none":
        return 1.0, 0.0
    if name == "standard":
        return statistics.standard_deviation, statistics.mean
    low, median, high = (
        scale_target(name, torch.tensor(_need(statistics, percentile, name))).item()
        for percentile in ("2", "50", "98")
    )
    return (high - low) / DEVIATIONS_2_TO_98 if high > low else 1.0, median


def scale_target(name: TargetScaling, target: Tensor) -> Tensor:
    """Return AGBM, t/ha, in the space where the loss is taken.

    t/ha for `none` and `standard`, log(1 + AGBM) for `log`, its square root for `sqrt`. NaN stays
    NaN; of a negative AGBM, which only noise can be, the last two see 0.
    """
    if name == "log":
        return target.clamp(min=0).log1p()
    if name == "sqrt":
        return target.clamp(min=0).sqrt()
    return target


def unscale_prediction(name: TargetScaling, prediction: Tensor) -> Tensor:
    """Return a prediction in t/ha; law: it undoes `scale_target` for AGBM of 0 and more.

    It never falls, so that the quantiles of the one are those of the other.

    What lies below the space of such AGBM is 0 t/ha.
    """
    if name == "log":
        return prediction.clamp(min=0).expm1()
    if name == "sqrt":
        return prediction.clamp(min=0).square()
    return prediction


def _need(statistics: TargetFigures, percentile: str, name: str) -> float:
    value = statistics.percentiles.get(percentile, math.nan)
    if math.isnan(value):
        raise ModelError(
            f"expected the percentile {percentile} of the target for the target scaling {name},"
            f" got {', '.join(statistics.percentiles) or 'none'}, at model.target_scaling;"
            " delete statistics.json and run `dvc repro`"
        )
    return value
