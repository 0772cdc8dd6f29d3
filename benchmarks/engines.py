"""Inference engines side by side, in turns in one run: how many times the speed of plain torch.

    python benchmarks/engines.py --case embedded --batch 4
    python benchmarks/engines.py --case winner --batch 1 --seconds 60 --json engines.json

*Plain* is the network in float32, eager, contiguous. Measured are our two engines of `predict`
(torch, channels last; OpenVINO, chip by chip), and what else is public: OpenVINO with every shape
fixed, torch.compile with frozen weights, AOTInductor, and ONNX Runtime where it is installed
(`uv pip install onnx onnxscript onnxruntime`). `--quick` leaves out what compiles for minutes. Each
gets the same images, with all months; each conversion is timed. An engine that fails has its reason
in the table's place.
"""

import argparse
import contextlib
import copy
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from biomassters.model.biomass_model import BiomassModel
from biomassters.model.execution import autocast, place_model
from biomassters.model.one_chip import OneChip
from biomassters.prediction.engines import HINTS, OpenVinoModel
from biomassters.store.bands import N_BANDS, N_MONTHS
from measuring import (
    Row,
    build_model,
    median,
    parse_options,
    read_preset,
    report,
    time_in_turns,
)

CPU = torch.device("cpu")
COMPILERS = ("torch.compile", "AOTInductor", "onnxruntime")
Call = Callable[[], Tensor]


def main() -> None:
    """Measure all engines."""
    options = parse_options(__doc__)
    torch.set_grad_enabled(False)
    model = build_model(read_preset(options.case)).eval()
    rows = []
    for n_chips in options.batch:
        rows += measure_engines(options, model, n_chips)
    report(options, rows)


