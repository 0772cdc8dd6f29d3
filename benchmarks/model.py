"""Speed of the model on chips that lie on the device: prediction, and the training step.

    python benchmarks/model.py --quick
    python benchmarks/model.py --case winner --batch 8 16 --json model.json

Prediction is compared with the plain model (float32, eager, contiguous), measured in turns
with the others, so that the ratios hold on a busy machine too.
"""

import argparse
import copy
from collections.abc import Callable
from itertools import product
from types import SimpleNamespace
from typing import Any, cast

import torch

from biomassters.batches.reading import Batch
from biomassters.batches.symmetries import FLIPS
from biomassters.model.biomass_model import BiomassModel
from biomassters.model.execution import place_model
from biomassters.params.sections import EngineName
from biomassters.prediction.engines import Predictor, choose_engine
from biomassters.prediction.inference import predict_views
from biomassters.training.engine import Recipe, Trainer
from biomassters.training.kept_weights import AverageWeights
from biomassters.training.optimisation import Schedule
from measuring import (
    FORWARD_PASSES_A_STEP,
    Preset,
    Row,
    build_model,
    count_tflop,
    make_batch,
    measure_ceiling,
    median,
    parse_options,
    peak_gib,
    read_preset,
    report,
    reset_peak,
    set_optimisation,
    time_in_turns,
)

IDENTITY = (0,)


def main() -> None:
    """Measure all that the options ask for."""
    options = parse_options(__doc__)
    preset = read_preset(options.case)
    model = build_model(preset)
    forward = count_tflop(model, options.chip_size)
    tflop = {"prediction": forward, "training step": FORWARD_PASSES_A_STEP * forward}
    needed = dict.fromkeys(["fp32", *options.precision])  # the plain model is float32
    ceilings = {name: measure_ceiling(options.device, name, options.clock) for name in needed}
    rows = []
    for n_chips in options.batch:
        if options.work != "step":
            rows += measure_prediction(options, model, n_chips)
        if options.work == "prediction":
            continue
        for precision, compiled in product(options.precision, options.modes):
            rows.append(measure_step(options, preset, n_chips, precision, compiled))
    for row in rows:
        # Prediction is of one view a chip, or of four.
        row["TFLOP/s"] = row["views/s"] * tflop[row["work"]]
        row["of the ceiling"] = row["TFLOP/s"] / ceilings[row["precision"]]
    report(options, rows, tflop_a_chip=tflop, ceiling_tflops=ceilings)


def measure_prediction(
    options: argparse.Namespace, model: BiomassModel, n_chips: int, engine: EngineName = "auto"
) -> list[Row]:
    """Time the inference path in all arithmetics, in turns with the plain model."""
    batch = make_batch(n_chips, options.chip_size, options.device)
    plain = copy.deepcopy(model).to(options.device).eval()
    calls = {("fp32", "plain", 1): make_call([plain], batch, IDENTITY, "fp32")}
    for precision, compiled in product(options.precision, options.modes):
        placed = place_model(copy.deepcopy(model), options.device).eval()
        if compiled:
            placed.compile_network()
        # `auto` is OpenVINO on a CPU.
        predictor = (
            placed
            if compiled
            else choose_engine(placed, engine, precision=precision, chip_size=options.chip_size)
        )
        mode = "compiled" if compiled else "eager" if predictor is placed else "openvino"
        calls[precision, mode, 1] = make_call([predictor], batch, IDENTITY, precision)
        if not options.quick:
            calls[precision, mode, len(FLIPS)] = make_call([predictor], batch, FLIPS, precision)
    named = {str(key): call for key, call in calls.items()}
    times = time_in_turns(named, options.seconds, options.device, options.clock)
    slow = median(times[str(("fp32", "plain", 1))])
    rows = []
    for (precision, mode, n_views), call in calls.items():
        seconds = median(times[str((precision, mode, n_views))])
        reset_peak(options.device)
        call()
        row = describe("prediction", precision, mode, n_chips, seconds)
        row |= {"views": n_views, "views/s": n_views * n_chips / seconds}
        rows.append(
            row | {"times plain": slow * n_views / seconds, "GiB": peak_gib(options.device)}
        )
    return rows


def make_call(
    models: list[Predictor], batch: Batch, views: tuple[int, ...], precision: str
) -> Callable[[], Any]:
    """Return a prediction to be timed."""
    return lambda: predict_views(models, batch, views, precision)


def measure_step(
    options: argparse.Namespace, preset: Preset, n_chips: int, precision: str, compiled: bool
) -> Row:
    """Time whole steps of the trainer, augmentation and optimizer included."""
    take_step = make_step(options, preset, n_chips, precision, compiled)
    reset_peak(options.device)
    [times] = time_in_turns(
        {"step": take_step}, options.seconds, options.device, options.clock
    ).values()
    seconds = median(times)
    mode = "compiled" if compiled else "eager"
    row = describe("training step", precision, mode, n_chips, seconds)
    row |= {"views": 1, "views/s": n_chips / seconds, "times plain": "-"}
    return row | {"GiB": peak_gib(options.device)}


def make_step(
    options: argparse.Namespace, preset: Preset, n_chips: int, precision: str, compiled: bool
) -> Callable[[], None]:
    """Return a step of the trainer to be timed; each call takes another one."""
    batch = make_batch(n_chips, options.chip_size, options.device)
    trainer = build_trainer(options, preset, n_chips, precision, compiled)
    trainer.model.train()
    steps = iter(range(10**9))

    def take_step() -> None:
        step = next(steps)
        # Other chips each time, so that other months are dropped.
        indices = torch.arange(n_chips) + step * n_chips
        prepared = trainer.preparation.prepare(batch._replace(chip_index=indices))
        trainer._take_step(iter([prepared]), 0, step)

    return take_step


def describe(work: str, precision: str, mode: str, n_chips: int, seconds: float) -> Row:
    """Return the first columns of a row."""
    return {
        "work": work,
        "precision": precision,
        "mode": mode,
        "batch": n_chips,
        "ms": 1000 * seconds,
        "chips/s": n_chips / seconds,
    }


def build_trainer(
    options: argparse.Namespace, preset: Preset, n_chips: int, precision: str, compiled: bool
) -> Trainer:
    """Return the trainer of the train stage, whose store is never read."""
    optimisation = set_optimisation(preset, n_chips, precision, compiled)
    recipe = Recipe(
        schedule=Schedule(lr=preset.lr, phase=preset.train),
        seed=0,
        optimisation=optimisation,
        augmentation=preset.augmentation,
    )
    store = SimpleNamespace(chip_ids=["chip"] * n_chips, chip_size=options.chip_size)
    return Trainer(
        model=place_model(build_model(preset), options.device),
        store=cast(Any, store),
        indices=list(range(n_chips)),
        recipe=recipe,
        keeper=AverageWeights(first_epoch=0),
    )


if __name__ == "__main__":
    main()
