"""Is a validation curve one to believe: with the statistics that steps leave, and with new ones.

    OMP_NUM_THREADS=1 python benchmarks/validation_jumps.py
    python benchmarks/validation_jumps.py --seeds 0 1 --normalisation minmax --json jumps.json

Trains the embedded default's first fold once a seed, on the chips of its catalogue, and scores the
weights of every epoch twice: with the running statistics of batch normalisation as the last steps
left them, and computed anew from train chips (`optimisation.batch_norm_chips`). No step of a
training depends on them, so that both curves are of the same weights. A seed takes a minute on two
cores.
"""

import argparse
import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from biomassters.batches.distributed import ALONE
from biomassters.batches.order import StoreOrder
from biomassters.batches.reading import Batches, open_batches
from biomassters.batches.symmetries import IDENTITY
from biomassters.dataset.catalogue import read_catalogue
from biomassters.model.biomass_model import BiomassModel
from biomassters.model.execution import place_model
from biomassters.packing.assembly import pack_split
from biomassters.params.reading import read_params
from biomassters.params.whole import Params
from biomassters.prediction.inference import predict_own_batches
from biomassters.prediction.metrics import ErrorSums
from biomassters.sources.synthetic_source import SyntheticSource
from biomassters.statistics.counting import count_pixels, summarise_counts
from biomassters.statistics.figures import Statistics
from biomassters.store.chips import ChipStore
from biomassters.training.checkpoint import Checkpoints
from biomassters.training.engine import Recipe, Trainer
from biomassters.training.folds import split_chips
from biomassters.training.kept_weights import AverageWeights
from biomassters.training.norm_statistics import TrainChips
from biomassters.training.optimisation import Schedule
from measuring import ROOT, Row, format_table

LEFT, ANEW = "as the steps leave them", "computed anew"

Curve = list[tuple[float, float]]
"""Chip RMSE of each epoch, and of its worst chip, t/ha."""


def main() -> None:
    """Train all seeds; print, draw and write what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--normalisation", choices=("zscore", "minmax", "percentile"))
    parser.add_argument("--epochs", type=int, help="default: the preset's")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    parser.add_argument("--picture", type=Path, help="draw the curves to this file")
    options = parser.parse_args()
    preset = read_params(Params, ROOT / "presets/sample.yaml")
    if options.normalisation:
        model = preset.model.model_copy(update={"normalisation": options.normalisation})
        preset = preset.model_copy(update={"model": model})
    if options.epochs:
        phase = preset.train.model_copy(update={"epochs": options.epochs})
        preset = preset.model_copy(update={"train": phase})
    curves = {}
    with tempfile.TemporaryDirectory() as folder:
        store, statistics = pack_chips(Path(folder), preset)
        for seed in options.seeds:
            curves[seed] = train(Path(folder), store, statistics, preset, seed)
            print(format_table(tabulate({seed: curves[seed]})), flush=True)
    print(format_table(tabulate(curves)))
    if options.json:
        options.json.write_text(json.dumps(curves, indent=2) + "\n", encoding="utf-8")
    if options.picture:
        draw(curves).savefig(options.picture, dpi=100)


def pack_chips(folder: Path, preset: Params) -> tuple[ChipStore, Statistics]:
    """Pack the train chips of the embedded catalogue, and count their pixels."""
    chips = read_catalogue(ROOT / "src/catalogue/synthetic").chips("train")
    path, size = folder / "train.zarr", preset.data.chip_size
    pack_split(chips, SyntheticSource(size), path, folder / "scratch", chip_size=size)
    store = ChipStore.open(path)
    return store, summarise_counts(count_pixels(store), preset.statistics.source)


def train(
    folder: Path,
    store: ChipStore,
    statistics: Statistics,
    preset: Params,
    seed: int,
) -> dict[str, Curve]:
    """Train one seed of the first fold; return both of its curves."""
    training, held_out = split_chips(store, preset.split, fold=0)
    optimisation = preset.optimisation
    chips = TrainChips(
        store,
        training,
        n_chips=optimisation.batch_norm_chips,
        seed=seed,
        precision=optimisation.precision,
    )
    batches = open_batches(store, StoreOrder(held_out, optimisation.micro_batch_size))
    curves: dict[str, Curve] = {LEFT: [], ANEW: []}

    def validate(model: BiomassModel) -> dict[str, float]:
        again = copy.deepcopy(model)
        chips.recompute(again, epoch=len(curves[ANEW]))
        for name, scored in ((LEFT, model), (ANEW, again)):
            curves[name].append(score(scored, batches, store.chip_ids, optimisation.precision))
        return {}

    torch.manual_seed(seed)
    trainer = Trainer(
        place_model(BiomassModel.build(preset.model, statistics), ALONE.device),
        store,
        training,
        Recipe(
            schedule=Schedule(lr=preset.lr, phase=preset.train),
            seed=seed,
            optimisation=optimisation.model_copy(update={"batch_norm_chips": 0}),
            augmentation=preset.augmentation,
        ),
        keeper=AverageWeights(first_epoch=preset.train.epochs),
        validate=validate,
    )
    place = folder / f"seed-{seed}"
    place.mkdir()
    trainer.fit(Checkpoints(place), place / "curves")
    return curves


def score(
    model: BiomassModel, batches: Batches, chip_ids: list[str], precision: str
) -> tuple[float, float]:
    """Return the chip RMSE of the plain view, and that of the worst chip, t/ha."""
    sums = ErrorSums()
    for batch in predict_own_batches([model], batches, {"plain": (IDENTITY,)}, precision):
        for index, prediction, target in zip(
            batch.chip_index, batch.predictions["plain"], batch.target, strict=True
        ):
            sums.add(chip_ids[index], prediction, target)
    return float(sums.chip_rmses.mean()), float(sums.chip_rmses.max())


def tabulate(curves: dict[int, dict[str, Curve]]) -> list[Row]:
    """Return the curves, a row each, with the worst chip of any epoch."""
    rows = []
    for name in (LEFT, ANEW):
        for seed, of_seed in curves.items():
            curve = of_seed[name]
            row: dict[str, Any] = {"statistics": name, "seed": seed}
            row |= {str(epoch): f"{mean:.0f}" for epoch, (mean, _) in enumerate(curve, start=1)}
            row["worst chip"] = f"{max(worst for _, worst in curve):,.0f}"
            rows.append(row)
    return rows


def draw(curves: dict[int, dict[str, Curve]]) -> Figure:
    """Draw both kinds of curves beside each other, on one logarithmic scale."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, name in zip(axes, (LEFT, ANEW), strict=True):
        for seed, of_seed in curves.items():
            means = [mean for mean, _ in of_seed[name]]
            axis.plot(range(1, len(means) + 1), means, label=f"seed {seed}")
        axis.set(title=name, xlabel="epoch", yscale="log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(ScalarFormatter())
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.grid(alpha=0.3, which="both")
    axes[0].set_ylabel("validation chip RMSE, t/ha")
    axes[1].legend()
    return figure


if __name__ == "__main__":
    main()
