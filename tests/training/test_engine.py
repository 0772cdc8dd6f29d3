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
    run_phase,
)

from biomassters.batches.order import EpochOrder, StoreOrder
from biomassters.batches.reading import open_batches
from biomassters.errors import TrainingError
from biomassters.model.biomass_model import BiomassModel
from biomassters.store.chips import Chip, ChipArrays, ChipStore
from biomassters.training import engine
from biomassters.training.augmentation import augment
from biomassters.training.checkpoint import Checkpoints
from biomassters.training.engine import Recipe, Trainer
from biomassters.training.kept_weights import BestWeights
from biomassters.training.losses import chip_losses
from biomassters.training.optimisation import Schedule
from biomassters.training.validation import score_chips

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
    monkeypatch.setenv("BIOMASSTERS_WORKERS", "0")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ChipStore:
    return pack_chips(tmp_path_factory.mktemp("chips"), *IDS)


def make_recipe(
    *, lr: float = 1e-3, phase: Mapping[str, Any] | None = None, **changes: Any
) -> Recipe:
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
    return Trainer(
        model=model or build_tiny_model(),
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


@pytest.mark.parametrize(("clip_norm", "clipped"), [(1e-3, True), (1e9, False)])
def test_gradients_are_clipped(
    store: ChipStore, tmp_path: Path, clip_norm: float, clipped: bool
) -> None:
    recipe = make_recipe(
        phase={"epochs": 1}, optimisation=optimise(batch_size=4, clip_norm=clip_norm)
    )
    model = fit(make_trainer(store, recipe), tmp_path)
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    assert (norm.item() == pytest.approx(1e-3, rel=1e-3)) is clipped
    assert (norm.item() > 0.1) is not clipped


def test_a_few_steps_on_one_chip_lower_the_loss_clearly(store: ChipStore, tmp_path: Path) -> None:
    recipe = make_recipe(lr=3e-3, phase={"epochs": 25}, augmentation=NO_AUGMENTATION)
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
    fit(make_trainer(store, make_recipe(phase={"epochs": 2})), tmp_path)
    assert sorted(drawn) == [(5, epoch, index) for epoch in range(2) for index in range(4)]


@pytest.mark.parametrize(
    ("loss", "target_scaling", "value_range"),
    [("rmse", "standard", 400), ("huber", "log", math.log(401)), ("mae_ssim", "sqrt", 20)],
)
def test_recorded_values_are_those_of_the_epoch(
    store: ChipStore, tmp_path: Path, loss: str, target_scaling: str, value_range: float
) -> None:
    recipe = make_recipe(
        phase={"epochs": 2}, augmentation=NO_AUGMENTATION, optimisation=optimise(loss=loss)
    )
    model, twin = (build_tiny_model(target_scaling=target_scaling) for _ in range(2))
    trainer = make_trainer(store, recipe, model=model, indices=(1,))
    [batch] = open_batches(store, StoreOrder([1], 1))
    images = twin.normalise(batch.s1, batch.s2, batch.s2_present)
    [expected] = chip_losses(
        loss,
        twin.train().predict_scaled(images),
        twin.scale_target(batch.target),
        batch.target < 400,
        value_range=value_range,
    ).tolist()
    fit(trainer, tmp_path)
    assert read_curve(tmp_path, "train/loss")[0] == pytest.approx(expected, rel=1e-5)
    assert read_curve(tmp_path, "train/lr") == pytest.approx({0: 1e-3, 1: 5.005e-4})
    assert min(read_curve(tmp_path, "train/chips_per_second").values()) > 0


def test_validation_happens_every_n_epochs_and_at_the_last(
    store: ChipStore, tmp_path: Path
) -> None:
    modes = []

    def validate(model: BiomassModel) -> dict[str, float]:
        modes.append(model.training)
        return {"validation/chip_rmse": float(len(modes))}

    recipe = make_recipe(
        phase={"epochs": 5}, validation_every=2, optimisation=optimise(batch_size=4)
    )
    fit(make_trainer(store, recipe, validate=validate), tmp_path)
    assert read_curve(tmp_path, "validation/chip_rmse") == {1: 1.0, 3: 2.0, 4: 3.0}
    assert modes == [False] * 3


def list_gradients(model: BiomassModel) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def take_one_step(
    store: ChipStore, folder: Path, *, micro_batch_size: int, model: BiomassModel
) -> BiomassModel:
    """Train on four chips in one step, unclipped; the gradients stay where they are."""
    optimisation = optimise(batch_size=4, micro_batch_size=micro_batch_size, clip_norm=1e9)
    recipe = make_recipe(
        phase={"epochs": 1}, optimisation=optimisation, augmentation=NO_AUGMENTATION
    )
    return fit(make_trainer(store, recipe, model=model), folder)


def keep_norms_in_evaluation_mode(model: BiomassModel) -> BiomassModel:
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
            module.train = lambda _=True, module=module: module
    return model


def test_micro_batches_add_up_to_a_batch_where_norms_are_fixed(
    store: ChipStore, tmp_path: Path
) -> None:
    models = [
        take_one_step(
            store,
            tmp_path / str(size),
            micro_batch_size=size,
            model=keep_norms_in_evaluation_mode(build_tiny_model()),
        )
        for size in (4, 2, 1)
    ]
    whole, *others = map(list_gradients, models)
    for gradients in others:
        torch.testing.assert_close(gradients, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("without_target", [None, 0, 3])
def test_step_descends_the_mean_over_chips_that_were_normalised_by_micro_batch(
    store: ChipStore, tmp_path: Path, without_target: int | None
) -> None:
    store = PoisonedStore.open(store.path)
    store.poisoned, store.poison = without_target, math.nan
    twin = build_tiny_model().train()
    model = take_one_step(store, tmp_path, micro_batch_size=2, model=build_tiny_model())
    order = EpochOrder([0, 1, 2, 3], batch_size=4, micro_batch_size=2, seed=5)
    losses = []
    for batch in open_batches(store, order):
        images = twin.normalise(batch.s1, batch.s2, batch.s2_present)
        valid = batch.target < 400
        losses.append(chip_losses("rmse", twin(images), batch.target, valid, value_range=400))
    n_chips = 4 if without_target is None else 3
    (torch.cat(losses).sum() / n_chips).backward()
    torch.testing.assert_close(list_gradients(model), list_gradients(twin), rtol=1e-4, atol=1e-4)
    for name, buffer in twin.named_buffers():
        torch.testing.assert_close(model.get_buffer(name), buffer)


def test_moving_average_is_validated_kept_and_handed_over(store: ChipStore, tmp_path: Path) -> None:
    seen = []

    def validate(model: BiomassModel) -> dict[str, float]:
        seen.append(list_bytes(model))
        return {"validation/chip_rmse": 1.0}

    start = build_tiny_model().state_dict()
    plain, averaged = (
        make_recipe(phase={"epochs": 1}, optimisation=optimise(batch_size=4, ema_decay=ema_decay))
        for ema_decay in (0.0, 0.5)
    )
    stepped = fit(make_trainer(store, plain), tmp_path / "plain").state_dict()
    trainer = make_trainer(store, averaged, validate=validate)
    model = fit(trainer, tmp_path / "averaged")
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():  # after one update, of decay 2/11
            expected = start[name] * 2 / 11 + stepped[name] * 9 / 11
            torch.testing.assert_close(tensor, expected)
        else:
            assert torch.equal(tensor, stepped[name])
    assert seen == [list_bytes(model)]
    assert {name: t.numpy().tobytes() for name, t in trainer.keeper.weights.items()} == seen[0]


def test_frozen_encoder_stays_as_it_is_and_learns_afterwards(
    store: ChipStore, tmp_path: Path
) -> None:
    states = [list_bytes(build_tiny_model())]

    def validate(model: BiomassModel) -> dict[str, float]:
        states.append(list_bytes(model))
        return {}

    recipe = make_recipe(phase={"epochs": 3, "frozen_encoder_epochs": 2})
    fit(make_trainer(store, recipe, validate=validate), tmp_path)
    for epoch, is_frozen in enumerate([True, True, False]):
        before, after = states[epoch], states[epoch + 1]
        changed = {name for name in before if before[name] != after[name]}
        encoder = {name for name in before if name.startswith("network.encoder.")}
        assert bool(changed & encoder) is not is_frozen
        assert "network.segmentation_head.weight" in changed
        assert any(name.startswith("network.decoder") and "running" in name for name in changed)
    assert len(changed & encoder) > 0.8 * len(encoder)


def test_last_plain_epochs_are_not_augmented(
    store: ChipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = []

    def spy(*arguments: Any) -> Any:
        epochs.extend(epoch for _, epoch, _ in arguments[3])
        return augment(*arguments)

    monkeypatch.setattr(engine, "augment", spy)
    recipe = make_recipe(
        phase={"epochs": 3, "plain_epochs": 2}, optimisation=optimise(batch_size=4)
    )
    fit(make_trainer(store, recipe), tmp_path)
    assert epochs == [0] * 4


@pytest.mark.parametrize("is_asked", [False, True])
def test_network_is_compiled_if_asked(
    store: ChipStore, monkeypatch: pytest.MonkeyPatch, is_asked: bool
) -> None:
    compiled = []
    monkeypatch.setattr(BiomassModel, "compile_network", lambda _: compiled.append(True))
    make_trainer(store, make_recipe(optimisation=optimise(compile=is_asked)))
    assert bool(compiled) is is_asked


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_on_the_cpu(store: ChipStore, tmp_path: Path, precision: str) -> None:
    for name in ("fp32", precision):
        recipe = make_recipe(
            phase={"epochs": 1}, optimisation=optimise(batch_size=4, precision=name)
        )
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
        scores = score_chips(model, held_out, store.chip_ids, {"tta": (0, 4)}, precision="fp32")
        return {"validation/chip_rmse": scores["tta"]["chip_rmse"]}

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
    optimisation = optimise(batch_size=2, micro_batch_size=1, ema_decay=0.9)
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
