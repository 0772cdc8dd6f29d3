"""The winner's own outputs, in every arithmetic that a GPU has."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from golden import DECODER_CHANNELS, golden_images, load_golden

from biomassters.model.execution import autocast, place_model
from biomassters.model.network import Network

pytestmark = pytest.mark.gpu

SMALLEST = "mobilenetv3_small_050"
ON_A_CPU = "on a CPU: tests/model/test_network.py"

BOUNDS = {
    "fp32": (2e-5, 1e-4),
    # Ten bits of mantissa, an eighth of the rounding of bfloat16's seven.
    "tf32": (0.0075, 0.04),
    "fp16": (0.0075, 0.04),
    "bf16": (0.06, 0.3),
}
"""The error's root mean square, and its largest, in standard deviations of the output.

Twice what was seen on a CPU (of TF32 by rounding what goes into convolutions and matrix products):
0.0027 and 0.011, 0.0043 and 0.020, 0.031 and 0.14.
"""


@contextmanager
def arithmetic(name: str) -> Iterator[str]:
    """Let float32 be as it is or TF32 for a while; give the precision to compute in."""
    backends = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = name == "tf32"
    try:
        yield "fp32" if name == "tf32" else name
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


def measure_errors(
    network: Network, golden: dict[str, np.ndarray], case: str, name: str
) -> tuple[float, float]:
    device = network.segmentation_head.weight.device
    ignored = torch.from_numpy(golden["mask"]) if case == "masked" else None
    with torch.no_grad(), arithmetic(name) as precision, autocast(device, precision):
        got = network(golden_images().to(device), ignored).float().cpu().numpy()
    errors = (got - golden[case]) / golden[case].std()
    return float(np.sqrt(np.mean(errors**2))), float(np.abs(errors).max())


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("case", ["unmasked", "masked"])
@pytest.mark.parametrize("backbone", DECODER_CHANNELS)
def test_network_gives_the_winners_output(
    backbone: str, case: str, name: str, device: torch.device, golden: Path
) -> None:
    if device.type == "cpu" and (name == "tf32" or backbone != SMALLEST):
        pytest.skip(ON_A_CPU)
    network, expected = load_golden(golden, backbone)
    mean, largest = measure_errors(place_model(network, device), expected, case, name)
    assert mean < BOUNDS[name][0]
    assert largest < BOUNDS[name][1]


@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_compiled_network_gives_the_winners_output(
    name: str, device: torch.device, golden: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if device.type == "cpu":
        pytest.skip(ON_A_CPU)
    network, expected = load_golden(golden, SMALLEST)
    network = place_model(network, device)
    network.compile_in_place()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own
        mean, largest = measure_errors(network, expected, "masked", name)
    assert "going on without it" not in caplog.text
    assert mean < BOUNDS[name][0]
    assert largest < BOUNDS[name][1]