def measure_engines(options: argparse.Namespace, model: BiomassModel, n_chips: int) -> list[Row]:
    """Time all engines in turns."""
    generator = torch.Generator().manual_seed(1)
    shape = (n_chips, N_MONTHS, N_BANDS, options.chip_size, options.chip_size)
    images = torch.randn(shape, generator=generator)
    warm(model, images[:1])
    calls: dict[str, Call] = {}
    seconds: dict[str, float] = {}
    failures: dict[str, str] = {}
    for name, build in list_engines(model, images, options.precision):
        if options.quick and name.startswith(COMPILERS):
            continue
        started = time.perf_counter()
        try:
            call = build()
            call()
        except Exception as error:
            failures[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"
            continue
        seconds[name], calls[name] = time.perf_counter() - started, call
    expected = calls["plain fp32"]()
    times = time_in_turns(calls, options.seconds, CPU, options.clock)
    slow = median(times["plain fp32"])
    rows: list[Row] = [
        {
            "engine": name,
            "batch": n_chips,
            "ms": 1000 * median(times[name]),
            "times plain": slow / median(times[name]),
            "ready after, s": seconds[name],
            "error, SD": float((call() - expected).std() / expected.std()),
        }
        for name, call in calls.items()
    ]
    empty = dict.fromkeys(["ms", "times plain", "ready after, s", "error, SD"], "-")
    return rows + [
        {"engine": f"{name} ({cause})", "batch": n_chips, **empty}
        for name, cause in failures.items()
    ]


def list_engines(
    model: BiomassModel, images: Tensor, precisions: list[str]
) -> list[tuple[str, Callable[[], Call]]]:
    """Return what makes each engine ready, by its name, the plain one first."""
    plain = copy.deepcopy(model)
    engines = [("plain fp32", lambda: lambda: plain(images))]
    for precision in precisions:
        engines += [
            (f"torch {precision}", lambda p=precision: run_torch(model, images, p)),
            (f"openvino {precision}", lambda p=precision: run_openvino(model, images, p)),
            (f"openvino {precision}, fixed", lambda p=precision: run_fixed(model, images, p)),
            (f"torch.compile {precision}", lambda p=precision: run_compiled(model, images, p)),
        ]
    engines.append(("AOTInductor fp32", lambda: run_aot(model, images)))
    engines.append(("onnxruntime fp32", lambda: run_onnxruntime(model, images)))
    return engines


def warm(model: BiomassModel, images: Tensor) -> None:
    """Give the norms the statistics of these images' features, without which outputs overflow."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
            module.train()  # and nothing else: no dropout
    model(images)
    model.eval()


def run_torch(model: BiomassModel, images: Tensor, precision: str) -> Call:
    """Return the engine `torch` of `predict`."""
    placed = place_model(copy.deepcopy(model), CPU)

    def call() -> Tensor:
        with autocast(CPU, precision):
            agbm: Tensor = placed(images)
        return agbm

    return call


def run_openvino(model: BiomassModel, images: Tensor, precision: str) -> Call:
    """Return the engine `openvino` of `predict`: any number of months, chip by chip."""
    converted = OpenVinoModel(model, precision=precision, chip_size=images.shape[-1])
    return lambda: converted(images)


def run_fixed(model: BiomassModel, images: Tensor, precision: str) -> Call:
    """Return OpenVINO with every shape fixed, the batch's among them."""
    import openvino

    example = images.flatten(0, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(_WholeBatch(model, images.shape[:2]), example, check_trace=False)
        converted = openvino.convert_model(
            traced, example_input=example, input=[(list(example.shape), np.float32)]
        )
    settings = {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
    }
    network = openvino.Core().compile_model(converted, "CPU", settings)
    return lambda: model.finish(torch.from_numpy(network([example.numpy()])[0].copy()))


class _WholeBatch(nn.Module):
    """The network on chips with all months, of a fixed number."""

    def __init__(self, model: BiomassModel, shape: torch.Size) -> None:
        super().__init__()
        self.one_chip = OneChip(model.network)
        self.shape = tuple(shape)

    def forward(self, images: Tensor) -> Tensor:
        """Return the head's output, (B, 1, H, W), of images (B * T, 15, H, W)."""
        network, months = self.one_chip.network, torch.arange(self.shape[1])
        levels = [level.unflatten(0, self.shape) for level in network.encoder(images)]
        merged = [
            torch.cat([aggregate.merge_months(level[chip], months) for chip in range(len(level))])
            for aggregate, level in zip(network.attn, levels, strict=True)
        ]
        output: Tensor = network.segmentation_head(network.decoder(merged))
        return output


def run_compiled(model: BiomassModel, images: Tensor, precision: str) -> Call:
    """Return torch.compile with frozen weights."""
    from torch._inductor import config

    placed = place_model(copy.deepcopy(model), CPU)
    compiled = torch.compile(placed)

    def call() -> Tensor:
        with config.patch(freezing=True), autocast(CPU, precision), torch.no_grad():
            agbm: Tensor = compiled(images)
        return agbm

    return call


def run_aot(model: BiomassModel, images: Tensor) -> Call:
    """Return AOTInductor's package of the network of one chip."""
    network = OneChip(copy.deepcopy(model.network)).eval()
    example = images[0], torch.arange(N_MONTHS)
    exported = torch.export.export(network, example)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "network.pt2")
        torch._inductor.aoti_compile_and_package(exported, package_path=path)
        package = torch._inductor.aoti_load_package(path)
    return lambda: model.finish(torch.cat([package(chip, example[1]) for chip in images]))


def run_onnxruntime(model: BiomassModel, images: Tensor) -> Call:
    """Return ONNX Runtime on the exported network of one chip."""
    import onnxruntime

    example = images[0], torch.arange(N_MONTHS)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(None):
        path = str(Path(folder) / "network.onnx")
        torch.onnx.export(OneChip(model.network).eval(), example, path, dynamo=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path, options)
    names = [given.name for given in session.get_inputs()]
    values = [chip.numpy() for chip in images]
    months = {name: example[1].numpy() for name in names[1:]}

    def call() -> Tensor:
        outputs = [session.run(None, {names[0]: value, **months})[0] for value in values]
        return model.finish(torch.from_numpy(np.concatenate(outputs)))

    return call


if __name__ == "__main__":
    main()
