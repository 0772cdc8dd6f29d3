import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from example_models import build, ignore, make_images
from golden import DECODER_CHANNELS, golden_images, golden_shapes, golden_weights
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch._inductor import config as inductor_config

from biomassters.errors import ModelError
from biomassters.model.biomass_model import Network
from biomassters.model.kept_months import find_kept_months
from biomassters.model.weights import decode_architecture, encode_architecture
from repository_copy import ROOT


def load_golden(folder: Path, backbone: str) -> tuple[Network, dict[str, np.ndarray]]:
    shapes = golden_shapes(folder / "golden", backbone)
    network = Network(backbone=backbone, decoder_channels=DECODER_CHANNELS[backbone]).eval()
    assert {name: value.shape for name, value in network.state_dict().items()} == shapes
    network.load_state_dict(golden_weights(shapes))
    return network, dict(np.load(folder / "golden" / f"{backbone}.npz"))


@pytest.mark.parametrize("case", ["unmasked", "masked"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("backbone", DECODER_CHANNELS)
def test_network_gives_the_winners_output_with_his_keys(
    backbone: str, layout: torch.memory_format, case: str, shared_folder: Path
) -> None:
    network, golden = load_golden(shared_folder, backbone)
    network.to(memory_format=layout)
    ignored = torch.from_numpy(golden["mask"]) if case == "masked" else None
    with torch.no_grad():
        got = network(golden_images(), ignored).numpy()
    assert np.abs(got - golden[case]).max() < 1e-4 * golden[case].std()


@pytest.mark.parametrize("case", ["unmasked", "masked"])
@pytest.mark.parametrize("backbone", DECODER_CHANNELS)
def test_bfloat16_gives_the_winners_output_within_its_rounding(
    backbone: str, case: str, shared_folder: Path
) -> None:
    """Sixty layers deep, eight bits of mantissa leave a few hundredths of the spread."""
    network, golden = load_golden(shared_folder, backbone)
    ignored = torch.from_numpy(golden["mask"]) if case == "masked" else None
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        error = network(golden_images(), ignored).float().numpy() - golden[case]
    spread = golden[case].std()
    assert np.sqrt(np.mean(error**2)) < 0.06 * spread
    assert np.abs(error).max() < 0.3 * spread


def test_compiled_network_gives_the_winners_output(
    shared_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network, golden = load_golden(shared_folder, "mobilenetv3_small_050")
    network.compile_in_place()
    # The same kernels in one file, instead of 74 of which each takes a second to compile.
    in_one_file = {
        "cpp_wrapper": True,
        "cpp_wrapper_build_separate": True,
        "cpp_cache_precompile_headers": False,
        "compile_threads": 1,
    }
    with torch.no_grad(), warnings.catch_warnings(), inductor_config.patch(in_one_file):
        warnings.simplefilter("ignore")  # the compiler's own
        got = network(golden_images(), torch.from_numpy(golden["mask"])).numpy()
    if "going on without it" in caplog.text:
        pytest.skip("needs a C++ compiler")
    assert np.abs(got - golden["masked"]).max() < 1e-4 * golden["masked"].std()


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


def test_ignored_months_are_not_encoded() -> None:
    model, shapes = build().eval(), []
    model.network.encoder.register_forward_pre_hook(
        lambda _, inputs: shapes.append(inputs[0].shape)
    )
    ignored = ignore(0, 1, 2)
    ignored[1, 3:6] = True
    model(make_images(32, 32), ignored)
    model(make_images(32, 32), ignore())
    assert shapes == [(9 + 6, 15, 32, 32), (24, 15, 32, 32)]


def test_not_encoding_a_month_changes_a_prediction_by_rounding_alone() -> None:
    """All months encoded, and the scores of the ignored made the lowest, as the winner has it.

    In float64, but for the weights of the months: how many images are encoded at once decides in
    which order float32 is rounded.
    """
    network, images = build().eval().double().network, make_images().double()
    ignored = torch.rand(2, 12, generator=torch.Generator().manual_seed(5)) < 0.4
    with torch.no_grad():
        merged = []
        for attention, level in zip(
            network.attn, network.encoder(images.flatten(0, 1)), strict=True
        ):
            features = level.unflatten(0, (2, 12))
            scores = attention.attn(features.permute(0, 1, 3, 4, 2)).squeeze(-1)
            scores = scores.masked_fill(ignored[:, :, None, None], torch.finfo(scores.dtype).min)
            merged.append((scores.softmax(1).unsqueeze(2) * features).sum(1))
        expected = network.segmentation_head(network.decoder(merged))
        got = network(images, ignored)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6 * expected.abs().max().item())


@pytest.mark.parametrize(
    ("changes", "ignored"),
    [({"month_aggregation": "max"}, None), ({"month_encoding": "learned"}, ignore(1))],
)
def test_network_is_one_graph_for_the_compiler(
    changes: dict[str, str], ignored: Tensor | None
) -> None:
    network, images = build(**changes).eval().network, make_images(32, 32)
    kept = find_kept_months(ignored, images.shape, images.device)
    predict = torch.compile(Network._predict_kept, backend="eager", fullgraph=True)
    with torch.no_grad():
        got = predict(network, kept.pick(images), kept)
        torch.testing.assert_close(got, network(images, ignored))


def test_training_step_is_one_graph_whatever_the_number_of_months() -> None:
    model, counter = build().train(), CompileCounter()
    model.compile_network()
    model.network._compiled._call = torch.compile(
        Network._predict_kept, backend=counter, fullgraph=True
    )
    for months in [(1,), (1, 2), (3, 4, 5)]:
        model(make_images(32, 32), ignore(*months)).square().mean().backward()
    assert counter.frame_count == 1


@pytest.mark.parametrize("name", ["mean", "max"])
def test_mean_and_max_have_no_weights_for_the_months(name: str) -> None:
    model = build(month_aggregation=name)
    assert not any(key.startswith("network.attn.") for key in model.state_dict())
    assert model.eval()(make_images(), ignore(2)).isfinite().all()


def test_month_encoding_starts_as_the_function_without_it() -> None:
    plain, encoded = build().eval(), build(month_encoding="learned").eval()
    new = encoded.state_dict().keys() - plain.state_dict().keys()
    assert new == {f"network.attn.{level}.month_encoding" for level in range(5)}
    with torch.no_grad():
        plain_prediction = plain(make_images(), ignore(3))
        assert torch.equal(encoded(make_images(), ignore(3)), plain_prediction)


def test_month_encoding_without_attention_is_refused() -> None:
    with pytest.raises(
        ModelError, match=r"got learned with month_aggregation max, at model\.month_e"
    ):
        build(month_encoding="learned", month_aggregation="max")


@pytest.mark.parametrize(("name", "median"), [("log", 36.0), ("sqrt", 36.0), ("standard", 63.0)])
def test_new_model_predicts_about_the_data(name: str, median: float) -> None:
    model = build(target_scaling=name).eval()
    torch.nn.init.zeros_(model.network.segmentation_head.weight)
    torch.nn.init.zeros_(model.network.segmentation_head.bias)
    assert model(make_images(32, 32)).mean().item() == pytest.approx(median, rel=1e-5)


@pytest.mark.parametrize("name", ["none", "standard", "log", "sqrt"])
def test_prediction_in_the_space_of_the_loss_is_the_scaled_prediction(name: str) -> None:
    model = build(target_scaling=name).eval()
    with torch.no_grad():
        scaled, prediction = model.predict_scaled(make_images()), model(make_images())
    if name in ("log", "sqrt"):
        scaled = scaled.clamp(min=0)
    torch.testing.assert_close(model.scale_target(prediction), scaled, rtol=1e-4, atol=1e-5)


def test_months_without_s2_are_ignored_only_where_they_are_masked() -> None:
    present = torch.ones(1, 12, dtype=torch.bool)
    present[0, 3:5] = False
    assert build().ignore_months(present) is None
    assert build(missing_months="nearest").ignore_months(present) is None
    assert torch.equal(build(missing_months="mask").ignore_months(present), ~present)


def test_nearest_months_stand_in_for_missing_ones() -> None:
    s1 = torch.full((1, 12, 4, 32, 32), -1100, dtype=torch.int16)
    s2 = torch.full((1, 12, 11, 32, 32), 300, dtype=torch.int32).to(torch.uint16)
    present = torch.ones(1, 12, dtype=torch.bool)
    present[0, 3] = False
    filled, empty = (
        build(missing_months=name).normalise(s1, s2, present) for name in ("nearest", "zero")
    )
    assert torch.equal(filled[0, 3], filled[0, 2])
    assert (empty[0, 3, 4:] == 0).all()


def test_frozen_encoder_stays_as_it_is_while_all_else_learns() -> None:
    model = build()
    model.freeze_encoder(True)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    levels = model.network.encoder(make_images(32, 32).flatten(0, 1))
    assert not any(level.requires_grad for level in levels)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(make_images(32, 32)).square().mean().backward()
    optimizer.step()
    changed = {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
    assert not any(name.startswith("network.encoder.") for name in changed)
    for part in ("network.attn.4.", "network.decoder.blocks.0.conv1.1.running_mean"):
        assert any(name.startswith(part) for name in changed)


def test_encoder_learns_again_once_it_is_no_longer_frozen() -> None:
    model = build().train()
    trainable = {name for name, value in model.named_parameters() if value.requires_grad}
    model.freeze_encoder(True)
    assert not any(module.training for module in model.network.encoder.modules())
    model.freeze_encoder(False)
    assert all(module.training for module in model.network.encoder.modules())
    assert {name for name, value in model.named_parameters() if value.requires_grad} == trainable


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
    for changes in ({}, {"month_aggregation": "max", "missing_months": "mask"}):
        architecture = build(**changes).architecture
        assert decode_architecture(encode_architecture(architecture)) == architecture


def test_architecture_of_an_older_file_is_as_the_winners() -> None:
    new = {"month_aggregation", "month_encoding", "missing_months"}
    fields = json.loads(encode_architecture(build().architecture))
    old = json.dumps({name: value for name, value in fields.items() if name not in new})
    assert decode_architecture(old) == build().architecture


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
        '{"backbone": "resnet18", "decoder_channels": [8, 8, 8, 8, 8], "normalisation": "minmax",'
        ' "target_scaling": "none", "missing_months": "guess"}',
    ],
)
def test_unsound_architecture_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match="expected an architecture"):
        decode_architecture(text)


def test_winners_preset_has_the_winners_number_of_parameters() -> None:
    """130.8 million, as the design has it from his code."""
    preset = yaml.safe_load((ROOT / "presets/winner.yaml").read_text())
    network = Network(
        backbone=preset["model"]["backbone"], decoder_channels=preset["model"]["decoder_channels"]
    )
    assert sum(parameter.numel() for parameter in network.parameters()) == 130_840_698
