"""What of a GPU's results repeats to the byte."""

import hashlib
import warnings
from collections.abc import Iterator

import pytest
import torch
from example_models import make_images
from tiny_trainers import make_recipe, make_trainer
from tiny_training import (
    build_tiny_model,
    no_workers,  # noqa: F401
    one_thread,  # noqa: F401
    optimise,
    three_chips,  # noqa: F401
)
from torch import nn
from tqdm import tqdm

from biomassters.model.execution import autocast, place_model
from biomassters.store.chips import ChipStore

pytestmark = pytest.mark.gpu


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Ask torch for operations that repeat; where it has none it warns, and the test tells."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch.use_deterministic_algorithms(False)


def hash_weights(model: nn.Module) -> str:
    tensors = [tensor.cpu().numpy().tobytes() for tensor in model.state_dict().values()]
    return hashlib.sha256(b"".join(tensors)).hexdigest()


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_prediction_repeats_to_the_byte(precision: str, device: torch.device) -> None:
    model = place_model(build_tiny_model().eval(), device)
    images = make_images().to(device)
    with torch.inference_mode(), autocast(device, precision):
        first, *others = (model(images).cpu().numpy().tobytes() for _ in range(3))
    assert others == [first, first]


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_with_deterministic_operations_repeats_to_the_byte(
    store: ChipStore, device: torch.device, precision: str
) -> None:
    hashes = set()
    for _ in range(2):
        model = place_model(build_tiny_model(), device)
        recipe = make_recipe(optimisation=optimise(precision=precision))
        trainer = make_trainer(store, recipe, model=model, indices=(0, 1, 2))
        for epoch in range(2):
            trainer._train_epoch(epoch, tqdm(disable=True))
        hashes.add(hash_weights(model))
    assert len(hashes) == 1
