"""Trainers of a tiny model on a few chips, what interrupts them, and what they recorded."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny_training import AUGMENTATION, build_tiny_model, optimise, run_phase

from biomassters.model.biomass_model import BiomassModel
from biomassters.store.chips import Chip, ChipArrays, ChipStore
from biomassters.training.checkpoint import Checkpoints
from biomassters.training.engine import Recipe, Trainer
from biomassters.training.kept_weights import BestWeights
from biomassters.training.optimisation import Schedule

Validate = Callable[[BiomassModel], Mapping[str, float]]


class InterruptionError(Exception):
    """What stops a training here."""


class PoisonedStore(ChipStore):
    """Once `poisoned` is set, that chip has a target of minus infinity, or of another value."""

    poisoned: int | None = None
    poison: float = -math.inf

    def read_chip(self, index: int, into: ChipArrays | None = None) -> Chip:
        """Read a chip, perhaps a poisoned one."""
        chip = super().read_chip(index, into)
        if index == self.poisoned and chip.agbm is not None:
            chip.agbm.fill(self.poison)
        return chip


@pytest.fixture(autouse=True)
def no_workers_nor_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read chips in the main thread, and train outside of this repository."""
    monkeypatch.setenv("BIOMASSTERS_WORKERS", "0")
    monkeypatch.chdir(tmp_path)


def make_recipe(
    *, lr: float = 1e-3, phase: Mapping[str, Any] | None = None, **changes: Any
) -> Recipe:
    """Return a recipe of three epochs with everything that augments, with changes."""
    defaults = {
        "schedule": Schedule(lr=lr, phase=run_phase(**(phase or {}))),
        "seed": 5,
        "optimisation": optimise(),
        "augmentation": AUGMENTATION,
    }
    return Recipe(**{**defaults, **changes})


def make_trainer(
    store: ChipStore,
    recipe: Recipe,
    *,
    model: BiomassModel | None = None,
    indices: tuple[int, ...] = (0, 1, 2, 3),
    validate: Validate | None = None,
) -> Trainer:
    """Return a trainer that keeps the best weights by `validation/chip_rmse`."""
    return Trainer(
        model=model or build_tiny_model(),
        store=store,
        indices=list(indices),
        recipe=recipe,
        keeper=BestWeights("validation/chip_rmse"),
        validate=validate,
    )


def fit(trainer: Trainer, folder: Path) -> BiomassModel:
    """Train, with checkpoints and curves in a folder; return the model."""
    folder.mkdir(exist_ok=True)
    trainer.fit(Checkpoints(folder), folder / "curves")
    return trainer.model


def read_curves(folder: Path) -> dict[str, str]:
    """Return the curve files, without what depends on the clock."""
    paths = sorted((folder / "curves").rglob("*.tsv"))
    files = {str(path.relative_to(folder)): path.read_text() for path in paths}
    summary = json.loads((folder / "curves/metrics.json").read_text())
    del summary["train"]["chips_per_second"]
    kept = {name: text for name, text in files.items() if "chips_per_second" not in name}
    return {**kept, "metrics.json": json.dumps(summary)}


def read_curve(folder: Path, name: str) -> dict[int, float]:
    """Return one curve by step."""
    rows = (folder / "curves/plots/metrics" / f"{name}.tsv").read_text().splitlines()[1:]
    return {int(step): float(value) for step, value in (row.split("\t") for row in rows)}
