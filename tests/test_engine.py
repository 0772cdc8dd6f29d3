import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import (
    AUGMENTATION,
    IDS,
    NO_AUGMENTATION,
    build_tiny_model,
    list_bytes,
    one_thread,  # noqa: F401
    optimise,
    pack_chips,
)

from biomassters import engine
from biomassters.augmentation import augment
from biomassters.batches import EpochOrder, StoreOrder, open_batches
from biomassters.checkpoint import Checkpoints
from biomassters.chips import Chip, ChipStore
from biomassters.engine import Recipe, Trainer, build_optimizer, cosine_lr
from biomassters.errors import TrainingError
from biomassters.inference import score_chips
from biomassters.losses import chip_rmse_loss
from biomassters.model import BiomassModel
from biomassters.selection import BestWeights

Validate = Callable[[BiomassModel], Mapping[str, float]]


class InterruptionError(Exception):
    """What stops a training here."""


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


class PoisonedStore(ChipStore):
    """Once `poisoned` is set, that chip has a target of minus infinity."""

    poisoned: int | None = None

    def read_chip(self, index: int) -> Chip:
        """Read a chip, perhaps a poisoned one."""
        chip = super().read_chip(index)
        if index == self.poisoned and chip.agbm is not None:
            chip.agbm.fill(-math.inf)
        return chip


@pytest.fixture(autouse=True)
def no_workers_nor_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIOMASSTERS_WORKERS", "0")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ChipStore:
    return pack_chips(tmp_path_factory.mktemp("chips"), *IDS)


def make_recipe(**changes: Any) -> Recipe:
    defaults = {
        "lr": 1e-3,
        "lr_min": 1e-6,
        "epochs": 3,
        "seed": 5,
        "optimisation": optimise(),
        "augmentation": AUGMENTATION,
    }
    return Recipe(**{**defaults, **changes})


def make_trainer(
    store: ChipStore,
    recipe: Recipe,
    *,
    indices: tuple[int, ...] = (0, 1, 2, 3),
    validate: Validate | None = None,
) -> Trainer:
    return Trainer(
        model=build_tiny_model(),
        store=store,
        indices=list(indices),
        recipe=recipe,
        keeper=BestWeights("validation/chip_rmse"),
        validate=validate,
    )


def fit(trainer: Trainer, folder: Path) -> BiomassModel:
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
    rows = (folder / "curves/plots/metrics" / f"{name}.tsv").read_text().splitlines()[1:]
    return {int(step): float(value) for step, value in (row.split("\t") for row in rows)}


@pytest.mark.parametrize(
    ("epoch", "lr"), [(0, 1e-3), (1, 8.6819805e-4), (2, 5.5e-4), (3, 2.3180195e-4), (4, 1e-4)]
)
def test_cosine_leads_from_lr_to_lr_min(epoch: float, lr: float) -> None:
    recipe = make_recipe(epochs=4, lr_min=1e-4)
    assert cosine_lr(recipe, epoch) == pytest.approx(lr, rel=1e-7)


@pytest.mark.parametrize("epoch", [0, 1.3, 3])
def test_lr_min_above_lr_leaves_lr_as_it_is(epoch: float) -> None:
    assert cosine_lr(make_recipe(lr=1e-4, lr_min=1e-2), epoch) == 1e-4


def test_every_trainable_parameter_is_in_one_group_of_the_optimizer() -> None:
    model = build_tiny_model()
    frozen = model.network.segmentation_head.weight.requires_grad_(False)
    grouped = [p for g in build_optimizer(model, 1e-3, 0.01).param_groups for p in g["params"]]
    trainable = [p for p in model.parameters() if p.requires_grad]
    assert not any(p is frozen for p in grouped)
    assert sorted(map(id, grouped)) == sorted(map(id, trainable))


