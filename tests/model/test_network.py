import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from example_models import build, ignore, make_images
from golden import DECODER_CHANNELS, golden_images, load_golden
from torch._dynamo.testing import CompileCounter
from torch._inductor import config as inductor_config

from biomassters.model.network import Network
from biomassters.params.reading import read_document
from repository_copy import ROOT


@pytest.mark.parametrize("case", ["unmasked", "masked"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("backbone", DECODER_CHANNELS)
def test_network_gives_the_winners_output_with_his_keys(
    backbone: str, layout: torch.memory_format, case: str, shared_folder: Path
) -> None:
    network, golden = load_golden(shared_folder / "golden", backbone)
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
    network, golden = load_golden(shared_folder / "golden", backbone)
    ignored = torch.from_numpy(golden["mask"]) if case == "masked" else None
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        error = network(golden_images(), ignored).float().numpy() - golden[case]
    spread = golden[case].std()
    assert np.sqrt(np.mean(error**2)) < 0.06 * spread
    assert np.abs(error).max() < 0.3 * spread


def test_compiled_network_gives_the_winners_output(
    shared_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network, golden = load_golden(shared_folder / "golden", "mobilenetv3_small_050")
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


def test_training_step_is_one_graph_whatever_the_number_of_months() -> None:
    """With the winner's months; `test_month_aggregation` has the other ways to merge them."""
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


def test_winners_preset_has_the_winners_number_of_parameters() -> None:
    """130.8 million, as the design has it from his code."""
    preset = read_document(ROOT / "presets/winner.yaml")
    network = Network(
        backbone=preset["model"]["backbone"], decoder_channels=preset["model"]["decoder_channels"]
    )
    assert sum(parameter.numel() for parameter in network.parameters()) == 130_840_698
