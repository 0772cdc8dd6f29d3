"""Do the intervals hold: coverage of pixels and of areas, on chips that nothing was fitted to.

    OMP_NUM_THREADS=1 python benchmarks/uncertainty.py
    python benchmarks/uncertainty.py --train 40 --calibration 60 --test 60 --epochs 5

Simulates chips of 64 pixels, trains a small model on some, calibrates it on the errors on others,
and asks on a third part how often the target lies within its interval: pixel by pixel in each
decile of the prediction, and for the means of 1 ha, of 16 ha and of whole chips, beside what pixels
that err independently would promise. Chips and predictions stay in --folder: once they are there,
the same again takes seconds. All of it takes a few minutes of one core.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import norm

from biomassters.batches.distributed import ALONE
from biomassters.batches.order import StoreOrder
from biomassters.batches.reading import open_batches
from biomassters.batches.symmetries import views
from biomassters.calibration.areas import split_blocks
from biomassters.calibration.calibration import Calibration
from biomassters.calibration.fitting import calibrate
from biomassters.calibration.held_out import HeldOutChip
from biomassters.dataset.files import (
    ChipRecord,
    FileRecord,
    feature_filename,
    target_filename,
)
from biomassters.model.biomass_model import BiomassModel
from biomassters.model.execution import place_model
from biomassters.packing.assembly import pack_split
from biomassters.params.reading import read_params
from biomassters.params.whole import Params
from biomassters.prediction.inference import predict_batches
from biomassters.simulator.area import ChipArea
from biomassters.simulator.forest import grow_land
from biomassters.simulator.official_files import draw_chip_ids, simulate_files
from biomassters.simulator.weather import draw_weather
from biomassters.sources.synthetic_source import SyntheticSource
from biomassters.statistics.counting import count_pixels, summarise_counts
from biomassters.store.chips import ChipStore
from biomassters.training.checkpoint import Checkpoints
from biomassters.training.engine import Recipe, Trainer
from biomassters.training.kept_weights import AverageWeights
from biomassters.training.optimisation import Schedule
from measuring import ROOT, Row, format_table

BACKBONE: Final = "mobilenetv3_small_050"
PREDICTIONS: Final = "predictions.npz"
AREAS: Final = {"1 ha": 10, "16 ha": 40}
"""Sides of blocks, pixels; whole chips come on top."""


def main() -> None:
    """Predict, calibrate, judge, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=int, default=120, help="chips to train on (120)")
    parser.add_argument("--calibration", type=int, default=400, help="chips to calibrate on (400)")
    parser.add_argument("--test", type=int, default=500, help="chips to judge on (500)")
    parser.add_argument("--chip-size", type=int, default=64, help="pixels (64)")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--level", type=float, default=0.9)
    parser.add_argument("--folder", type=Path, default=ROOT / "work/uncertainty")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    parser.add_argument("--picture", type=Path, help="draw correlation and errors to this file")
    options = parser.parse_args()
    if not (options.folder / PREDICTIONS).exists():
        predict_chips(options)
    with np.load(options.folder / PREDICTIONS) as saved:
        held_out, test = (
            [HeldOutChip.compare(str(i), *maps) for i, maps in enumerate(saved[name])]
            for name in ("calibration", "test")
        )
    calibration = calibrate(held_out, options.level, {"small": "model"})
    print(calibration.describe())
    pixels, areas = judge_pixels(calibration, test), judge_areas(calibration, test)
    for rows in (pixels, areas):
        print(f"\n{format_table(rows)}")
    if options.json:
        document = {"calibration": calibration.model_dump(), "pixels": pixels, "areas": areas}
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if options.picture:
        draw(calibration, test).savefig(options.picture, dpi=100)


def predict_chips(options: argparse.Namespace) -> None:
    """Simulate, train, and save prediction and target of the other chips, (n, 2, H, W), t/ha."""
    preset = read_params(Params, ROOT / "presets/sample.yaml")
    ids = draw_chip_ids(options.train + options.calibration + options.test)
    train = pack(options, "train", ids[: options.train])
    rest = pack(options, "rest", ids[options.train :])
    model = train_model(options, preset, train)
    maps: list[NDArray[np.float32]] = []
    batches = open_batches(rest, StoreOrder(range(len(rest)), preset.predict.batch_size))
    for _, prediction, target, _ in predict_batches(
        [model], batches, views("none"), precision="fp32", progress=True
    ):
        maps.append(np.stack([prediction, target]))
    # The ids say nothing of the chips: the first ones are as good as any.
    parts = {"calibration": maps[: options.calibration], "test": maps[options.calibration :]}
    np.savez_compressed(options.folder / PREDICTIONS, **{k: np.stack(v) for k, v in parts.items()})


