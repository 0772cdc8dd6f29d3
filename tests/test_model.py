from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from golden import DECODER_CHANNELS, golden_images, golden_shapes, golden_weights
from torch import Tensor

from biomassters.errors import ModelError
from biomassters.model import Architecture, BiomassModel, Network
from biomassters.params.recipe import ModelParams

SETTINGS = ModelParams(
    backbone="mobilenetv3_small_050",
    pretrained=False,
    decoder_channels=DECODER_CHANNELS["mobilenetv3_small_050"],
    normalisation="minmax",
    target_scaling="none",
)
STATISTICS = SimpleNamespace(
    normalisation=SimpleNamespace(minimum=(-60.0,) * 4 + (0.0,) * 11, maximum=(3e4,) * 15),
    target=SimpleNamespace(mean=63.0, standard_deviation=71.0),
)


def build(seed: int = 0, **changes: object) -> BiomassModel:
    torch.manual_seed(seed)
    return BiomassModel.build(SETTINGS.model_copy(update=changes), STATISTICS)


def make_images(height: int = 64, width: int = 64) -> Tensor:
    return torch.rand(2, 12, 15, height, width, generator=torch.Generator().manual_seed(3))


def ignore(*months: int) -> Tensor:
    ignored = torch.zeros(2, 12, dtype=torch.bool)
    ignored[:, list(months)] = True
    return ignored


@pytest.mark.parametrize("backbone", DECODER_CHANNELS)
def test_network_gives_the_winners_output_with_his_keys(backbone: str, shared_folder: Path) -> None:
    shapes = golden_shapes(shared_folder / "golden", backbone)
    network = Network(backbone=backbone, decoder_channels=DECODER_CHANNELS[backbone]).eval()
    assert {name: value.shape for name, value in network.state_dict().items()} == shapes
    network.load_state_dict(golden_weights(shapes))
    golden = np.load(shared_folder / "golden" / f"{backbone}.npz")
    with torch.no_grad():
        unmasked = network(golden_images(), None).numpy()
        masked = network(golden_images(), torch.from_numpy(golden["mask"])).numpy()
    for got, expected in [(unmasked, golden["unmasked"]), (masked, golden["masked"])]:
        assert np.abs(got - expected).max() < 1e-4 * expected.std()


@pytest.mark.parametrize(("height", "width"), [(32, 32), (96, 64)])
def test_prediction_has_the_shape_of_the_images(height: int, width: int) -> None:
    assert build().eval()(make_images(height, width)).shape == (2, height, width)


def test_standard_target_scaling_predicts_in_deviations_about_the_mean() -> None:
    plain, scaled = (build(target_scaling=name).eval() for name in ("none", "standard"))
    with torch.no_grad():
        torch.testing.assert_close(scaled(make_images()), 63 + 71 * plain(make_images()))


def test_ignored_month_changes_no_prediction_whatever_it_shows() -> None:
    model, images = build().eval(), make_images()
    other = images.clone()
    other[:, 4] = 0
    with torch.no_grad():
        assert torch.equal(model(images, ignore(4)), model(other, ignore(4)))
        assert not torch.equal(model(images), model(other))


def test_no_ignored_month_is_the_same_as_none() -> None:
    model = build().eval()
    with torch.no_grad():
        assert torch.equal(model(make_images(), ignore()), model(make_images()))


def test_a_chips_prediction_does_not_depend_on_its_batch() -> None:
    model, images = build().eval(), make_images()
    with torch.no_grad():
        torch.testing.assert_close(model(images)[1:], model(images[1:]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_memory_format_changes_no_prediction(memory_format: torch.memory_format) -> None:
    model = build().eval()
    with torch.no_grad():
        expected = model(make_images())
        got = model.to(memory_format=memory_format)(make_images())
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_every_trainable_parameter_gets_a_finite_gradient(dtype: torch.dtype | None) -> None:
    model = build().train()
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        prediction = model(make_images(), ignore(2, 3))
    assert prediction.dtype == torch.float32
    prediction.square().mean().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_bfloat16_predicts_nearly_the_same() -> None:
    model = build().eval()
    with torch.no_grad():
        expected = model(make_images())
        with torch.autocast("cpu", torch.bfloat16):
            got = model(make_images())
    assert (got - expected).abs().max() < 0.1 * expected.std() + 0.05 * expected.abs().max()


def test_model_is_one_graph_for_the_compiler() -> None:
    model = build().eval()
    explanation = torch._dynamo.explain(model)(make_images(32, 32), ignore(1))
    assert explanation.graph_break_count == 0


def test_same_seed_builds_the_same_weights() -> None:
    first, same, other = build(0).state_dict(), build(0).state_dict(), build(1).state_dict()
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_normalise_takes_chips_as_stored() -> None:
    s1 = torch.full((1, 12, 4, 32, 32), -1100, dtype=torch.int16)
    s2 = torch.full((1, 12, 11, 32, 32), 300, dtype=torch.int32).to(torch.uint16)
    images = build().normalise(s1, s2, torch.ones(1, 12, dtype=torch.bool))
    assert images[0, 0, 0, 0, 0].item() == pytest.approx(49 / 30060)
    assert images[0, 0, 4, 0, 0].item() == pytest.approx(0.01)


def test_architecture_survives_json() -> None:
    architecture = build().architecture
    assert Architecture.from_json(architecture.to_json()) == architecture


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"backbone": "resnet18"}',
        '{"backbone": "resnet18", "decoder_channels": [8, 8], "normalisation": "minmax",'
        ' "target_scaling": "none"}',
        '{"backbone": "resnet18", "decoder_channels": [8, 8, 8, 8, 8], "normalisation": "other",'
        ' "target_scaling": "none"}',
    ],
)
def test_unsound_architecture_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match="expected an architecture"):
        Architecture.from_json(text)


def test_winners_preset_has_the_winners_number_of_parameters() -> None:
    """130.8 million, as the design has it from his code."""
    preset = yaml.safe_load((Path(__file__).parents[1] / "presets/winner.yaml").read_text())
    network = Network(
        backbone=preset["model"]["backbone"], decoder_channels=preset["model"]["decoder_channels"]
    )
    assert sum(parameter.numel() for parameter in network.parameters()) == 130_840_698
