"""Sets of chips with the intervals to judge: no chip had a part in the calibration of its own."""

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from biomassters.calibration.calibration import Calibration
from biomassters.calibration.fitting import cross_calibrate
from biomassters.calibration.held_out import HeldOutChip
from biomassters.calibration.reading import read_held_out
from biomassters.errors import ChipDataError
from biomassters.evaluation.intervals import JudgedChip, JudgedSet
from biomassters.evaluation.scores import find_predicted
from biomassters.prediction.maps import prediction_path, read_prediction
from biomassters.store.chips import ChipStore

log = logging.getLogger(__name__)


def open_predictions(
    store: ChipStore, folder: Path, calibration: Calibration | None
) -> JudgedSet | None:
    """Return the predictions that carry their intervals, to be judged.

    Args:
        store: The chips, with their targets.
        folder: Of the predictions; each chip of the store has one.
        calibration: That the intervals are of; None = there are none.
    """
    if calibration is None:
        return None

    def read_chips() -> Iterator[JudgedChip]:
        for index, chip_id in enumerate(store.chip_ids):
            target = store.read_target(index)
            prediction = read_prediction(folder, chip_id, target.shape)
            if prediction.intervals is None:
                raise ChipDataError(
                    "expected a prediction with its intervals, as predict.calibration has some,"
                    f" got AGBM alone, at {prediction_path(folder, chip_id)}; run `dvc repro`"
                )
            yield JudgedChip(prediction.agbm, target, prediction.intervals, calibration)

    return JudgedSet(len(store), calibration.level, read_chips)


def open_held_out(
    store: ChipStore, validation: Path, folds: Sequence[int], calibration: Calibration | None
) -> dict[str, JudgedSet]:
    """Return each fold's held-out chips, to be judged, by the folds' names.

    Their predictions are what the calibration was made from, so each chip is judged by another one,
    of other chips alone.

    Args:
        store: The train chips.
        validation: The folder of the folds' folders.
        folds: Which of them.
        calibration: What maps are made with: the level is its own; None = there are no intervals.

    Returns:
        Nothing where there are no intervals; nothing, too, with a warning, where too few chips are
        left to judge them.
    """
    if calibration is None or not folds:
        return {}
    chips, _ = read_held_out(store, validation, folds)
    try:
        calibrations = cross_calibrate(chips, calibration.level, calibration.models)
    except ChipDataError as error:
        log.warning("the folds' intervals are not judged: %s", error)
        return {}
    judged = list(zip(chips, calibrations, strict=True))
    sets = {}
    for name in (f"fold-{fold}" for fold in folds):
        predicted = find_predicted(store, validation / name)
        own = [(chip, other) for chip, other in judged if chip.chip_id in predicted]
        sets[name] = JudgedSet(len(own), calibration.level, partial(_judge_held_out, own))
    return sets


def _judge_held_out(chips: Sequence[tuple[HeldOutChip, Calibration]]) -> Iterator[JudgedChip]:
    for chip, calibration in chips:
        yield JudgedChip(
            chip.prediction,
            chip.prediction + chip.error,
            calibration.intervals(chip.prediction, chip.bounds),
            calibration,
        )
