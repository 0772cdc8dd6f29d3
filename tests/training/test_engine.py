import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_trainers import (
    PoisonedStore,
    fit,
    make_recipe,
    make_trainer,
    no_workers_nor_repository,  # noqa: F401
    read_curve,
)
from tiny_training import (
    IDS,
    NO_AUGMENTATION,
    build_tiny_model,
    list_bytes,
    one_thread,  # noqa: F401
    optimise,
    pack_chips,
)

from biomassters.batches.order import EpochOrder, StoreOrder
from biomassters.batches.reading import open_batches
from biomassters.model.biomass_model import BiomassModel
from biomassters.store.chips import ChipStore
from biomassters.training import preparation
from biomassters.training.augmentation import draw_changes
from biomassters.training.losses import chip_losses


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ChipStore:
    return pack_chips(tmp_path_factory.mktemp("chips"), *IDS)


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


@pytest.mark.parametrize("head", ["mean", "quantiles"])
def test_a_few_steps_on_one_chip_lower_the_loss_clearly(
    store: ChipStore, tmp_path: Path, head: str
) -> None:
    recipe = make_recipe(lr=3e-3, phase={"epochs": 25}, augmentation=NO_AUGMENTATION)
    model = build_tiny_model(head=head)
    fit(make_trainer(store, recipe, model=model, indices=(1,)), tmp_path)
    losses = read_curve(tmp_path, "train/loss")
    assert losses[24] < 0.6 * losses[0]


def test_changes_of_a_chip_are_drawn_from_seed_epoch_and_chip(
    store: ChipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def spy(*arguments: Any) -> Any:
        drawn.append(arguments[1])
        return draw_changes(*arguments)

    monkeypatch.setattr(preparation, "draw_changes", spy)
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
        # Channels last in memory, as they train: other convolutions of torch round otherwise.
        images = images.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
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
        epochs.append(arguments[1][1])
        return draw_changes(*arguments)

    monkeypatch.setattr(preparation, "draw_changes", spy)
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
