"""Stage `evaluate`: score the test predictions and each fold's own validation, and draw them."""

import csv
import json
from pathlib import Path

from pydantic import NonNegativeInt

from biomassters.evaluation.plots import draw_histograms
from biomassters.evaluation.report import score_set, write_table
from biomassters.evaluation.scores import check_predictions, list_models, mean_without
from biomassters.params.reading import read_params
from biomassters.params.sections import PredictedModels, Section
from biomassters.processes.scripts import run_script
from biomassters.statistics.figures import read_statistics
from biomassters.store.chips import ChipStore

METRICS = Path("metrics/evaluation.json")
FOLDER = Path("metrics/evaluation")
HISTOGRAMS = Path("metrics/band_statistics/histograms.csv")
PREDICTIONS = Path("predictions")


class Params(Section):
    """What this stage reads of params.yaml."""

    folds: tuple[NonNegativeInt, ...]
    predict: PredictedModels


def main() -> None:
    """Score and draw each set of chips that has targets."""
    params = read_params(Params)
    target = read_statistics(Path("statistics.json")).target
    train, test = (ChipStore.open(Path(f"chips/{split}.zarr")) for split in ("train", "test"))
    fold_names = {fold: f"fold-{fold}" for fold in params.folds}
    models = list_models(params.predict.models, fold_names.values(), PREDICTIONS, test.chip_ids)
    check_predictions(PREDICTIONS, test.chip_ids, models)

    images = FOLDER / "images"
    images.mkdir(parents=True, exist_ok=True)
    sets = {}
    metrics: dict[str, object] = {"unit": "t/ha"}
    if test.has_targets:
        sets["test"] = score_set("test", test, PREDICTIONS, lambda _: target.mean, images)
        metrics["test"] = sets["test"].summarise()
    for name in fold_names.values():
        sets[name] = score_set(
            name,
            train,
            Path("validation") / name,
            lambda held_out: mean_without(target.mean, target.pixels, held_out),
            images,
        )
    metrics["validation"] = {
        f"fold_{fold}": sets[fold_names[fold]].summarise() for fold in params.folds
    }
    write_table(FOLDER / "chips.csv", sets)
    draw_histograms(read_histograms(HISTOGRAMS)).savefig(images / "histograms.png")
    METRICS.write_text(json.dumps(metrics, indent=2) + "\n")


def read_histograms(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Read the middles of the bins and the shares of the pixels in them, by band."""
    histograms: dict[str, list[tuple[float, float]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            bins = histograms.setdefault(row["band"], [])
            bins.append((float(row["value"]), float(row["share"])))
    return histograms


if __name__ == "__main__":
    run_script(main)
