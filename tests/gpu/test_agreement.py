"""What is computed or copied on a GPU is what a CPU computes and holds."""

import copy

import numpy as np
import pytest
import torch
from tiny_trainers import make_recipe, make_trainer
from tiny_training import (
    build_tiny_model,
    evaluated_model,  # noqa: F401
    no_workers,  # noqa: F401
    one_thread,  # noqa: F401
    optimise,
    three_chips,  # noqa: F401
)
from tqdm import tqdm

from biomassters.batches.order import StoreOrder
from biomassters.batches.reading import open_batches, prefetch
from biomassters.model.biomass_model import BiomassModel
from biomassters.model.execution import place_model
from biomassters.prediction.inference import predict_batches
from biomassters.store.chips import ChipStore

pytestmark = pytest.mark.gpu


def test_predictions_are_those_of_the_cpu(
    store: ChipStore, model: BiomassModel, device: torch.device
) -> None:
    batches = open_batches(store, StoreOrder([2, 0, 1], 1))
    expected = list(predict_batches([model], batches, (0, 4), precision="fp32"))
    placed = place_model(copy.deepcopy(model), device)
    found = list(predict_batches([placed], batches, (0, 4), precision="fp32"))
    for (index, got, target, _), (wanted_index, wanted, truth, _) in zip(
        found, expected, strict=True
    ):
        assert index == wanted_index
        np.testing.assert_allclose(got, wanted, rtol=1e-2, atol=0.1)  # TF32
        np.testing.assert_array_equal(target, truth)


def test_prefetched_batches_are_those_of_the_store_with_positions_on_the_cpu(
    store: ChipStore, device: torch.device
) -> None:
    batches = open_batches(store, StoreOrder([2, 0, 1], 1))
    fetched = list(prefetch(batches, device))
    for batch in fetched:
        assert {batch.s1.device.type, batch.s2.device.type} == {device.type}
        assert not batch.chip_index.is_cuda
        assert not batch.s2_present.is_cuda
    for got, expected in zip(fetched, batches, strict=True):
        assert all(torch.equal(a.cpu(), b) for a, b in zip(got[:4], expected[:4], strict=True))


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 0.01), ("bf16", 0.05)])
def test_epochs_of_training_have_the_losses_of_the_cpu(
    store: ChipStore, device: torch.device, precision: str, tolerance: float
) -> None:
    """With all that augments: it draws on the CPU, and changes the chips on the device."""
    losses = []
    for place, arithmetic in ((torch.device("cpu"), "fp32"), (device, precision)):
        recipe = make_recipe(lr=1e-4, optimisation=optimise(precision=arithmetic))
        model = place_model(build_tiny_model(), place)
        trainer = make_trainer(store, recipe, model=model, indices=(0, 1, 2))
        epochs = [trainer._train_epoch(epoch, tqdm(disable=True)) for epoch in range(2)]
        losses.append([epoch["train/loss"] for epoch in epochs])
    assert losses[1] == pytest.approx(losses[0], rel=tolerance)


def test_fp16_takes_steps_once_its_scale_fits(store: ChipStore, device: torch.device) -> None:
    """The first scale may be too large: then the step is left out, and the next scale is half."""
    recipe = make_recipe(optimisation=optimise(precision="fp16"))
    model = place_model(build_tiny_model(), device)
    before = copy.deepcopy(model.state_dict())
    trainer = make_trainer(store, recipe, model=model, indices=(0, 1, 2))
    for epoch in range(8):
        trainer._train_epoch(epoch % 3, tqdm(disable=True))
    moved = [name for name, _ in model.named_parameters() if not equal(model, before, name)]
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(moved) > 0.9 * len(trained)
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


def equal(model: BiomassModel, before: dict[str, torch.Tensor], name: str) -> bool:
    return torch.equal(model.get_parameter(name), before[name])
