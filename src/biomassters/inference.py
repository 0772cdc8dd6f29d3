"""From chips to predictions: views undone and averaged, models averaged."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from biomassters import symmetries
from biomassters.batches import Batch
from biomassters.errors import StoreError
from biomassters.metrics import ErrorSums
from biomassters.model import BiomassModel
from biomassters.precision import autocast

Prediction = npt.NDArray[np.float32]


@torch.inference_mode()
def predict_views(
    models: Sequence[BiomassModel], batch: Batch, views: Sequence[int], precision: str
) -> Tensor:
    """Predict a batch: the plain average over models and views.

    Args:
        models: In evaluation mode, on the batch's device.
        batch: Chips as stored.
        views: Symmetries, as `symmetries.views` gives them.
        precision: Arithmetic of the forward pass; the average is float32.

    Returns:
        AGBM, (B, H, W), float32, t/ha.
    """
    total = torch.zeros_like(batch.target)
    for model in models:
        images = model.normalise(batch.s1, batch.s2, batch.s2_present)
        for view in views:
            with autocast(images.device, precision):
                prediction = model(symmetries.apply(images, view))
            total += symmetries.undo(prediction.float(), view)
    return total / (len(models) * len(views))


def predict_batches(
    models: Sequence[BiomassModel],
    batches: "DataLoader[Batch]",
    views: Sequence[int],
    *,
    precision: str,
    progress: bool = False,
) -> Iterator[tuple[int, Prediction, Prediction]]:
    """Predict chip by chip.

    Args:
        models: Whose predictions are averaged.
        batches: The chips.
        views: Whose predictions are averaged.
        precision: Arithmetic of the forward pass.
        progress: Show a bar, if at a terminal.

    Yields:
        The chip's position in the store, its prediction and its target, (H, W), t/ha.
    """
    device = next(models[0].parameters()).device
    for model in models:
        model.eval()
    for batch in tqdm(batches, unit="batch", disable=None if progress else True):
        prediction = predict_views(models, batch.to(device), views, precision).cpu().numpy()
        yield from zip(batch.chip_index.tolist(), prediction, batch.target.numpy(), strict=True)


def score_chips(
    model: BiomassModel,
    batches: "DataLoader[Batch]",
    chip_ids: Sequence[str],
    views: Sequence[int],
    *,
    precision: str,
) -> dict[str, Any]:
    """Score a model on chips; see `metrics.ErrorSums`.

    Raises:
        StoreError: None of them has a target.
    """
    sums = ErrorSums()
    for index, prediction, target in predict_batches([model], batches, views, precision=precision):
        sums.add(chip_ids[index], prediction, target)
    if not sums.chip_ids:
        raise StoreError(
            "expected targets of the chips that a model is scored on, got none;"
            " add their targets, or take these chips out of the catalogue"
        )
    return sums.summarise()
