"""From chips to predictions: views undone and averaged, models averaged, processes taking turns."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from biomassters.batches import symmetries
from biomassters.batches.distributed import ALONE, Processes
from biomassters.batches.reading import Batch, Batches, prefetch
from biomassters.model.quantile_head import MEDIAN
from biomassters.prediction.alone import predict_chips_alone
from biomassters.prediction.engines import OpenVinoModel, Predictor

Prediction = npt.NDArray[np.float32]

ViewSets = Mapping[str, Sequence[int]]
"""Views whose predictions are averaged, as `symmetries.views` gives them, by a name of any kind."""

_ONLY: Final = "only"


class PredictedBatch(NamedTuple):
    """A batch's predictions and bounds by view set, and its targets, t/ha.

    Attributes:
        chip_index: Positions in the store, (B,).
        predictions: The maps, (B, H, W): medians, of a model of quantiles.
        target: (B, H, W).
        bounds: Lower and upper one, (B, 2, H, W); None = the model predicts none.
    """

    chip_index: list[int]
    predictions: dict[str, Prediction]
    target: Prediction
    bounds: dict[str, Prediction | None]


class PredictedChip(NamedTuple):
    """One chip's prediction, its target and the bounds of its pixels, t/ha.

    Attributes:
        chip_index: Its position in the store.
        prediction: The map, (H, W): the median, of a model of quantiles.
        target: (H, W).
        bounds: Lower and upper one, (2, H, W); None = the model predicts none.
    """

    chip_index: int
    prediction: Prediction
    target: Prediction
    bounds: Prediction | None


@torch.inference_mode()
def predict_view_sets(
    models: Sequence[Predictor], batch: Batch, view_sets: ViewSets, precision: str
) -> dict[str, Tensor]:
    """Predict a batch: for each set of views, the plain average over models and its views.

    A view that several sets have is predicted once.

    Args:
        models: In evaluation mode, on the batch's device.
        batch: Chips as stored.
        view_sets: Symmetries by name.
        precision: Arithmetic of the forward pass; the averages are float32.

    Returns:
        What the models return, (B, H, W) or (B, 3, H, W), float32, t/ha, by the name of the set.
    """
    totals: dict[str, Tensor] = {}
    for model in models:
        images = model.normalise(batch.s1, batch.s2, batch.s2_present)
        ignored = model.ignore_months(batch.s2_present)
        for view in dict.fromkeys(view for views in view_sets.values() for view in views):
            seen = symmetries.apply(images, view)
            if isinstance(model, OpenVinoModel):
                prediction = model(seen, ignored)
            else:
                prediction = predict_chips_alone(model, seen, ignored, precision)
            undone = symmetries.undo(prediction.float(), view)
            for name, views in view_sets.items():
                if view in views:
                    totals[name] = totals.get(name, torch.zeros_like(undone)) + undone
    return {name: total / (len(models) * len(view_sets[name])) for name, total in totals.items()}


def predict_views(
    models: Sequence[Predictor], batch: Batch, views: Sequence[int], precision: str
) -> Tensor:
    """Predict a batch with one set of views; see `predict_view_sets`."""
    return predict_view_sets(models, batch, {_ONLY: views}, precision)[_ONLY]


def predict_batches(
    models: Sequence[Predictor],
    batches: Batches[Batch],
    views: Sequence[int],
    *,
    precision: str,
    processes: Processes = ALONE,
    progress: bool = False,
) -> Iterator[PredictedChip]:
    """Predict chip by chip.

    Args:
        models: Whose predictions are averaged.
        batches: This process's chips; of several processes, every size-th batch (`StoreOrder`).
        views: Whose predictions are averaged.
        precision: Arithmetic of the forward pass.
        processes: That share the chips; all of them must exhaust this iterator.
        progress: Show a bar, if at a terminal.

    Yields:
        All chips in their order, in the first process. Nothing in the others.
    """
    mine = predict_own_batches(models, batches, {_ONLY: views}, precision)
    n_rounds = processes.broadcast(len(batches))  # the first has as many as any
    is_shown = progress and processes.is_first
    for _ in tqdm(range(n_rounds), unit="batch", disable=None if is_shown else True):
        for predicted in processes.gather(next(mine, None)):
            if predicted is not None and processes.is_first:
                bounds = predicted.bounds[_ONLY]
                yield from map(
                    PredictedChip,
                    predicted.chip_index,
                    predicted.predictions[_ONLY],
                    predicted.target,
                    [None] * len(predicted.chip_index) if bounds is None else bounds,
                )


def predict_own_batches(
    models: Sequence[Predictor],
    batches: Batches[Batch],
    view_sets: ViewSets,
    precision: str,
) -> Iterator[PredictedBatch]:
    """Predict this process's chips, batch by batch.

    Each comes a batch late, so that a GPU works while the host handles results.

    Args:
        models: Whose predictions are averaged.
        batches: Of this process alone.
        view_sets: Symmetries by name.
        precision: Arithmetic of the forward pass.
    """
    for model in models:
        model.eval()
    waiting: _OnTheWay | None = None
    for batch in prefetch(batches, models[0].device):
        predictions = predict_view_sets(models, batch, view_sets, precision)
        following = _OnTheWay(batch, predictions)
        if waiting is not None:
            yield waiting.arrive()
        waiting = following
    if waiting is not None:
        yield waiting.arrive()


class _OnTheWay:
    """Predictions that a GPU is still computing, and will copy to the host."""

    def __init__(self, batch: Batch, predictions: dict[str, Tensor]) -> None:
        def leave(tensor: Tensor) -> Tensor:
            return tensor.to("cpu", non_blocking=True)

        self.chip_index = batch.chip_index.tolist()
        self.predictions = {name: leave(tensor) for name, tensor in predictions.items()}
        self.target = leave(batch.target)
        on_gpu = batch.target.is_cuda
        self.copied = torch.cuda.current_stream().record_event() if on_gpu else None

    def arrive(self) -> PredictedBatch:
        """Wait for them."""
        if self.copied is not None:
            self.copied.synchronize()
        arrays = {name: tensor.numpy() for name, tensor in self.predictions.items()}
        maps, bounds = dict[str, Prediction](), dict[str, Prediction | None]()
        for name, array in arrays.items():
            of_quantiles = array.ndim > self.target.ndim
            maps[name] = array[:, MEDIAN] if of_quantiles else array
            bounds[name] = np.delete(array, MEDIAN, axis=1) if of_quantiles else None
        return PredictedBatch(self.chip_index, maps, self.target.numpy(), bounds)