def pack(options: argparse.Namespace, name: str, chip_ids: Sequence[str]) -> ChipStore:
    """Pack simulated chips; killed, it goes on where it stopped."""
    path = options.folder / f"{name}.zarr"
    pack_split(
        [describe_chip(chip_id, options.chip_size) for chip_id in sorted(chip_ids)],
        SyntheticSource(options.chip_size),
        path,
        options.folder / f"scratch-{name}",
        chip_size=options.chip_size,
    )
    return ChipStore.open(path)


def describe_chip(chip_id: str, chip_size: int) -> ChipRecord:
    """Return what a catalogue would say of a simulated chip, but for checksums."""
    sizes = measure_files(chip_size)
    present = draw_weather(chip_id, grow_land(ChipArea(chip_id, chip_size)).north).s2_present

    def record(sensor: str, month: int) -> FileRecord:
        filename = feature_filename(chip_id, sensor, month)
        return FileRecord(filename, "features", sizes[sensor], None)

    months = range(len(present))
    return ChipRecord(
        chip_id,
        "train",
        tuple(record("S1", month) for month in months),
        tuple(record("S2", month) if present[month] else None for month in months),
        FileRecord(target_filename(chip_id), "agbm", sizes["agbm"], None),
    )


@cache
def measure_files(chip_size: int) -> dict[str, int]:
    """Return the bytes of an uncompressed file of each kind: `S1`, `S2`, `agbm`."""
    files = simulate_files("any", chip_size)
    return {name.split("_")[1].removesuffix(".tif"): len(data) for name, data in files.items()}


def train_model(options: argparse.Namespace, preset: Params, store: ChipStore) -> BiomassModel:
    """Train a small model by the embedded default's recipe."""
    torch.manual_seed(preset.seed)
    architecture = preset.model.model_copy(update={"backbone": BACKBONE})
    statistics = summarise_counts(count_pixels(store), preset.statistics.source)
    model = place_model(BiomassModel.build(architecture, statistics), ALONE.device)
    phase = preset.train.model_copy(update={"epochs": options.epochs})
    trainer = Trainer(
        model,
        store,
        list(range(len(store))),
        Recipe(
            schedule=Schedule(lr=preset.lr, phase=phase),
            seed=preset.seed,
            optimisation=preset.optimisation,
            augmentation=preset.augmentation,
        ),
        keeper=AverageWeights(first_epoch=options.epochs - 1),
    )
    place = options.folder / "training"
    place.mkdir(exist_ok=True)
    trainer.fit(Checkpoints(place), place / "curves")
    trainer.train_chips.recompute(model, epoch=options.epochs)
    return model.eval()


def judge_pixels(calibration: Calibration, chips: Sequence[HeldOutChip]) -> list[Row]:
    """Return coverage and mean width in each decile of the prediction, and in all, by chips."""
    edges = np.quantile([chip.prediction for chip in chips], np.arange(1, 10) / 10)
    covered: list[list[float]] = [[] for _ in range(11)]
    widths: list[list[float]] = [[] for _ in range(11)]
    for chip in chips:
        known = np.isfinite(chip.error)
        bounds = calibration.intervals(chip.prediction)
        target = chip.prediction + chip.error
        inside = (bounds.lower <= target) & (target <= bounds.upper)
        decile = np.searchsorted(edges, chip.prediction, side="right")
        for number in range(11):
            chosen = known & ((decile == number) | (number == 10))
            if chosen.any():
                covered[number].append(float(inside[chosen].mean()))
                widths[number].append(float((bounds.upper - bounds.lower)[chosen].mean()))
    names = [
        *(f"{low:.0f} to {high:.0f} t/ha" for low, high in zip([0, *edges], edges, strict=False)),
        f"over {edges[-1]:.0f} t/ha",
        "all",
    ]
    return [
        {
            "pixels with a prediction of": name,
            "chips": len(shares),
            "coverage, %": describe_share(shares),
            "width, t/ha": f"{np.mean(width):.0f}",
        }
        for name, shares, width in zip(names, covered, widths, strict=True)
    ]


