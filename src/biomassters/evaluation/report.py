"""What an evaluation shows of a set of chips: pictures, and a row of a table for each chip."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from matplotlib.figure import Figure

from biomassters.errors import ChipDataError
from biomassters.evaluation.plots import Panel, draw_density, draw_error_by_bin, draw_panels
from biomassters.evaluation.scores import (
    DENSITY_EDGES,
    TABLE_COLUMNS,
    Baseline,
    Scores,
    choose_panel_chips,
    open_maps,
    score_maps,
)
from biomassters.prediction.maps import read_prediction
from biomassters.processes.writing import write_whole
from biomassters.store.chips import ChipStore

N_PANELS: Final = 4
"""Chips that a picture shows side by side with their predictions."""


def score_set(
    name: str,
    store: ChipStore,
    predictions: Path,
    choose_baseline: Baseline | None,
    images: Path,
) -> Scores:
    """Score one set of chips, and draw it.

    Args:
        name: Of the set; titles and files carry it.
        store: The chips.
        predictions: The folder of their predictions; chips without one do not count.
        choose_baseline: What to compare with; None = nothing.
        images: The folder for `panels_NAME.png`, `density_NAME.png` and `error_by_bin_NAME.png`.

    Raises:
        ChipDataError: No chip has both a prediction and a target.
    """
    scores = score_maps(open_maps(store, predictions), choose_baseline)
    if not scores.model.chip_ids:
        raise ChipDataError(
            f"expected predictions of chips with targets, got none, at {predictions};"
            " run `dvc repro` to write them"
        )
    panels = [
        _read_panel(store, predictions, chip_id) for chip_id in choose_panel_chips(scores, N_PANELS)
    ]
    by_bin = {kind: sums["rmse_by_bin"] for kind, sums in scores.summarise().items()}
    figures = {
        "panels": draw_panels(panels),
        "density": draw_density(scores.density, DENSITY_EDGES, name),
        "error_by_bin": draw_error_by_bin(by_bin["model"], by_bin.get("baseline"), name),
    }
    for kind, figure in figures.items():
        write_figure(images / f"{kind}_{name}.png", figure)
    return scores


def write_figure(path: Path, figure: Figure) -> None:
    """Write a figure as PNG, whole or not at all."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_whole(path, picture.getvalue())


def write_table(path: Path, sets: Mapping[str, Scores]) -> None:
    """Write a row for each chip of each set as CSV, numbers to 3 decimals; whole or not at all.

    Args:
        path: The file.
        sets: By name.
    """
    rows = [row for name, scores in sets.items() for row in scores.list_chips(name)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(TABLE_COLUMNS)
    for row in rows:
        writer.writerow(f"{v:.3f}" if isinstance(v, float) else v for v in row.values())
    write_whole(path, text.getvalue().encode())


def _read_panel(store: ChipStore, predictions: Path, chip_id: str) -> Panel:
    index = store.chip_ids.index(chip_id)
    chip = store.read_chip(index)
    return Panel(
        chip_id=chip_id,
        s1=chip.s1,
        s2=chip.s2,
        s2_present=chip.s2_present,
        target=store.read_target(index),
        prediction=read_prediction(predictions, chip_id).agbm,
    )
