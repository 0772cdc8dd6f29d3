"""Trainings that are interrupted, that end in an error, and that go on."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_trainers import (
    InterruptionError,
    PoisonedStore,
    fit,
    make_recipe,
    make_trainer,
    no_workers_nor_repository,  # noqa: F401
    read_curves,
)
from tiny_training import (
    IDS,
    list_bytes,
    one_thread,  # noqa: F401
    optimise,
    pack_chips,
)

from biomassters.batches.order import EpochOrder, StoreOrder
from biomassters.batches.reading import open_batches
from biomassters.errors import TrainingError
from biomassters.model.biomass_model import BiomassModel
from biomassters.store.chips import ChipStore
from biomassters.training.checkpoint import Checkpoints
from biomassters.training.engine import Trainer
from biomassters.training.validation import score_chips


class FailingCheckpoints(Checkpoints):
    """Fails at the checkpoint after an epoch."""

    def __init__(self, folder: Path, epoch: int) -> None:
        super().__init__(folder)
        self.epoch = epoch

    def save(self, state: dict[str, Any]) -> None:
        """Save, or fail."""
        if state["epoch"] == self.epoch:
            raise InterruptionError
        super().save(state)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ChipStore:
    return pack_chips(tmp_path_factory.mktemp("chips"), *IDS)


@pytest.fixture(scope="module")
def uninterrupted(
    store: ChipStore, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, bytes], dict[str, str]]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIOMASSTERS_WORKERS", "0")
        patch.chdir(folder)
        model = fit(make_validated_trainer(store), folder)
    return list_bytes(model), read_curves(folder)


def make_validated_trainer(store: ChipStore, interrupted_epoch: int = -1) -> Trainer:
    """Train four chips in two steps an epoch and score two; perhaps fail when scoring."""
    held_out = open_batches(store, StoreOrder([2, 3], 2))

    def validate(model: BiomassModel) -> dict[str, float]:
        if trainer.order.epoch == interrupted_epoch:
            raise InterruptionError
        scores = score_chips(model, held_out, store.chip_ids, {"tta": (0, 4)}, precision="fp32")
        return {"validation/chip_rmse": scores["tta"]["chip_rmse"]}

    recipe = make_recipe(optimisation=optimise(batch_size=2))
    trainer = make_trainer(store, recipe, validate=validate)
    return trainer


def test_training_twice_gives_the_same_bytes(
    store: ChipStore, tmp_path: Path, uninterrupted: tuple[dict[str, bytes], dict[str, str]]
) -> None:
    model = fit(make_validated_trainer(store), tmp_path)
    assert (list_bytes(model), read_curves(tmp_path)) == uninterrupted


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_training_interrupted_in_an_epoch_ends_with_the_same_bytes(
    store: ChipStore,
    tmp_path: Path,
    uninterrupted: tuple[dict[str, bytes], dict[str, str]],
    epoch: int,
) -> None:
    with pytest.raises(InterruptionError):
        fit(make_validated_trainer(store, interrupted_epoch=epoch), tmp_path)
    model = fit(make_validated_trainer(store), tmp_path)
    assert (list_bytes(model), read_curves(tmp_path)) == uninterrupted


@pytest.fixture(scope="module")
def everything(store: ChipStore, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("everything")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIOMASSTERS_WORKERS", "0")
        patch.chdir(folder)
        return list_bytes(fit(make_trainer_of_everything(store), folder))


def make_trainer_of_everything(store: ChipStore, interrupted_epoch: int = -1) -> Trainer:
    def validate(_: BiomassModel) -> dict[str, float]:
        if trainer.order.epoch == interrupted_epoch:
            raise InterruptionError
        return {"validation/chip_rmse": 5.0 - trainer.order.epoch}

    phase = {"epochs": 3, "warmup_epochs": 1, "frozen_encoder_epochs": 1, "plain_epochs": 1}
    optimisation = optimise(batch_size=4, micro_batch_size=2, ema_decay=0.9, batch_norm_chips=3)
    recipe = make_recipe(phase=phase, optimisation=optimisation)
    trainer = make_trainer(store, recipe, validate=validate)
    return trainer


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_training_with_everything_on_that_is_interrupted_ends_with_the_same_bytes(
    store: ChipStore, tmp_path: Path, everything: dict[str, bytes], epoch: int
) -> None:
    with pytest.raises(InterruptionError):
        fit(make_trainer_of_everything(store, interrupted_epoch=epoch), tmp_path)
    assert list_bytes(fit(make_trainer_of_everything(store), tmp_path)) == everything


def test_finished_training_with_everything_on_is_handed_over_again(
    store: ChipStore, tmp_path: Path, everything: dict[str, bytes]
) -> None:
    for _ in range(2):
        assert list_bytes(fit(make_trainer_of_everything(store), tmp_path)) == everything


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_epoch_recorded_but_not_saved_is_recorded_once(
    store: ChipStore,
    tmp_path: Path,
    uninterrupted: tuple[dict[str, bytes], dict[str, str]],
    epoch: int,
) -> None:
    with pytest.raises(InterruptionError):
        make_validated_trainer(store).fit(FailingCheckpoints(tmp_path, epoch), tmp_path / "curves")
    model = fit(make_validated_trainer(store), tmp_path)
    assert (list_bytes(model), read_curves(tmp_path)) == uninterrupted


def test_finished_training_is_handed_over_again_with_what_was_kept(
    store: ChipStore, tmp_path: Path, uninterrupted: tuple[dict[str, bytes], dict[str, str]]
) -> None:
    first, second = make_validated_trainer(store), make_validated_trainer(store)
    fit(first, tmp_path)
    assert list_bytes(fit(second, tmp_path)) == uninterrupted[0]
    assert read_curves(tmp_path) == uninterrupted[1]
    kept = first.keeper.weights
    assert all(torch.equal(tensor, kept[name]) for name, tensor in second.keeper.weights.items())


@pytest.mark.parametrize("step", [0, 1])
def test_loss_that_is_not_finite_names_epoch_step_and_chip(
    store: ChipStore, tmp_path: Path, step: int
) -> None:
    poisoned = PoisonedStore.open(store.path)
    recipe = make_recipe(phase={"epochs": 2})
    order = EpochOrder([0, 1, 2, 3], batch_size=2, micro_batch_size=2, seed=recipe.seed)
    order.epoch = 1
    batch = list(order)[step]

    def validate(_: BiomassModel) -> dict[str, float]:
        poisoned.poisoned = batch[0]
        return {}

    chip = IDS[batch[0]]
    with pytest.raises(TrainingError, match=f"got inf at epoch 1, step {step}, chips {chip};"):
        fit(make_trainer(poisoned, recipe, validate=validate), tmp_path)
    state = Checkpoints(tmp_path).load()
    assert state is not None
    assert state["epoch"] == 0
    assert all(tensor.isfinite().all() for tensor in state["model"].values())
    poisoned.poisoned = None
    resumed = fit(make_trainer(poisoned, recipe, validate=lambda _: {}), tmp_path)
    whole = fit(make_trainer(store, recipe), tmp_path / "whole")
    assert list_bytes(resumed) == list_bytes(whole)


def test_weights_that_the_last_step_spoils_are_not_saved(store: ChipStore, tmp_path: Path) -> None:
    recipe = make_recipe(lr=1e39, phase={"epochs": 2}, optimisation=optimise(batch_size=4))
    with pytest.raises(TrainingError, match=r"expected finite weights, .* after epoch 0; lower lr"):
        fit(make_trainer(store, recipe), tmp_path)
    assert Checkpoints(tmp_path).load() is None
