"""Speed of whole epochs: from a chip store through threads and augmentation to the optimizer.

    python benchmarks/training.py --quick
    python benchmarks/training.py --case winner --batch 16 --json training.json

The chips are simulated and packed in a temporary folder; there are few, so that they come from
memory, not from a disk.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import torch
from tqdm import tqdm

from biomassters.batches.order import EpochOrder, StoreOrder
from biomassters.batches.reading import open_batches
from biomassters.dataset.catalogue import read_catalogue
from biomassters.model.execution import place_model
from biomassters.packing.assembly import pack_split
from biomassters.simulator.official_files import write_catalogue
from biomassters.sources.synthetic_source import SyntheticSource
from biomassters.store.chips import ChipStore
from biomassters.training.engine import Recipe, Trainer
from biomassters.training.kept_weights import AverageWeights
from biomassters.training.optimisation import Schedule
from biomassters.training.preparation import Prepared
from measuring import (
    FORWARD_PASSES_A_STEP,
    Preset,
    Row,
    build_model,
    count_tflop,
    measure_ceiling,
    parse_options,
    peak_gib,
    read_preset,
    report,
    reset_peak,
    set_optimisation,
)

N_CHIPS = 8
"""Different chips in the store; an epoch visits them again and again."""


class Waiting:
    """What opens batches, and how long each was waited for."""

    def __init__(self, open_batches: Callable[[EpochOrder], Iterator[Prepared]]) -> None:
        self.open_batches = open_batches
        self.seconds = 0.0

    def __call__(self, order: EpochOrder) -> Iterator[Prepared]:
        """Yield them, and count."""
        iterator = self.open_batches(order)
        while True:
            started = time.perf_counter()
            batch = next(iterator, None)
            self.seconds += time.perf_counter() - started
            if batch is None:
                return
            yield batch


def main() -> None:
    """Measure all that the options ask for."""
    options = parse_options(__doc__)
    preset = read_preset(options.case)
    tflop = FORWARD_PASSES_A_STEP * count_tflop(build_model(preset), options.chip_size)
    ceilings = {name: measure_ceiling(options.device, name) for name in options.precision}
    with tempfile.TemporaryDirectory() as folder:
        store = pack_chips(Path(folder), options.chip_size)
        readings = measure_reading(store, max(options.batch))
        rows = [
            measure_epoch(options, preset, store, *variant)
            for variant in product(options.batch, options.precision, options.modes)
        ]
    for row in rows:
        row["TFLOP/s"] = row["chips/s"] * tflop
        row["of the ceiling"] = row["TFLOP/s"] / ceilings[row["precision"]]
    report(
        options, rows, tflop_a_chip=tflop, ceiling_tflops=ceilings, read_chips_per_second=readings
    )


def pack_chips(folder: Path, chip_size: int) -> ChipStore:
    """Pack simulated chips."""
    write_catalogue(folder / "data", n_train=N_CHIPS, n_test=1, chip_size=chip_size)
    chips = read_catalogue(folder / "data").chips("train")
    path = folder / "train.zarr"
    pack_split(chips, SyntheticSource(chip_size), path, folder / "scratch", chip_size=chip_size)
    return ChipStore.open(path)


def measure_reading(store: ChipStore, batch_size: int) -> float:
    """Return chips a second that the threads read while nothing else is done."""
    order = StoreOrder(list(range(len(store.chip_ids))) * 8, batch_size)
    batches = open_batches(store, order)
    seconds = []
    for _ in range(2):  # the first one starts the threads
        started = time.perf_counter()
        for _ in batches:
            pass
        seconds.append(time.perf_counter() - started)
    return len(order.indices) / seconds[-1]


def measure_epoch(
    options: argparse.Namespace,
    preset: Preset,
    store: ChipStore,
    batch_size: int,
    precision: str,
    compiled: bool,
) -> Row:
    """Time an epoch of the trainer, after one that warms up."""
    n_steps = 4 if options.quick else 30
    optimisation = set_optimisation(preset, batch_size, precision, compiled)
    trainer = Trainer(
        model=place_model(build_model(preset), options.device),
        store=store,
        indices=[step % N_CHIPS for step in range(n_steps * batch_size)],
        recipe=Recipe(
            schedule=Schedule(lr=preset.lr, phase=preset.train),
            seed=0,
            optimisation=optimisation,
            augmentation=preset.augmentation,
        ),
        keeper=AverageWeights(first_epoch=0),
    )
    reset_peak(options.device)
    waiting = Waiting(trainer.preparation.open_batches)
    trainer.preparation.open_batches = waiting  # type: ignore[method-assign]
    bar = tqdm(disable=True)
    trainer._train_epoch(0, bar)
    waiting.seconds = 0.0
    started = time.perf_counter()
    trainer._train_epoch(1, bar)
    seconds = time.perf_counter() - started
    return {
        "work": "epoch",
        "precision": precision,
        "mode": "compiled" if compiled else "eager",
        "batch": batch_size,
        "ms a step": 1000 * seconds / n_steps,
        "chips/s": n_steps * batch_size / seconds,
        "waiting for data": waiting.seconds / seconds,
        "GiB": peak_gib(options.device),
    }


if __name__ == "__main__":
    torch.set_float32_matmul_precision("highest")
    main()
