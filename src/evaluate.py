"""Stage `evaluate`: score the test predictions and each fold's own validation, and draw them."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import NonNegativeInt

from biomassters.evaluation.plots import (
    Panel,
    draw_density,
    draw_error_by_bin,
    draw_histograms,
    draw_panels,
)
from biomassters.evaluation.scores import (
    DENSITY_EDGES,
    Scores,
    check_predictions,
    choose_panel_chips,
    mean_without,
    open_maps,
    score_maps,
)
from biomassters.params.reading import read_params
from biomassters.params.sections import PredictedModels, Section
from biomassters.prediction.maps import read_prediction
from biomassters.prediction.metrics import ErrorSums
from biomassters.processes.scripts import run_script
from biomassters.statistics.figures import read_statistics
from biomassters.statistics.histograms import read_histograms
from biomassters.store.chips import ChipStore

METRICS = Path("metrics/evaluation.json")
FOLDER = Path("metrics/evaluation")
HISTOGRAMS = Path("metrics/band_statistics/histograms.csv")
PREDICTIONS = Path("predictions")
N_PANELS = 4


class Params(Section):
    """What this stage reads of params.yaml."""

    folds: tuple[NonNegativeInt, ...]
    predict: PredictedModels


def main() -> None:
    """Score and draw each set of chips that has targets."""
    params = read_params(Params)
    target = read_statistics(Path("statistics.json")).target
    train, test = (ChipStore.open(Path(f"chips/{split}.zarr")) for split in ("train", "test"))
    fold_names = [f"fold-{fold}" for fold in params.folds]
    models = list_models(params.predict.models, fold_names, test.chip_ids)
    check_predictions(PREDICTIONS, test.chip_ids, models)

    (FOLDER / "images").mkdir(parents=True, exist_ok=True)
    metrics: dict[str, object] = {"unit": "t/ha"}
    tables = []
    if test.has_targets:
        scores = score_set("test", test, PREDICTIONS, lambda _: target.mean)
        metrics["test"] = scores.summarise()
        tables += scores.list_chips("test")
    validation = {}
    for fold, name in zip(params.folds, fold_names, strict=True):
        scores = score_set(
            name,
            train,
            Path("validation") / name,
            lambda held_out: mean_without(target.mean, target.pixels, held_out),
        )
        validation[f"fold_{fold}"] = scores.summarise()
        tables += scores.list_chips(name)
    write_table(FOLDER / "chips.csv", tables)
    draw_histograms(read_histograms(HISTOGRAMS)).savefig(FOLDER / "images" / "histograms.png")
    METRICS.write_text(json.dumps(metrics | {"validation": validation}, indent=2) + "\n")


def list_models(
    models: Literal["final", "folds", "imported"],
    fold_names: Sequence[str],
    chip_ids: Sequence[str],
) -> list[str]:
    """Return the models that every prediction must average.

    No param names the imported ones: those of the first chip are the ones of all.
    """
    if models == "imported":
        return read_prediction(PREDICTIONS, chip_ids[0])[1].get("MODELS", "").split(",")
    return list(fold_names) if models == "folds" else ["final"]


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as CSV, numbers to 3 decimals."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(rows[0])
        for row in rows:
            writer.writerow(f"{v:.3f}" if isinstance(v, float) else v for v in row.values())


def score_set(
    name: str, store: ChipStore, folder: Path, choose_baseline: Callable[[ErrorSums], float]
) -> Scores:
    """Score one set of chips and draw its pictures."""
    scores = score_maps(open_maps(store, folder), choose_baseline)
    panels = []
    for chip_id in choose_panel_chips(scores, N_PANELS):
        index = store.chip_ids.index(chip_id)
        chip = store.read_chip(index)
        panels.append(
            Panel(
                chip_id=chip_id,
                s1=chip.s1,
                s2=chip.s2,
                s2_present=chip.s2_present,
                target=store.read_target(index),
                prediction=read_prediction(folder, chip_id)[0],
            )
        )
    summary = scores.summarise()
    for kind, figure in (
        ("panels", draw_panels(panels)),
        ("density", draw_density(scores.density, DENSITY_EDGES, name)),
        (
            "error_by_bin",
            draw_error_by_bin(
                summary["model"]["rmse_by_bin"], summary["baseline"]["rmse_by_bin"], name
            ),
        ),
    ):
        figure.savefig(FOLDER / "images" / f"{kind}_{name}.png")
    return scores


if __name__ == "__main__":
    run_script(main)
