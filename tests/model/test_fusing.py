import copy
from pathlib import Path

import pytest
import torch
from golden import DECODER_CHANNELS, golden_images, golden_shapes, golden_weights
from tiny_training import build_tiny_model, one_thread  # noqa: F401
from torch import Tensor, nn

from biomassters.model.execution import autocast
from biomassters.model.fusing import FusedConvolution, fuse_model
from biomassters.model.network import Network

CPU = torch.device("cpu")
# A norm is folded into bfloat16 weights before they are rounded, not after: not the same rounding.
TOLERANCES = {"fp32": 1e-5, "bf16": 3e-2}


def load_network(shared_folder: Path, backbone: str) -> Network:
    network = Network(backbone=backbone, decoder_channels=DECODER_CHANNELS[backbone])
    shapes = golden_shapes(shared_folder / "golden", backbone)
    network.load_state_dict(golden_weights(shapes))
    return network.eval()


def predict(network: nn.Module, images: Tensor, precision: str) -> Tensor:
    with torch.inference_mode(), autocast(CPU, precision):
        return network(images, None).float()


def count(model: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in model.modules())


@pytest.mark.parametrize("backbone", DECODER_CHANNELS)
@pytest.mark.parametrize("precision", TOLERANCES)
def test_fused_golden_network_predicts_the_same(
    shared_folder: Path, backbone: str, precision: str
) -> None:
    network, images = load_network(shared_folder, backbone), golden_images()
    fused = fuse_model(network, precision)
    exact = predict(network, images, "fp32")
    error = (predict(fused, images, precision) - exact).std() / exact.std()
    unfused_error = (predict(network, images, precision) - exact).std() / exact.std()
    assert error < max(TOLERANCES[precision], 1.5 * unfused_error)
    if precision == "bf16":
        assert error > 0


@pytest.mark.parametrize("backbone", DECODER_CHANNELS)
def test_every_norm_is_fused(shared_folder: Path, backbone: str) -> None:
    network = load_network(shared_folder, backbone)
    fused = fuse_model(network, "fp32")
    assert count(fused, nn.BatchNorm2d) == 0
    assert count(fused, FusedConvolution) == count(network, nn.BatchNorm2d) > 30


def test_model_itself_is_not_modified() -> None:
    model = build_tiny_model().eval()
    before = copy.deepcopy(model.state_dict())
    fused = fuse_model(model, "fp32")
    assert fused is not model
    assert count(model, FusedConvolution) == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_convolution_whose_norm_is_not_known_to_follow_it_stays() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 3, 1)
            self.norm_of_something_else = nn.BatchNorm2d(3)

    fused = fuse_model(Branches().eval(), "fp32")
    assert count(fused, FusedConvolution) == 0


def test_compiled_model_stays_as_it_is() -> None:
    model = build_tiny_model().eval()
    model.compile_network()
    assert fuse_model(model, "fp32") is model


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.SiLU(), nn.Hardswish(), nn.ELU(), nn.Tanh()])
def test_any_activation_is_applied_once(activation: nn.Module) -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), activation).eval()
    images = torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        torch.testing.assert_close(fuse_model(layers, "fp32")(images), layers(images))
