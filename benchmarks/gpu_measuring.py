"""What `make gpu` measures, and in which order: the winner's recipe, by the other benchmarks.

On the CPU (`--dry`) a model of a few channels takes its place.
"""

import argparse
import functools
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final, Protocol

import timm
import torch

from biomassters.model.biomass_model import BiomassModel
from biomassters.model.execution import autocast, place_model
from biomassters.processes.environment import ACTIVATION_CHECKPOINTING_VARIABLE
from biomassters.store.bands import N_BANDS, N_MONTHS
from biomassters.store.chips import ChipStore
from gpu_profile import find_time
from measuring import (
    FORWARD_PASSES_A_STEP,
    Preset,
    Row,
    build_model,
    count_tflop,
    finish,
    make_batch,
    measure_ceiling,
    read_preset,
)
from model import IDENTITY, describe, make_call, make_step, measure_prediction, measure_step
from training import measure_epoch, pack_chips

GPU: Final = torch.device("cuda")
CPU: Final = torch.device("cpu")

BATCHES: Final = (8, 16, 32)
MICRO_BATCHES: Final = (8, 4)
"""The winner's, and what a card of 24 GB may come down to."""

WARM_UP_CALLS, TIMED_CALLS = 10, 40
"""Of the bare encoder. Source: the defaults of timm's benchmark.py, which is not in its wheel."""

GUESS_S: Final = 20.0
"""How long a task takes, before one of its kind was seen."""
COMPILATIONS: Final = {
    "prediction": (2, 60.0),
    "training step": (1, 120.0),
    "timm's encoder": (1, 45.0),
}
"""How many tasks of a kind compile first, and how long that may take each.

Torch compiles for the first batch and, for batches of any size, for the second; then it knows that
they vary. The same function of another copy of a model is not compiled again.
"""


class Findings(Protocol):
    """What measurements add to."""

    ceiling_tflops: dict[str, float]
    rows: list[Row]
    profiles: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is measured, and where.

    Attributes:
        case: Its name.
        device: The GPU, or the CPU of a dry run.
        preset: Whose model, augmentation and optimizer.
        chip_size: Pixels.
        batches: Chips a forward pass.
        micro_batches: Those of steps in little memory.
        precisions: The arithmetic of most tasks, then those that a few have.
        seconds: That a measurement takes, about.
    """

    case: str
    device: torch.device
    preset: Preset
    chip_size: int
    batches: tuple[int, ...]
    micro_batches: tuple[int, ...]
    precisions: tuple[str, ...]
    seconds: float

    @property
    def step_precision(self) -> str:
        """Return the arithmetic of the recipe's own training."""
        return self.preset.optimisation.precision

    def describe(self) -> dict[str, Any]:
        """Return it for the JSON."""
        return {
            "case": self.case,
            "backbone": self.preset.model.backbone,
            "chip_size": self.chip_size,
            "batches": list(self.batches),
            "precisions": list(self.precisions),
            "micro_batches": list(self.micro_batches),
            "step_precision": self.step_precision,
        }


def gpu_setting() -> Setting:
    """Return the winner's recipe on the first GPU."""
    preset = read_preset("winner")
    return Setting(
        case="winner", device=GPU, preset=preset, chip_size=preset.data.chip_size,
        batches=BATCHES, micro_batches=MICRO_BATCHES, precisions=("bf16", "fp16"), seconds=1.5,
    )  # fmt: skip


