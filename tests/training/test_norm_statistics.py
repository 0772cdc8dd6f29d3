import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_trainers import fit, make_recipe, make_trainer
from tiny_training import (
    IDS,
    build_tiny_model,
    list_bytes,
    no_workers,  # noqa: F401
    one_thread,  # noqa: F401
    optimise,
    pack_chips,
)
from together import run_together
from torch import Tensor, nn

from biomassters.batches.distributed import ALONE, Processes, join_processes
from biomassters.batches.order import StoreOrder
from biomassters.batches.reading import open_batches
from biomassters.model.biomass_model import BiomassModel
from biomassters.store.chips import ChipStore
from biomassters.training import norm_statistics
from biomassters.training.norm_statistics import TrainChips
from biomassters.training.shared_norms import synchronise

CHIPS = [0, 1, 2, 3]
STATISTICS = ("running_mean", "running_var")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ChipStore:
    return pack_chips(tmp_path_factory.mktemp("chips"), *IDS)


def make_chips(store: ChipStore, n_chips: int = 4, processes: Processes = ALONE) -> TrainChips:
    return TrainChips(store, CHIPS, n_chips=n_chips, seed=5, precision="fp32", processes=processes)


def list_statistics(model: nn.Module) -> dict[str, Tensor]:
    state = model.state_dict().items()
    return {name: value.clone() for name, value in state if name.endswith(STATISTICS)}


def find_stem(model: BiomassModel) -> Any:
    return model.network.encoder.model.bn1


def spoil(model: BiomassModel) -> BiomassModel:
    """Give a model statistics that have nothing to do with any chip."""
    for name, value in model.state_dict().items():
        if name.endswith(STATISTICS):
            value.fill_(7.0)
    return model


