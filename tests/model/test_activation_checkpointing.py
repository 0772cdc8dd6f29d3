import copy

import pytest
import torch
from example_models import build, ignore, make_images
from torch import Tensor, nn

from biomassters.model.activation_checkpointing import find_blocks, is_checkpointed
from biomassters.model.biomass_model import BiomassModel


def build_checkpointed(backbone: str = "mobilenetv3_small_050") -> BiomassModel:
    model = build(backbone=backbone)
    model.network.checkpoint_activations()
    return model


def train_steps(model: BiomassModel, precision: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Return all weights, buffers and gradients after three steps."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    images = make_images(32, 32)
    for month in range(3):
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            prediction = model(images, ignore(month))
        optimizer.zero_grad()
        prediction.square().mean().backward()
        optimizer.step()
    gradients = {f"gradient of {n}": p.grad for n, p in model.named_parameters() if p.requires_grad}
    return model.state_dict() | gradients


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("backbone", ["mobilenetv3_small_050", "resnet10t"])
def test_no_result_changes(backbone: str, precision: torch.dtype) -> None:
    expected = train_steps(build(backbone=backbone), precision)
    got = train_steps(build_checkpointed(backbone), precision)
    assert expected.keys() == got.keys()
    assert [name for name in expected if not torch.equal(expected[name], got[name])] == []


def test_fewer_activations_are_kept() -> None:
    def count_kept_bytes(model: BiomassModel) -> int:
        storages: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        model.train()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            prediction = model(make_images())
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        assert prediction.requires_grad
        return sum(size for place, size in storages.items() if place not in weights)

    assert count_kept_bytes(build_checkpointed()) < count_kept_bytes(build()) / 2


def test_nothing_is_computed_again_without_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_checkpointed()
    monkeypatch.setattr(
        "biomassters.model.activation_checkpointing.checkpoint",
        lambda *_, **__: pytest.fail("kept"),
    )
    with torch.no_grad():
        model.train()(make_images(32, 32))
    model.eval()(make_images(32, 32))


def test_copy_of_a_model_uses_its_own_weights() -> None:
    model = build_checkpointed()
    twin = copy.deepcopy(model)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    twin.train()(make_images(32, 32)).square().mean().backward()
    assert all(p.grad is not None for p in twin.parameters() if p.requires_grad)
    assert all(p.grad is None for p in model.parameters())


def test_blocks_of_a_backbone_are_found_once_each() -> None:
    block = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU())
    residual = nn.Module()
    residual.body = nn.Sequential(nn.Conv2d(1, 1, 1))
    backbone = nn.ModuleDict({"stem": nn.Conv2d(1, 1, 1), "stages": nn.Sequential(block, residual)})
    assert list(find_blocks(backbone)) == [residual]
    assert len(list(find_blocks(build().network.encoder))) > 8


def test_model_knows_whether_it_keeps_few_activations() -> None:
    assert not is_checkpointed(build())
    assert is_checkpointed(build_checkpointed())
    assert is_checkpointed(copy.deepcopy(build_checkpointed()))


def test_compiler_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = build_checkpointed()
    monkeypatch.setattr(torch, "compile", lambda *_: pytest.fail("compiles"))
    model.compile_network()
    model.train()(make_images(32, 32))
    assert "going on without torch.compile" in caplog.text
