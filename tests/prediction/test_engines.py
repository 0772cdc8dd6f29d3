import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import example_models
import pytest
import torch
from golden import DECODER_CHANNELS, golden_images, golden_shapes, golden_weights
from tiny_training import build_tiny_model, one_thread  # noqa: F401
from torch import Tensor

from biomassters.errors import ModelError
from biomassters.model.biomass_model import BiomassModel
from biomassters.model.one_chip import OneChip, draw_example
from biomassters.prediction import engines
from biomassters.prediction.engines import OpenVinoModel, choose_engine

IGNORED = torch.zeros(3, 12, dtype=torch.bool)
IGNORED[0, 2:9] = True  # 5 months are left
IGNORED[1] = True  # none, which is all
SETTINGS = [
    {},
    {"month_encoding": "learned"},
    {"month_aggregation": "mean", "head": "quantiles"},
    {"month_aggregation": "max", "target_scaling": "log"},
]


def draw_images(n_bands: int = 15) -> Tensor:
    return torch.randn(3, 12, n_bands, 32, 32, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def model() -> BiomassModel:
    return warm(build_tiny_model())


def warm(model: BiomassModel, n_bands: int = 15) -> BiomassModel:
    """Give a model's norms statistics of their features, so that its outputs are of one size."""
    with torch.no_grad():
        for _ in range(20):
            model.train()(draw_images(n_bands))
    return model.eval()


@torch.inference_mode()
def measure_difference(
    model: BiomassModel, converted: OpenVinoModel, ignored: Tensor | None, n_bands: int = 15
) -> float:
    images = draw_images(n_bands)
    expected, got = model(images, ignored), converted(images, ignored)
    assert (got.shape, got.dtype) == (expected.shape, torch.float32)
    return float((got - expected).std() / expected.std())


@pytest.mark.parametrize("changes", SETTINGS, ids=lambda changes: "-".join(changes.values()))
def test_network_of_one_chip_is_the_network(changes: dict[str, Any]) -> None:
    model = build_tiny_model(**changes).eval()
    if model.architecture.month_encoding == "learned":
        for aggregate in model.network.attn:
            torch.nn.init.normal_(aggregate.month_encoding)
    images, months = draw_example(15, 32)
    year = torch.zeros(1, 12, 15, 32, 32)
    year[0, months] = images
    ignored = torch.ones(1, 12, dtype=torch.bool)
    ignored[0, months] = False
    with torch.inference_mode():
        got, expected = OneChip(model.network)(images, months), model.network(year, ignored)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_openvino_predicts_what_torch_does_whatever_months_are_ignored(
    model: BiomassModel,
) -> None:
    converted = OpenVinoModel(model, precision="fp32", chip_size=32)
    for ignored in (None, IGNORED):
        assert measure_difference(model, converted, ignored) < 1e-5


def test_openvino_predicts_what_torch_does_of_a_model_of_quantiles_that_sees_some_bands() -> None:
    model = build_tiny_model(bands=("VV ascending", "B4", "B8"), head="quantiles")
    warm(model, n_bands=3)
    converted = OpenVinoModel(model, precision="fp32", chip_size=32)
    assert measure_difference(model, converted, IGNORED, n_bands=3) < 1e-5


@pytest.mark.skipif(
    engines._find_obstacle(torch.device("cpu"), "bf16") is not None, reason="a CPU without bfloat16"
)
def test_openvino_in_bf16_is_near_torch_in_fp32(model: BiomassModel) -> None:
    converted = OpenVinoModel(model, precision="bf16", chip_size=32)
    assert 1e-5 < measure_difference(model, converted, IGNORED) < 0.05


@pytest.mark.parametrize("backbone", DECODER_CHANNELS)
def test_golden_network_predicts_the_winners_numbers(shared_folder: Path, backbone: str) -> None:
    """Outputs of the winner's own code (docs/winner.md)."""
    model = BiomassModel.build_blank(
        example_models.SETTINGS.model_copy(
            update={"backbone": backbone, "decoder_channels": DECODER_CHANNELS[backbone]}
        )
    )
    model.network.load_state_dict(golden_weights(golden_shapes(shared_folder / "golden", backbone)))
    with torch.inference_mode():
        images = golden_images()
        expected = model.eval()(images)
        got = OpenVinoModel(model, precision="fp32", chip_size=images.shape[-1])(images)
    assert float((got - expected).abs().max() / expected.std()) < 4e-5


@pytest.mark.parametrize("largest_alone", [32, 16])
def test_bytes_do_not_depend_on_the_batch_or_on_the_threads(
    model: BiomassModel, monkeypatch: pytest.MonkeyPatch, largest_alone: int
) -> None:
    """Of chips with a thread each, as of those that have all threads."""
    monkeypatch.setattr(engines, "LARGEST_ALONE", largest_alone)
    images, found, n_threads = draw_images(), set(), torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            converted = OpenVinoModel(model, precision="fp32", chip_size=32)
            with torch.inference_mode():
                whole = converted(images, IGNORED)
                single = [converted(images[k : k + 1], IGNORED[k : k + 1]) for k in range(3)]
            assert torch.equal(torch.cat(single), whole)
            found.add(whole.numpy().tobytes())
    finally:
        torch.set_num_threads(n_threads)
    assert len(found) == 1


def test_auto_is_openvino_on_a_cpu_and_torch_where_asked_for(model: BiomassModel) -> None:
    assert isinstance(choose_engine(model, "auto", precision="fp32", chip_size=32), OpenVinoModel)
    assert choose_engine(model, "torch", precision="fp32", chip_size=32) is model
    assert choose_engine(model, "auto", precision="fp16", chip_size=32) is model


@pytest.mark.parametrize(
    ("precision", "spoil", "got"),
    [
        ("fp16", {}, "an arithmetic that it does not have on a CPU"),
        ("bf16", {"CAPABILITIES": {"bf16": "NO_SUCH"}}, "a CPU without that arithmetic"),
    ],
)
def test_openvino_that_cannot_is_refused_in_one_line(
    model: BiomassModel, monkeypatch: pytest.MonkeyPatch, precision, spoil, got
) -> None:
    for name, value in spoil.items():
        monkeypatch.setattr(engines, name, value)
    with pytest.raises(ModelError, match=f"OpenVINO to predict in {precision}, got {got}, at"):
        choose_engine(model, "openvino", precision=precision, chip_size=32)
    assert choose_engine(model, "auto", precision=precision, chip_size=32) is model


def test_openvino_tells_nobody_that_it_is_used() -> None:
    """Imported as it is, it would send a word of it to its makers."""
    code = (
        "from biomassters.prediction import engines; engines._import_openvino();"
        "from openvino.tools import ovc; from openvino.tools.ovc import telemetry_utils;"
        "print(type(ovc.telemetry).__name__, telemetry_utils.tm.Telemetry.__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == ["_SilentTelemetry"] * 2


def test_without_the_package_torch_predicts(
    model: BiomassModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert choose_engine(model, "auto", precision="fp32", chip_size=32) is model
    with pytest.raises(ModelError, match="got no such package"):
        choose_engine(model, "openvino", precision="fp32", chip_size=32)


def test_network_that_is_not_converted_is_computed_by_torch_and_one_line_says_so(
    model: BiomassModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def convert(*_: Any) -> Any:
        raise RuntimeError("no such operation\nin any frontend")

    monkeypatch.setattr(engines, "_convert", convert)
    arithmetic = {"precision": "fp32", "chip_size": 32}
    with caplog.at_level(logging.WARNING):
        assert choose_engine(model, "auto", **arithmetic) is model
    [record] = caplog.records
    assert record.getMessage().startswith("OpenVINO does not convert mobilenetv3_small_050 (")
    assert "\n" not in record.getMessage()
    with pytest.raises(ModelError, match="expected a network that OpenVINO converts, got mobile"):
        choose_engine(model, "openvino", **arithmetic)


@torch.inference_mode()
def test_network_that_is_converted_into_another_is_found_by_its_first_prediction(
    model: BiomassModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Blank(OneChip):
        def forward(self, images: torch.Tensor, months: torch.Tensor) -> torch.Tensor:
            return 0 * (images[:1, :1] + months[:1, None, None, None])

    monkeypatch.setattr(engines, "OneChip", Blank)
    arithmetic = {"precision": "fp32", "chip_size": 32}
    lenient = choose_engine(model, "auto", **arithmetic)
    alone = torch.cat([model(draw_images()[chip, None]) for chip in range(3)])
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert torch.equal(lenient(draw_images()), alone)
    [record] = caplog.records
    assert "predictions off by 1 standard deviations" in record.getMessage()
    with pytest.raises(ModelError, match=r"off by 1 standard deviations.*set it to auto or torch"):
        choose_engine(model, "openvino", **arithmetic)(draw_images())
