"""How trainings went, epoch by epoch, as DVCLive recorded it; all of them in one table."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

Curve: TypeAlias = dict[int, float]
"""Values by epoch, counted from 0."""

COLUMNS: Final = ("training", "epoch", "loss", "chip_rmse", "chip_rmse_tta")


@dataclass(frozen=True)
class Training:
    """A training's curves.

    Attributes:
        name: `fold 0`, say, or `finetune`.
        loss: Mean over steps, where the target scaling takes it.
        chip_rmse: Of the held-out chips, t/ha; of the epochs with a validation.
        chip_rmse_tta: The same with TTA.
    """

    name: str
    loss: Curve
    chip_rmse: Curve
    chip_rmse_tta: Curve


def read_trainings(metrics: Path, folds: Iterable[int]) -> list[Training]:
    """Read the trainings of the folds and the final one; without a file a curve is empty."""
    folders = {f"fold {fold}": metrics / f"train/{fold}" for fold in folds}
    folders["finetune"] = metrics / "finetune"
    return [_read_training(name, folder / "plots/metrics") for name, folder in folders.items()]


def read_curve(path: Path) -> Curve:
    """Read a curve that DVCLive wrote; an empty one where there is no file."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter="\t")
        next(rows, None)
        return {int(step): float(value) for step, value in rows}


def tabulate_trainings(trainings: Sequence[Training]) -> str:
    """Return a row of `COLUMNS` for each epoch of each training, as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for training in trainings:
        curves = training.loss, training.chip_rmse, training.chip_rmse_tta
        for epoch in sorted({epoch for curve in curves for epoch in curve}):
            values = (curve.get(epoch) for curve in curves)
            cells = ("" if value is None else f"{value:.4f}" for value in values)
            writer.writerow([training.name, epoch, *cells])
    return text.getvalue()


def _read_training(name: str, folder: Path) -> Training:
    curves = ("train/loss", "validation/chip_rmse", "validation/chip_rmse_tta")
    return Training(name, *(read_curve(folder / f"{curve}.tsv") for curve in curves))
