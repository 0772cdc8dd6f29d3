"""Stage `evaluate`: score the test predictions and each fold's own validation, and draw them."""

import json
from functools import partial
from pathlib import Path

from biomassters.calibration.calibration import read_calibration
from biomassters.evaluation.judged_sets import open_held_out, open_predictions
from biomassters.evaluation.plots import draw_histograms
from biomassters.evaluation.report import ChipSet, score_set, write_figure, write_table
from biomassters.evaluation.scores import (
    Baseline,
    check_predictions,
    find_baselines,
    list_models,
    mean_without,
)
from biomassters.fingerprint.stage_inputs import hold_inputs
from biomassters.params.reading import read_params
from biomassters.params.sections import Folds, PredictedModels, Section
from biomassters.processes.ending import run_script
from biomassters.processes.packages import list_versions
from biomassters.processes.writing import write_whole
from biomassters.statistics.figures import read_statistics
from biomassters.statistics.histograms import read_histograms
from biomassters.store.chips import ChipStore

METRICS = Path("metrics/evaluation.json")
FOLDER = Path("metrics/evaluation")
HISTOGRAMS = Path("metrics/band_statistics/histograms.csv")
PREDICTIONS = Path("predictions")
VALIDATION = Path("validation")
BASELINES = Path("baselines")


class Params(Section):
    """What this stage reads of params.yaml."""

    folds: Folds
    predict: PredictedModels


def main() -> None:
    """Score and draw each set of chips that has targets."""
    with hold_inputs(__file__):
        evaluate_maps(read_params(Params))


def evaluate_maps(params: Params) -> None:
    """Score and draw, and write what this stage hands over."""
    train, test = (ChipStore.open(Path(f"chips/{split}.zarr")) for split in ("train", "test"))
    fold_names: dict[int, str] = {}
    baselines: tuple[Baseline | None, Baseline | None] = None, None
    if len(train):
        fold_names = {fold: f"fold-{fold}" for fold in params.folds}
        target = read_statistics(Path("statistics.json")).target
        baselines = lambda _: target.mean, partial(mean_without, target.mean, target.pixels)
    models = list_models(params.predict.models, fold_names.values(), PREDICTIONS, test.chip_ids)
    check_predictions(PREDICTIONS, test.chip_ids, models)

    calibration = read_calibration(Path(params.predict.calibration))
    sets = []
    if test.has_targets:
        judged = open_predictions(test, PREDICTIONS, calibration)
        others = find_baselines(BASELINES, "test")
        sets.append(ChipSet("test", test, PREDICTIONS, baselines[0], others, judged))
    held_out = open_held_out(train, VALIDATION, list(fold_names), calibration)
    for name in fold_names.values():
        folder, others = VALIDATION / name, find_baselines(BASELINES, name)
        sets.append(ChipSet(name, train, folder, baselines[1], others, held_out.get(name)))
    images = FOLDER / "images"
    images.mkdir(parents=True, exist_ok=True)
    scores = {chips.name: score_set(chips, images) for chips in sets}
    metrics: dict[str, object] = {"unit": "t/ha", "packages": list_versions()}
    if test.has_targets:
        metrics["test"] = scores["test"].describe()
    else:
        print("no targets of test chips, no score of them")
    metrics["validation"] = {
        f"fold_{fold}": scores[name].describe() for fold, name in fold_names.items()
    }
    if not len(train):
        print("no train chips, no validation and no training mean to compare with")
    write_table(FOLDER / "chips.csv", scores)
    if histograms := read_histograms(HISTOGRAMS):
        write_figure(images / "histograms.png", draw_histograms(histograms))
    write_whole(METRICS, json.dumps(metrics, indent=2).encode() + b"\n")


if __name__ == "__main__":
    run_script(main)
