"""What the benchmarks share: cases, clocks, FLOPs, ceilings, tables. Runs nothing by itself."""

import argparse
import copy
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from biomassters.batches.reading import Batch
from biomassters.model.biomass_model import BiomassModel
from biomassters.model.execution import DTYPES
from biomassters.params.map_sections import MapParams
from biomassters.params.reading import read_params
from biomassters.params.sections import (
    AugmentationParams,
    CleaningName,
    DataParams,
    FinetuneParams,
    ModelParams,
    OptimisationParams,
    PredictParams,
    Section,
    TrainParams,
)
from biomassters.processes.counts import count_cores
from biomassters.processes.environment import Environment
from biomassters.statistics.figures import Normalisation, Statistics, TargetFigures
from biomassters.store.bands import BANDS, N_BANDS, N_MONTHS

ROOT: Final = Path(__file__).parents[1]

FORWARD_PASSES_A_STEP: Final = 3
"""The backward pass counts as two forward passes. (torch's counter takes a depthwise convolution's
backward pass for a dense one's, many times as much.)"""

CASES: Final = {"embedded": "sample", "winner": "winner"}
"""Presets by the name of a case."""

STATISTICS: Final = Statistics(
    normalisation=Normalisation(
        source="computed",
        bands=BANDS,
        minimum=(-40.0,) * 4 + (0.0,) * 11,
        maximum=(10.0,) * 4 + (10000.0,) * 10 + (100.0,),
        mean=(-12.0, -18.0, -13.0, -19.0, *[2000.0] * 10, 13.0),
        standard_deviation=(4.0, 5.0, 4.0, 5.0, *[2500.0] * 10, 25.0),
        p1=None,
        p99=None,
    ),
    target=TargetFigures(
        pixels=1,
        nodata_share=0.0,
        minimum=0.0,
        maximum=400.0,
        mean=63.0,
        standard_deviation=71.0,
        percentiles={},
    ),
    bands={},
)
"""Of about the right size: arithmetic takes as long with any."""

Row = dict[str, Any]


class Preset(Section):
    """What the benchmarks read of a preset."""

    lr: float
    cleaning: CleaningName
    data: DataParams
    model: ModelParams
    augmentation: AugmentationParams
    optimisation: OptimisationParams
    train: TrainParams
    finetune: FinetuneParams
    predict: PredictParams
    map: MapParams


def read_preset(case: str) -> Preset:
    """Read the preset of a case, but start from random weights: nothing is downloaded."""
    preset = read_params(Preset, ROOT / "presets" / f"{CASES[case]}.yaml")
    model = preset.model.model_copy(update={"pretrained": False})
    return preset.model_copy(update={"model": model})


def parse_options(description: str | None) -> argparse.Namespace:
    """Read the options that the benchmarks share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--case", choices=CASES, default="embedded", help="which preset's model")
    parser.add_argument("--chip-size", type=int, help="pixels (default: the preset's)")
    parser.add_argument("--batch", type=int, nargs="+", help="chips a forward pass")
    parser.add_argument("--precision", nargs="+", choices=DTYPES, help="default: fp32 bf16")
    parser.add_argument("--compiled", choices=("no", "yes", "both"), help="default: no on a CPU")
    parser.add_argument("--work", choices=("prediction", "step"), help="default: both")
    parser.add_argument("--seconds", type=float, default=10.0, help="a measurement takes about")
    parser.add_argument("--quick", action="store_true", help="a minute on two cores")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--cpu-clock", action="store_true",
        help="count this process's seconds, where others share the cores (OMP_NUM_THREADS=1)",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    options = parser.parse_args()
    preset = read_preset(options.case)
    options.device = torch.device(options.device)
    on_gpu = options.device.type == "cuda"
    options.chip_size = options.chip_size or preset.data.chip_size
    options.batch = options.batch or ([8] if options.quick or not on_gpu else [8, 16, 32])
    options.precision = options.precision or ["fp32", "bf16"]
    default = "both" if on_gpu and not options.quick else "no"
    options.modes = {"no": [False], "yes": [True], "both": [False, True]}[
        options.compiled or default
    ]
    options.clock = time.process_time if options.cpu_clock else time.perf_counter
    if options.quick:
        options.seconds = min(options.seconds, 1.0)
    return options


def build_model(preset: Preset, seed: int = 0) -> BiomassModel:
    """Build a preset's model with random weights."""
    torch.manual_seed(seed)
    model = BiomassModel.build(preset.model, STATISTICS)
    if Environment().activation_checkpointing:
        model.network.checkpoint_activations()
    return model