def judge_areas(calibration: Calibration, chips: Sequence[HeldOutChip]) -> list[Row]:
    """Return the coverage of the means of blocks, and that of the naive interval, by chips."""
    reach = float(norm.ppf((1 + calibration.level) / 2))
    rows = []
    chip_side = chips[0].prediction.shape[0]
    sides = {name: side for name, side in AREAS.items() if side < chip_side}
    for name, side in {**sides, "chip": chip_side}.items():
        covered, naively, ratios, widths = [], [], [], []
        for chip in chips:
            judged = list(judge_blocks(calibration, chip, side, reach))
            of_chip = np.array(judged).mean(axis=0)
            for values, value in zip((covered, naively, ratios, widths), of_chip, strict=True):
                values.append(float(value))
        rows.append(
            {
                "mean of": name,
                "coverage, %": describe_share(covered),
                "width, t/ha": f"{np.mean(widths):.0f}",
                "naive coverage, %": describe_share(naively),
                "standard error / naive": f"{np.mean(ratios):.1f}",
            }
        )
    return rows


def judge_blocks(
    calibration: Calibration, chip: HeldOutChip, side: int, reach: float
) -> Iterator[tuple[float, float, float, float]]:
    """Yield of each block: is it covered, naively, ratio of standard errors, width."""
    deviation = calibration.intervals(chip.prediction).deviation
    images = (chip.prediction, deviation, chip.error)
    for prediction, deviations, error in zip(
        *(split_blocks(image, side) for image in images), strict=True
    ):
        known = np.isfinite(error)
        if known.mean() < 0.5:
            continue
        area = calibration.area_interval(prediction, deviations, known)
        mean = float((prediction + error)[known].mean())
        naive = area.naive_standard_error
        yield (
            area.lower <= mean <= area.upper,
            abs(mean - area.mean) <= reach * naive,
            area.standard_error / naive,
            area.upper - area.lower,
        )


def draw(calibration: Calibration, chips: Sequence[HeldOutChip]) -> Figure:
    """Draw the correlation by distance, and the error of a block's mean by its size."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    fitted = calibration.correlation
    distance, measured = (
        np.array(values[1:])
        for values in (fitted.empirical.distance_px, fitted.empirical.correlation)
    )
    fine = np.linspace(0.5, distance[-1], 200)
    left.plot(10 * distance, measured, "o", ms=4, label="measured")
    left.plot(10 * fine, fitted.at(fine), label="fitted")
    left.axhline(fitted.persistent, color="gray", ls=":", label="persistent share")
    left.set(xlabel="distance, m", ylabel="correlation of errors", ylim=(0, 1), xlim=(0, None))
    left.legend()
    sides = [side for side in (1, 2, 4, 8, 16, 32, 64) if side <= chips[0].prediction.shape[0]]
    errors = np.array([measure_errors(calibration, chips, side) for side in sides])
    styles = {"of test chips": "o", "calibrated": "-", "pixels independent": "--"}
    for (label, style), values in zip(styles.items(), errors.T, strict=True):
        right.plot((np.array(sides) / 10) ** 2, values, style, label=label)
    right.set(xscale="log", yscale="log", xlabel="area, ha", ylabel="error of its mean, t/ha")
    right.grid(alpha=0.3)
    right.legend()
    return figure


def measure_errors(
    calibration: Calibration, chips: Sequence[HeldOutChip], side: int
) -> tuple[float, float, float]:
    """Return the root mean square of blocks' errors, and what is said of it, by chips, t/ha."""
    squares = []
    for chip in chips:
        deviation = calibration.intervals(chip.prediction).deviation
        error, deviations = (split_blocks(image, side) for image in (chip.error, deviation))
        naive = (deviations.astype(np.float64) ** 2).sum((1, 2)) / side**4
        correlated = calibration.correlation.sum_errors(deviations) ** 2 / side**4
        actual = error.mean((1, 2)) ** 2
        squares.append([values.mean() for values in (actual, correlated, naive)])
    actual, correlated, naive = np.sqrt(np.mean(squares, axis=0))
    return float(actual), float(correlated), float(naive)


def describe_share(shares: Sequence[float]) -> str:
    """Return the mean over chips, in percent, with its standard error."""
    error = np.std(shares) / np.sqrt(len(shares))
    return f"{100 * np.mean(shares):.1f} ± {100 * error:.1f}"


if __name__ == "__main__":
    main()
