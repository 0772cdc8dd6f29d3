"""The held-out chips of folds: predictions in validation/, with the targets of the store."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from biomassters.calibration.held_out import HeldOutChip
from biomassters.errors import ChipDataError, name_few
from biomassters.prediction.maps import WEIGHTS_TAG, prediction_path, read_prediction
from biomassters.store.chips import ChipStore


def read_held_out(
    store: ChipStore, validation: Path, folds: Sequence[int]
) -> tuple[list[HeldOutChip], dict[str, str]]:
    """Read each chip that a fold's model has not seen, in the order of their ids.

    Args:
        store: The train chips.
        validation: The folder of the folds' folders.
        folds: Which of them.

    Returns:
        The chips that have a target, and the identity of each fold's weights, by the model's name.

    Raises:
        ChipDataError: A fold has no predictions, or others than those of its one model; a
            prediction is no such file; some have quantiles, and others none.
    """
    chips: list[HeldOutChip] = []
    models = {}
    for name in (f"fold-{fold}" for fold in folds):
        folder = validation / name
        found = [chip_id for chip_id in store.chip_ids if prediction_path(folder, chip_id).exists()]
        _check_names(folder, found)
        weights = set()
        for chip_id in found:
            target = store.read_target(store.chip_ids.index(chip_id))
            prediction = read_prediction(folder, chip_id, target.shape)
            weights.add(prediction.tags.get(WEIGHTS_TAG, "unnamed"))
            if np.isfinite(target).any():
                chips.append(
                    HeldOutChip.compare(chip_id, prediction.agbm, target, prediction.quantiles)
                )
        if len(weights) != 1 or weights == {"unnamed"}:
            raise ChipDataError(
                f"expected predictions of one model, got those of the weights"
                f" {', '.join(sorted(weights))}, at {folder}; delete it and run `dvc repro`"
            )
        models[name] = weights.pop()
    if len({chip.bounds is None for chip in chips}) > 1:
        raise ChipDataError(
            "expected predictions of models of one head, got quantiles beside them for some alone,"
            f" at {validation}; delete it and run `dvc repro`"
        )
    return sorted(chips, key=lambda chip: chip.chip_id), models


def _check_names(folder: Path, found: Sequence[str]) -> None:
    """Refuse a folder without predictions, or with those of chips that are not in the store."""
    if not found:
        raise ChipDataError(
            f"expected predictions of held-out chips, got none, at {folder}; run `dvc repro`"
        )
    expected = {prediction_path(folder, chip_id) for chip_id in found}
    unknown = sorted(path.name for path in folder.glob("*.tif") if path not in expected)
    if unknown:
        raise ChipDataError(
            f"expected predictions of train chips, got {name_few(unknown)}, at {folder};"
            " delete the folder and run `dvc repro`"
        )