def test_biases_and_norms_do_not_decay() -> None:
    model = build_tiny_model()
    decaying, others = build_optimizer(model, 1e-3, 0.01).param_groups
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.01, 0.0)
    norms = (torch.nn.BatchNorm2d, torch.nn.LayerNorm)
    expected = {
        id(parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.requires_grad and (name.endswith("bias") or isinstance(module, norms))
    }
    assert {id(parameter) for parameter in others["params"]} == expected
    assert len(decaying["params"]) > 50


@pytest.mark.parametrize(("clip_norm", "clipped"), [(1e-3, True), (1e9, False)])
def test_gradients_are_clipped(
    store: ChipStore, tmp_path: Path, clip_norm: float, clipped: bool
) -> None:
    recipe = make_recipe(epochs=1, optimisation=optimise(batch_size=4, clip_norm=clip_norm))
    model = fit(make_trainer(store, recipe), tmp_path)
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    assert (norm.item() == pytest.approx(1e-3, rel=1e-3)) is clipped
    assert (norm.item() > 0.1) is not clipped


def test_a_few_steps_on_one_chip_lower_the_loss_clearly(store: ChipStore, tmp_path: Path) -> None:
    recipe = make_recipe(lr=3e-3, epochs=25, augmentation=NO_AUGMENTATION)
    fit(make_trainer(store, recipe, indices=(1,)), tmp_path)
    losses = read_curve(tmp_path, "train/loss")
    assert losses[24] < 0.6 * losses[0]


def test_changes_of_a_chip_are_drawn_from_seed_epoch_and_chip(
    store: ChipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def spy(*arguments: Any) -> Any:
        drawn.extend(arguments[3])
        return augment(*arguments)

    monkeypatch.setattr(engine, "augment", spy)
    fit(make_trainer(store, make_recipe(epochs=2)), tmp_path)
    assert sorted(drawn) == [(5, epoch, index) for epoch in range(2) for index in range(4)]


def test_recorded_values_are_those_of_the_epoch(store: ChipStore, tmp_path: Path) -> None:
    recipe = make_recipe(epochs=2, augmentation=NO_AUGMENTATION)
    trainer = make_trainer(store, recipe, indices=(1,))
    [batch] = open_batches(store, StoreOrder([1], 1))
    model = build_tiny_model().train()
    images = model.normalise(batch.s1, batch.s2, batch.s2_present)
    loss = chip_rmse_loss(model(images), batch.target, 400).item()
    fit(trainer, tmp_path)
    assert read_curve(tmp_path, "train/loss")[0] == pytest.approx(loss, rel=1e-6)
    assert read_curve(tmp_path, "train/lr") == pytest.approx({0: 1e-3, 1: 5.005e-4})
    assert min(read_curve(tmp_path, "train/chips_per_second").values()) > 0


def test_validation_happens_every_n_epochs_and_at_the_last(
    store: ChipStore, tmp_path: Path
) -> None:
    modes = []

    def validate(model: BiomassModel) -> dict[str, float]:
        modes.append(model.training)
        return {"validation/chip_rmse": float(len(modes))}

    recipe = make_recipe(epochs=5, validation_every=2, optimisation=optimise(batch_size=4))
    fit(make_trainer(store, recipe, validate=validate), tmp_path)
    assert read_curve(tmp_path, "validation/chip_rmse") == {1: 1.0, 3: 2.0, 4: 3.0}
    assert modes == [False] * 3


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_on_the_cpu(store: ChipStore, tmp_path: Path, precision: str) -> None:
    for name in ("fp32", precision):
        recipe = make_recipe(epochs=1, optimisation=optimise(batch_size=4, precision=name))
        fit(make_trainer(store, recipe), tmp_path / name)
    exact, rounded = (read_curve(tmp_path / name, "train/loss")[0] for name in ("fp32", precision))
    assert rounded == pytest.approx(exact, rel=0.05)
    assert rounded != exact


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
    """Train two chips in two steps an epoch and score the others; perhaps fail when scoring."""
    held_out = open_batches(store, StoreOrder([2, 3], 2))

    def validate(model: BiomassModel) -> dict[str, float]:
        if trainer.order.epoch == interrupted_epoch:
            raise InterruptionError
        scores = score_chips(model, held_out, store.chip_ids, (0, 4), precision="fp32")
        return {"validation/chip_rmse": scores["chip_rmse"]}

    recipe = make_recipe(optimisation=optimise(batch_size=1))
    trainer = make_trainer(store, recipe, indices=(0, 1), validate=validate)
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
def test_loss_that_is_not_finite_names_epoch_step_and_chips(
    store: ChipStore, tmp_path: Path, step: int
) -> None:
    poisoned = PoisonedStore.open(store.path)
    recipe = make_recipe(epochs=2)
    order = EpochOrder([0, 1, 2, 3], 2, recipe.seed)
    order.epoch = 1
    batch = list(order)[step]

    def validate(_: BiomassModel) -> dict[str, float]:
        poisoned.poisoned = batch[0]
        return {}

    chips = ", ".join(IDS[index] for index in batch)
    with pytest.raises(TrainingError, match=f"got inf at epoch 1, step {step}, chips {chips};"):
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
    recipe = make_recipe(lr=1e39, epochs=2, optimisation=optimise(batch_size=4))
    with pytest.raises(TrainingError, match=r"expected finite weights, .* after epoch 0; lower lr"):
        fit(make_trainer(store, recipe), tmp_path)
    assert Checkpoints(tmp_path).load() is None