def dry_setting() -> Setting:
    """Return a model of a few channels on the CPU."""
    preset = read_preset("embedded")
    small = {"backbone": "mobilenetv3_small_050", "decoder_channels": (16, 16, 8, 8, 8)}
    preset = preset.model_copy(update={"model": preset.model.model_copy(update=small)})
    return Setting(
        case="dry run", device=CPU, preset=preset, chip_size=32,
        batches=(2,), micro_batches=(2,), precisions=("fp32",), seconds=0.0,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Work:
    """One measurement.

    Attributes:
        kind: What is done; a key of `Measuring.by_kind`.
        batch: Chips a forward pass.
        precision: Arithmetic.
        compiled: Whether by torch's compiler.
    """

    kind: str
    batch: int
    precision: str
    compiled: bool = False

    @property
    def mode(self) -> str:
        """Return whether it is compiled, for people."""
        return "compiled" if self.compiled else "eager"

    @property
    def name(self) -> str:
        """Return all of it, for people."""
        return f"{self.kind}, batch {self.batch}, {self.precision}, {self.mode}"


def list_works(setting: Setting) -> Iterator[Work]:
    """Yield the measurements: what matters most and takes least comes first."""
    precision, *others = setting.precisions
    middle = setting.batches[len(setting.batches) // 2]
    usual = ("prediction", "training step", "end to end")
    profiles = ("profile of prediction", "profile of training step")

    def of(
        kinds: Sequence[str], batches: Sequence[int], arithmetic: str, *, compiled: bool = False
    ) -> Iterator[Work]:
        for batch, kind in product(batches, kinds):
            yield Work(kind=kind, batch=batch, precision=arithmetic, compiled=compiled)

    yield from of((*usual, "timm's encoder"), setting.batches, precision)
    yield from of(profiles, [middle], precision)
    yield from of(["step in little memory"], setting.micro_batches, setting.step_precision)
    for other in others:
        yield from of(usual[:2], [middle], other)
    middle_first = sorted(setting.batches, key=lambda batch: batch != middle)
    for kind in usual:
        yield from of([kind], middle_first, precision, compiled=True)
    yield from of(["timm's encoder"], [middle], precision, compiled=True)
    if setting.device == GPU:  # a dry run compiles nothing: it would be the same again
        yield from of(profiles, [middle], precision, compiled=True)


def list_tasks(setting: Setting, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the fields of each task, in order; see `gpu_tasks.Task`."""
    measuring = Measuring(setting, folder)
    for precision in setting.precisions:
        run = functools.partial(measuring.measure_ceiling, precision)
        yield {"name": f"ceiling, {precision}", "kind": "ceiling", "guess_s": 0.0, "run": run}
    n_compiled: dict[str, int] = defaultdict(int)
    for work in list_works(setting):
        n_compiled[work.kind] += work.compiled
        n_compiling, compiling_s = COMPILATIONS.get(work.kind, (0, 0.0))
        compiles = work.compiled and n_compiled[work.kind] <= n_compiling
        guess_s = compiling_s if compiles else GUESS_S
        yield {
            "name": work.name,
            "kind": f"{work.kind}, {'compiling' if compiles else 'running'}",
            "guess_s": guess_s if setting.device == GPU else 0.0,
            "run": functools.partial(measuring.by_kind[work.kind], work),
        }


class Measuring:
    """The measurements, with what several of them share: a model, a store of chips."""

    def __init__(self, setting: Setting, folder: Path) -> None:
        self.setting = setting
        self.folder = folder
        self.by_kind: dict[str, Callable[[Work, Findings], None]] = {
            "prediction": self.measure_prediction,
            "training step": self.measure_step,
            "end to end": self.measure_epoch,
            "timm's encoder": self.measure_encoder,
            "profile of prediction": self.profile_prediction,
            "profile of training step": self.profile_step,
            "step in little memory": self.measure_little_memory,
        }

    @functools.cached_property
    def model(self) -> BiomassModel:
        """Return the model, with random weights; to be copied."""
        return build_model(self.setting.preset)

    @functools.cached_property
    def store(self) -> ChipStore:
        """Return a store of a few simulated chips."""
        return pack_chips(self.folder, self.setting.chip_size)

    @functools.cached_property
    def tflop(self) -> float:
        """Return the TFLOP of a chip's forward pass."""
        return count_tflop(self.model, self.setting.chip_size)

    def measure_ceiling(self, precision: str, found: Findings) -> None:
        """Measure what a network can hope for at most."""
        found.ceiling_tflops[precision] = measure_ceiling(self.setting.device, precision)

    def measure_prediction(self, work: Work, found: Findings) -> None:
        """Measure prediction, one view a chip, in turns with the plain model."""
        options = self._options(work)
        options.quick = True  # four views a chip would take four times as long
        _, row = measure_prediction(options, self.model, work.batch, "torch")
        self._add(found, row, 1)

    def measure_step(self, work: Work, found: Findings) -> None:
        """Measure training steps on chips that lie on the device."""
        row = measure_step(self._options(work), *self._of_step(work))
        self._add(found, row | {"work": work.kind}, FORWARD_PASSES_A_STEP)

    def measure_little_memory(self, work: Work, found: Findings) -> None:
        """Measure training steps that keep few activations."""
        with few_activations():
            self.measure_step(work, found)

    def measure_epoch(self, work: Work, found: Findings) -> None:
        """Measure training from a store: reading, copying, augmenting and stepping."""
        preset, *rest = self._of_step(work)
        row = measure_epoch(self._options(work), preset, self.store, *rest)
        self._add(found, row | {"work": work.kind}, FORWARD_PASSES_A_STEP)

    @torch.no_grad()
    def measure_encoder(self, work: Work, found: Findings) -> None:
        """Measure the bare encoder as timm's own benchmark does, on all months of a batch.

        That is: forward passes in autocast and channels last, the device waited for after each, and
        their mean. Without the classifier's head, and with 15 bands for its 3.
        """
        device, size = self.setting.device, self.setting.chip_size
        name = self.setting.preset.model.backbone
        encoder = timm.create_model(name, features_only=True, in_chans=N_BANDS, pretrained=False)
        encoder = place_model(encoder, device).eval()
        if work.compiled:
            encoder = torch.compile(encoder)
        images = torch.randn(work.batch * N_MONTHS, N_BANDS, size, size, device=device)
        images = images.contiguous(memory_format=torch.channels_last)
        n_warm_up, n_timed = (1, 1) if device == CPU else (WARM_UP_CALLS, TIMED_CALLS)
        for call in range(n_warm_up + n_timed):
            if call == n_warm_up:
                started = time.perf_counter()
            with autocast(device, work.precision):
                encoder(images)
            finish(device)
        seconds = (time.perf_counter() - started) / n_timed
        row = describe(work.kind, work.precision, work.mode, work.batch, seconds)
        found.rows.append(row | {"images/s": len(images) / seconds})

    def profile_prediction(self, work: Work, found: Findings) -> None:
        """Find out where a prediction's time goes."""
        device = self.setting.device
        model = place_model(build_model(self.setting.preset), device).eval()
        if work.compiled:
            model.compile_network()
        chips = make_batch(work.batch, self.setting.chip_size, device)
        call = make_call([model], chips, IDENTITY, work.precision)
        found.profiles[work.name] = find_time(call, device)

    def profile_step(self, work: Work, found: Findings) -> None:
        """Find out where a training step's time goes."""
        call = make_step(self._options(work), *self._of_step(work))
        found.profiles[work.name] = find_time(call, self.setting.device)

    def _options(self, work: Work) -> argparse.Namespace:
        """Return the options of the other benchmarks."""
        return argparse.Namespace(
            device=self.setting.device,
            chip_size=self.setting.chip_size,
            precision=[work.precision],
            modes=[work.compiled],
            seconds=self.setting.seconds,
            clock=time.perf_counter,
            quick=self.setting.device == CPU,
        )

    def _of_step(self, work: Work) -> tuple[Preset, int, str, bool]:
        return self.setting.preset, work.batch, work.precision, work.compiled

    def _add(self, found: Findings, row: Row, n_passes: int) -> None:
        tflops = row["chips/s"] * n_passes * self.tflop
        ceiling = found.ceiling_tflops.get(row["precision"])
        share = tflops / ceiling if ceiling else None
        found.rows.append(row | {"TFLOP/s": tflops, "of the ceiling": share})


@contextmanager
def few_activations() -> Iterator[None]:
    """Let models that are built here keep few activations."""
    before = os.environ.get(ACTIVATION_CHECKPOINTING_VARIABLE)
    os.environ[ACTIVATION_CHECKPOINTING_VARIABLE] = "1"
    try:
        yield
    finally:
        del os.environ[ACTIVATION_CHECKPOINTING_VARIABLE]
        if before is not None:
            os.environ[ACTIVATION_CHECKPOINTING_VARIABLE] = before
