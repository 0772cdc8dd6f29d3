"""The chips that a training leaves out: how good a model is on them, and its predictions of them.

Each of several processes has a part of these chips; all of them get the same scores.
"""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

import numpy as np

from biomassters.batches.distributed import ALONE, Processes
from biomassters.batches.order import StoreOrder
from biomassters.batches.reading import Batch, Batches, open_batches
from biomassters.batches.symmetries import views
from biomassters.errors import StoreError
from biomassters.model.biomass_model import BiomassModel
from biomassters.model.weights import identify_weights
from biomassters.params.sections import OptimisationParams
from biomassters.prediction.inference import (
    PredictedBatch,
    ViewSets,
    predict_batches,
    predict_own_batches,
)
from biomassters.prediction.maps import (
    HEAD_TAG,
    QUANTILES,
    WEIGHTS_TAG,
    PixelIntervals,
    write_prediction,
)
from biomassters.prediction.metrics import ErrorSums, add_up
from biomassters.store.chips import ChipStore

CHOOSING_SCORE: Final = "validation/chip_rmse"
"""The score of the plain view, whose least value tells the best epoch: the least of several scores
would be biased downwards."""


class HeldOut:
    """The chips that a fold leaves out of its training."""

    def __init__(
        self,
        store: ChipStore,
        indices: Sequence[int],
        optimisation: OptimisationParams,
        tta: Sequence[int],
        processes: Processes = ALONE,
    ) -> None:
        """Open them.

        Args:
            store: The chips.
            indices: Positions of the held-out ones in the store.
            optimisation: Says how many chips a forward pass has, and its arithmetic.
            tta: The views of the score with TTA, and of the predictions.
            processes: That share the chips.
        """
        size = optimisation.micro_batch_size
        order = StoreOrder(indices, size, rank=processes.rank, size=processes.size)
        self.store = store
        self.batches = open_batches(store, order)
        self.tta = tta
        self.precision = optimisation.precision
        self.processes = processes

    def score(self, model: BiomassModel) -> dict[str, float]:
        """Score a model on all of them, equally in all processes.

        Raises:
            StoreError: None of them has a target.
        """
        scores = score_chips(
            model,
            self.batches,
            self.store.chip_ids,
            {"plain": views("none"), "tta": self.tta},
            precision=self.precision,
            processes=self.processes,
        )
        return {
            CHOOSING_SCORE: scores["plain"]["chip_rmse"],
            "validation/chip_rmse_tta": scores["tta"]["chip_rmse"],
            "validation/pooled_rmse": scores["plain"]["pooled_rmse"],
        }

    def write_predictions(self, model: BiomassModel, folder: Path, tags: Mapping[str, str]) -> None:
        """Write the predictions of all of them, in the first process.

        Args:
            model: Whose predictions they are.
            folder: Where they go; made if absent.
            tags: How they were made, for each file's tags; beside them goes `maps.WEIGHTS_TAG`,
                and with a model's own quantiles in bands 3 and 4 `maps.HEAD_TAG`.
        """
        tags = {**tags, WEIGHTS_TAG: identify_weights(model)}
        for index, prediction, _, bounds in predict_batches(
            [model], self.batches, self.tta, precision=self.precision, processes=self.processes
        ):
            of_head = {} if bounds is None else {HEAD_TAG: QUANTILES}
            unknown = np.full_like(prediction, np.nan)  # a standard deviation is not predicted
            write_prediction(
                folder,
                self.store.chip_ids[index],
                prediction,
                tags | of_head,
                self.store.georeference(index),
                None if bounds is None else PixelIntervals(unknown, *bounds),
            )


def score_chips(
    model: BiomassModel,
    batches: Batches[Batch],
    chip_ids: Sequence[str],
    view_sets: ViewSets,
    *,
    precision: str,
    processes: Processes = ALONE,
) -> dict[str, dict[str, Any]]:
    """Score a model on chips, in one pass for several sets of views; see `metrics.ErrorSums`.

    The sums of the chips are added up in the chips' order, so that the scores do not depend on
    the number of processes, in the last digit either.

    Args:
        model: Whose predictions are scored.
        batches: This process's chips; of several processes, every size-th batch (`StoreOrder`).
        chip_ids: Of the whole store.
        view_sets: Symmetries by name, say `{"none": views("none"), "flips": views("flips")}`.
        precision: Arithmetic of the forward pass.
        processes: That share the chips; all get the same scores.

    Returns:
        Scores by the name of the set.

    Raises:
        StoreError: None of the chips has a target.
    """
    mine = [
        {name: _sum_errors(predicted, name, chip_ids) for name in view_sets}
        for predicted in predict_own_batches([model], batches, view_sets, precision)
    ]
    rounds = zip_longest(*processes.gather(mine))
    in_order = [of_batch for a_round in rounds for of_batch in a_round if of_batch is not None]
    scores = {}
    for name in view_sets:
        sums = add_up([chip for of_batch in in_order for chip in of_batch[name]])
        if not sums.chip_ids:
            raise StoreError(
                "expected targets of the chips that a model is scored on, got none;"
                " add their targets, or take these chips out of the catalogue"
            )
        scores[name] = sums.summarise()
    return scores


def _sum_errors(predicted: PredictedBatch, name: str, chip_ids: Sequence[str]) -> list[ErrorSums]:
    """Return the sums of each chip by itself."""
    found = []
    for index, prediction, target in zip(
        predicted.chip_index, predicted.predictions[name], predicted.target, strict=True
    ):
        sums = ErrorSums()
        sums.add(chip_ids[index], prediction, target)
        found.append(sums)
    return found