def test_statistics_are_mean_and_variance_of_what_a_norm_sees_of_the_chips(
    store: ChipStore,
) -> None:
    model, seen = build_tiny_model(), []
    find_stem(model).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    make_chips(store).recompute(model, epoch=0)
    [images] = seen  # all four chips in one pass
    assert len(images) == 4 * 12
    mean, variance = images.mean((0, 2, 3)), images.var((0, 2, 3))
    torch.testing.assert_close(find_stem(model).running_mean, mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(find_stem(model).running_var, variance, rtol=1e-5, atol=1e-6)


def test_statistics_before_have_no_part_and_all_else_stays(store: ChipStore) -> None:
    sound, spoilt = build_tiny_model(), spoil(build_tiny_model())
    before = list_bytes(spoilt)
    for model in (sound, spoilt):
        make_chips(store).recompute(model, epoch=0)
        assert not any(module.training for module in model.modules())
        assert find_stem(model).momentum == 0.1
    assert list_bytes(sound) == list_bytes(spoilt)
    changed = {name for name, value in list_bytes(spoilt).items() if value != before[name]}
    assert changed == set(list_statistics(spoilt))


def test_several_passes_are_averaged(store: ChipStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norm_statistics, "PASS_CHIPS", 2)
    model, chips = build_tiny_model(), make_chips(store)
    chips.recompute(model, epoch=0)
    got, of_passes = list_statistics(model), []
    for indices in chips.draw(0):
        TrainChips(store, indices, n_chips=2, seed=5, precision="fp32").recompute(model, epoch=0)
        of_passes.append(list_statistics(model))
    assert len(of_passes) == 2
    for name, value in got.items():
        mean = (of_passes[0][name] + of_passes[1][name]) / 2
        torch.testing.assert_close(value, mean, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("n_chips", "sizes"), [(1, [1]), (32, [32]), (33, [16, 16]), (64, [32, 32]), (97, [24] * 4)]
)
def test_chips_are_drawn_in_passes_of_one_size(
    store: ChipStore, n_chips: int, sizes: list[int]
) -> None:
    chips = TrainChips(store, list(range(200)), n_chips=n_chips, seed=5, precision="fp32")
    passes = list(chips.draw(3))
    assert [len(indices) for indices in passes] == sizes
    assert len({index for indices in passes for index in indices}) == sum(sizes)
    assert passes == list(chips.draw(3)) != list(chips.draw(4))


def test_no_chips_leave_the_statistics_as_they_are(store: ChipStore) -> None:
    model = build_tiny_model()
    before = list_bytes(model)
    make_chips(store, n_chips=0).recompute(model, epoch=0)
    assert list_bytes(model) == before


def test_frozen_encoder_keeps_its_statistics(store: ChipStore) -> None:
    model = spoil(build_tiny_model())
    model.freeze_encoder(True)
    make_chips(store).recompute(model, epoch=0)
    for name, value in list_statistics(model).items():
        assert (value == 7).all().item() is name.startswith("network.encoder."), name


def test_training_validates_and_hands_over_the_statistics_of_its_chips(
    store: ChipStore, tmp_path: Path
) -> None:
    seen = []

    def validate(model: BiomassModel) -> dict[str, float]:
        seen.append(list_statistics(model))
        return {"validation/chip_rmse": 9.0 - len(seen)}

    optimisation = optimise(batch_norm_chips=4)
    recipe = make_recipe(optimisation=optimisation, validation_every=2)
    trainer = make_trainer(store, recipe, validate=validate)
    model = fit(trainer, tmp_path)
    assert len(seen) == 2  # after the epochs 1 and 2
    kept = list_statistics(model)
    make_chips(store).recompute(spoil(model), epoch=2)
    for name, value in list_statistics(model).items():
        assert torch.equal(value, kept[name])
        assert torch.equal(value, seen[1][name])
        assert torch.equal(value, trainer.keeper.weights[name])


def test_new_statistics_change_no_step_of_the_training(store: ChipStore, tmp_path: Path) -> None:
    plain, recomputed = (
        fit(
            make_trainer(
                store,
                make_recipe(optimisation=optimise(batch_norm_chips=n_chips)),
                validate=lambda _: {"validation/chip_rmse": 1.0},
            ),
            tmp_path / str(n_chips),
        )
        for n_chips in (0, 4)
    )
    assert [p.tolist() for p in plain.parameters()] == [p.tolist() for p in recomputed.parameters()]
    assert list_bytes(plain) != list_bytes(recomputed)


def recompute_as_one_of_two(folder: str) -> dict[str, list[float]]:
    """Two processes that share micro-batches; three passes, of which the first has two."""
    os.environ["BIOMASSTERS_WORKERS"] = "0"
    norm_statistics.PASS_CHIPS = 1  # type: ignore[misc]
    store = ChipStore.open(Path(folder) / "train.zarr")
    with join_processes() as processes:
        model = build_tiny_model()
        synchronise(model, processes.divide(1))
        make_chips(store, 3, processes).recompute(model, epoch=0)
        return {name: value.tolist() for name, value in list_statistics(model).items()}


def test_processes_share_the_passes_and_have_the_statistics_of_one(
    store: ChipStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(norm_statistics, "PASS_CHIPS", 1)
    alone = build_tiny_model()
    make_chips(store, 3).recompute(alone, epoch=0)
    for got in run_together(__name__, "recompute_as_one_of_two", str(store.path.parent)):
        for name, value in list_statistics(alone).items():
            torch.testing.assert_close(torch.tensor(got[name]), value, rtol=1e-4, atol=1e-6)


def test_evaluation_predicts_what_training_does_once_statistics_are_those_of_the_chips(
    store: ChipStore,
) -> None:
    """But that training normalises by the variance of a batch, and keeps the unbiased one."""
    model, [batch] = spoil(build_tiny_model()), open_batches(store, StoreOrder(CHIPS, 4))
    images, n_values = model.normalise(batch.s1, batch.s2, batch.s2_present), {}
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.register_forward_pre_hook(
            lambda norm, inputs: n_values.update({norm: inputs[0][:, 0].numel()})
        )
    with torch.no_grad():
        as_in_training = model.train()(images)
        make_chips(store).recompute(model, epoch=0)
        for norm in norms:
            norm.running_var *= (n_values[norm] - 1) / n_values[norm]
        got = model(images)
    assert (got - as_in_training).std() < 1e-3 * as_in_training.std()