def set_optimisation(
    preset: Preset, batch_size: int, precision: str, compiled: bool
) -> OptimisationParams:
    """Return a preset's optimisation with a batch that is one micro-batch."""
    return preset.optimisation.model_copy(
        update={
            "batch_size": batch_size,
            "micro_batch_size": batch_size,
            "precision": precision,
            "compile": compiled,
        }
    )


def make_batch(n_chips: int, size: int, device: torch.device) -> Batch:
    """Draw chips on a device: values of the right type and range, without any nodata."""
    generator = torch.Generator().manual_seed(0)

    def draw(low: int, high: int, n_bands: int) -> torch.Tensor:
        shape = (n_chips, N_MONTHS, n_bands, size, size)
        return torch.randint(low, high, shape, generator=generator, dtype=torch.int32)

    return Batch(
        torch.arange(n_chips),
        draw(-2500, 0, 4).to(torch.int16),
        draw(1, 100, 11).to(torch.uint16),
        torch.ones(n_chips, N_MONTHS, dtype=torch.bool),
        200 * torch.rand(n_chips, size, size, generator=generator),
    ).to(device)


def time_in_turns(
    variants: Mapping[str, Callable[[], Any]],
    seconds: float,
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Time functions one after another, again and again: what else the machine does hits all.

    Args:
        variants: By name; each is called twice before the clock runs.
        seconds: For each of them, about; at least three calls each.
        device: Whose work is waited for.
        clock: Returns seconds.

    Returns:
        Seconds of each call by name.
    """
    for function in variants.values():
        function(), function()
    times: dict[str, list[float]] = {name: [] for name in variants}
    started = time.perf_counter()
    while len(next(iter(times.values()))) < 3 or time.perf_counter() - started < seconds * len(
        variants
    ):
        for name, function in variants.items():
            times[name].append(_time_call(function, device, clock))
    return times


def _time_call(
    function: Callable[[], Any], device: torch.device, clock: Callable[[], float]
) -> float:
    finish(device)
    started = clock()
    function()
    finish(device)
    return clock() - started


def finish(device: torch.device) -> None:
    """Wait for the device's work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_ceiling(
    device: torch.device, precision: str, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Return the TFLOP/s of a large matrix product: what a network can hope for at most."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.rand(side, side, device=device).to(DTYPES[precision]) for _ in range(2))
    [times] = time_in_turns({"product": lambda: a @ b}, 1.0, device, clock).values()
    return float(2 * side**3 / min(times) / 1e12)


def count_tflop(model: BiomassModel, size: int) -> float:
    """Count the TFLOP of one chip's forward pass with all months; a multiply-add is two."""
    twin = copy.deepcopy(model).to("meta").eval()
    images = torch.empty(1, N_MONTHS, N_BANDS, size, size, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        twin(images)
    return counter.get_total_flops() / 1e12


def reset_peak(device: torch.device) -> None:
    """Forget the largest memory so far."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


def peak_gib(device: torch.device) -> float:
    """Return the largest memory since `reset_peak`, GiB: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text().splitlines()
        [peak] = [line.split()[1] for line in lines if line.startswith("VmHWM")]
        return int(peak) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def describe_machine(options: argparse.Namespace) -> dict[str, str]:
    """Return what a table of times must say with it."""
    device = options.device
    if device.type == "cuda":
        hardware = torch.cuda.get_device_name(device)
    else:
        capability = torch.backends.cpu.get_cpu_capability()
        hardware = f"{torch.get_num_threads()} threads of {platform.machine()} ({capability})"
    return {
        "hardware": hardware,
        "cores": str(count_cores()),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": read_commit(),
        "clock": "this process's seconds" if options.cpu_clock else "wall",
    }


def read_commit() -> str:
    """Return the checkout's commit, or `unknown`."""
    try:
        command = ["git", "describe", "--always", "--dirty"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:  # a machine need not have git
        return "unknown"
    return done.stdout.strip() or "unknown"


def report(options: argparse.Namespace, rows: Sequence[Row], **more: Any) -> None:
    """Print a table, and write it as JSON where that was asked for."""
    machine = describe_machine(options)
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    print(f"case {options.case}, {options.chip_size} pixels")
    for key, value in more.items():
        print(f"{key}: {value}")
    print(format_table(rows))
    if options.json:
        document = {
            "machine": machine,
            "case": options.case,
            "chip_size": options.chip_size,
            **more,
            "rows": rows,
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def format_table(rows: Sequence[Row]) -> str:
    """Return rows of the same keys as a Markdown table."""
    header = list(rows[0])
    cells = [header, *([_format(row[key]) for key in header] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    lines = [
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in cells
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _format(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def median(times: Sequence[float]) -> float:
    """Return the median of times."""
    return statistics.median(times)
