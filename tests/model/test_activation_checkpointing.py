import copy

import pytest
import torch
from example_models import build, ignore, make_images
from torch import Tensor, nn

from biomassters.errors import ParamsError
from biomassters.model.activation_checkpointing import VARIABLE, find_blocks
from biomassters.model.biomass_model import BiomassModel


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
def test_no_result_changes(
    backbone: str, precision: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = train_steps(build(backbone=backbone), precision)
    monkeypatch.setenv(VARIABLE, "1")
    got = train_steps(build(backbone=backbone), precision)
    assert expected.keys() == got.keys()
    assert [name for name in expected if not torch.equal(expected[name], got[name])] == []


def test_fewer_activations_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def count_kept_bytes() -> int:
        storages: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        model = build().train()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            prediction = model(make_images())
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        assert prediction.requires_grad
        return sum(size for place, size in storages.items() if place not in weights)

    everything = count_kept_bytes()
    monkeypatch.setenv(VARIABLE, "1")
    assert count_kept_bytes() < everything / 2


def test_nothing_is_computed_again_without_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1")
    model = build()
    monkeypatch.setattr(
        "biomassters.model.activation_checkpointing.checkpoint",
        lambda *_, **__: pytest.fail("kept"),
    )
    with torch.no_grad():
        model.train()(make_images(32, 32))
    model.eval()(make_images(32, 32))


def test_copy_of_a_model_uses_its_own_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1")
    model = build()
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


def test_other_values_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "yes")
    with pytest.raises(ParamsError, match=rf"expected 0 or 1, got 'yes', at .* {VARIABLE}"):
        build()


def test_compiler_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(VARIABLE, "1")
    model = build()
    monkeypatch.setattr(torch, "compile", lambda *_: pytest.fail("compiles"))
    model.compile_network()
    model.train()(make_images(32, 32))
    assert "going on without torch.compile" in caplog.text
