"""Errors of models under each condition, on chips that they were not trained on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from biomassters.batches.distributed import ALONE, Processes
from biomassters.batches.order import StoreOrder
from biomassters.batches.reading import open_batches
from biomassters.batches.symmetries import views
from biomassters.model.weights_header import list_weights
from biomassters.params.sections import CleaningName, PredictParams, RobustnessParams, SplitParams
from biomassters.prediction.engines import Predictor
from biomassters.prediction.ensemble import choose_engines, open_ensemble
from biomassters.prediction.inference import predict_batches
from biomassters.prediction.metrics import ErrorSums
from biomassters.robustness.conditions import Condition, list_conditions, open_without
from biomassters.store.chips import ChipStore
from biomassters.training.folds import split_chips


class ChipSet(NamedTuple):
    """Chips with targets, and the models that predict them.

    Attributes:
        name: `test`, or that of the fold that held them out.
        store: Where they lie.
        chips: Positions in the store, ascending.
        weights: Of the models whose predictions are averaged.
    """

    name: str
    store: ChipStore
    chips: list[int]
    weights: list[Path]


class Results(NamedTuple):
    """What all conditions did to the same chips.

    Attributes:
        of: Which chips, by which models.
        errors: By condition, in the order of `list_conditions`.
    """

    of: ChipSet
    errors: dict[Condition, ErrorSums]


def find_test_chips(store: ChipStore, models: Path) -> ChipSet | None:
    """Return the test chips that have targets, for all models of a folder; None: there is none.

    Raises:
        ModelError: There is no model.
    """
    chips = _with_targets(store, range(len(store)))
    if not chips:
        return None
    return ChipSet("test", store, chips, list_weights(models))


def find_held_out_chips(
    store: ChipStore, split: SplitParams, fold: int, weights: Path
) -> ChipSet | None:
    """Return the train chips with targets that a fold held out, for its model; None: no chip."""
    if not len(store):
        return None
    chips = _with_targets(store, split_chips(store, split, fold)[1])
    return ChipSet(f"fold-{fold}", store, chips, [weights]) if chips else None


def draw_chips(chips: Sequence[int], most: int, seed: int) -> list[int]:
    """Return the chips, or so many of them, drawn at random where there are more; ascending."""
    random = np.random.Generator(np.random.PCG64(seed))
    return sorted(random.permutation(chips)[:most].tolist())


def score_conditions(
    of: ChipSet,
    params: RobustnessParams,
    predict: PredictParams,
    *,
    cleaning: CleaningName,
    processes: Processes = ALONE,
) -> Results:
    """Predict some of the chips under each condition.

    With the views of the stage `predict`, the plain errors are those of its predictions.

    Args:
        of: Chips and models, of which `params.chips` are drawn.
        params: The conditions, and the views.
        predict: How predictions are made, but for the views.
        cleaning: What is done to a chip when it is read; the models were trained with it.
        processes: That share the chips; the first one has the errors.

    Raises:
        ModelError: A model cannot be used.
    """
    of = of._replace(chips=draw_chips(of.chips, params.chips, params.seed))
    models = open_ensemble(
        of.weights,
        of.store.chip_size,
        cleaning=cleaning,
        precision=predict.precision,
        device=processes.device,
    )
    predictors = choose_engines(models.values(), predict, of.store.chip_size)
    errors = {}
    for condition in tqdm(
        list_conditions(params), unit="condition", disable=None if processes.is_first else True
    ):
        store = open_without(of.store.path, condition, cleaning=cleaning, seed=params.seed)
        errors[condition] = _sum_errors(
            predictors, store, of.chips, views(params.tta), predict, processes
        )
    return Results(of, errors)


def summarise_errors(errors: ErrorSums) -> Mapping[str, float]:
    """Return what is reported of a condition, t/ha."""
    scores = errors.summarise()
    return {name: scores[name] for name in ("chip_rmse", "pooled_rmse", "bias")}


def _with_targets(store: ChipStore, chips: Sequence[int]) -> list[int]:
    return [chip for chip in chips if np.isfinite(store.agbm_mean[chip])]


def _sum_errors(
    predictors: Sequence[Predictor],
    store: ChipStore,
    chips: Sequence[int],
    tta: Sequence[int],
    params: PredictParams,
    processes: Processes,
) -> ErrorSums:
    order = StoreOrder(chips, params.batch_size, rank=processes.rank, size=processes.size)
    errors = ErrorSums()
    for index, prediction, target, _ in predict_batches(
        predictors,
        open_batches(store, order),
        tta,
        precision=params.precision,
        processes=processes,
    ):
        clamped = np.maximum(prediction, 0) if params.clamp else prediction
        errors.add(store.chip_ids[index], clamped, target)
    return errors
