import pytest
import torch
from torch import nn

from biomassters.model.precision import autocast, place_model

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_products_are_computed_in_the_precision_that_was_asked_for(
    precision: str, dtype: torch.dtype
) -> None:
    layer, images = nn.Conv2d(3, 4, 1), torch.rand(1, 3, 8, 8)
    with autocast(CPU, precision):
        assert layer(images).dtype == dtype
    assert layer.weight.dtype == torch.float32
    assert layer(images).dtype == torch.float32


def test_placed_model_is_the_same_model_in_channels_last() -> None:
    layer = nn.Conv2d(3, 4, 3)
    weight = layer.weight.detach().clone()
    placed = place_model(layer, CPU)
    assert placed is layer
    assert placed.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(placed.weight.detach(), weight)
