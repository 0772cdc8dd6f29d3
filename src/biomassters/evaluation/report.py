"""What an evaluation shows of a set of chips: pictures, and a row of a table for each chip."""

import csv
import io
import logging
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from matplotlib.figure import Figure

from biomassters.errors import ChipDataError
from biomassters.evaluation.bootstrap import LEAST_CHIPS
from biomassters.evaluation.intervals import JudgedSet, judge_intervals
from biomassters.evaluation.plots import (
    Panel,
    draw_coverage,
    draw_density,
    draw_error_by_bin,
    draw_panels,
)
from biomassters.evaluation.scores import (
    DENSITY_EDGES,
    TABLE_COLUMNS,
    Baseline,
    Scores,
    choose_panel_chips,
    find_predicted,
    open_maps,
    score_maps,
)
from biomassters.prediction.maps import read_prediction
from biomassters.processes.writing import write_whole
from biomassters.store.chips import ChipStore

log = logging.getLogger(__name__)

N_PANELS: Final = 4
"""Chips that a picture shows side by side with their predictions."""


class ChipSet(NamedTuple):
    """A set of chips to score.

    Attributes:
        name: Of the set; titles and files carry it.
        store: The chips.
        predictions: The folder of their predictions; chips without one do not count.
        choose_baseline: What to compare with; None = nothing.
        others: Folders of other models' predictions of the same chips, by the models' names.
        judged: The chips with their intervals; None = they have none.
    """

    name: str
    store: ChipStore
    predictions: Path
    choose_baseline: Baseline | None = None
    others: Mapping[str, Path] = MappingProxyType({})
    judged: JudgedSet | None = None


def score_set(chips: ChipSet, images: Path) -> Scores:
    """Score one set of chips, and draw it.

    Args:
        chips: The set.
        images: The folder for `panels_NAME.png`, `density_NAME.png` and `error_by_bin_NAME.png`,
            and for `coverage_NAME.png` if the chips have intervals.

    Raises:
        ChipDataError: No chip has both a prediction and a target, or another model's prediction is
            missing.
    """
    name, store, predictions = chips.name, chips.store, chips.predictions
    chip_ids = find_predicted(store, predictions)
    scores = score_maps(
        open_maps(store, predictions, chip_ids),
        chips.choose_baseline,
        {other: open_maps(store, folder, chip_ids) for other, folder in chips.others.items()},
    )
    if not scores.chip_ids:
        raise ChipDataError(
            f"expected predictions of chips with targets, got none, at {predictions};"
            " run `dvc repro` to write them"
        )
    if len(scores.chip_ids) < LEAST_CHIPS:
        log.warning(
            "%s: expected %d chips with targets or more for confidence intervals, got %d, at %s;"
            " its figures have none",
            *(name, LEAST_CHIPS, len(scores.chip_ids), predictions),
        )
    panels = [
        read_panel(store, predictions, chip_id) for chip_id in choose_panel_chips(scores, N_PANELS)
    ]
    if chips.judged is not None:
        scores.intervals = judge_intervals(chips.judged)
    figures = {
        "panels": draw_panels(panels),
        "density": draw_density(scores.density, DENSITY_EDGES, name),
        "error_by_bin": draw_error_by_bin(scores.summary, name),
    }
    if scores.intervals is not None:
        figures["coverage"] = draw_coverage(scores.intervals, name)
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


def read_panel(store: ChipStore, predictions: Path, chip_id: str) -> Panel:
    """Read what a picture shows of a chip.

    Args:
        store: The chips.
        predictions: The folder of their predictions.
        chip_id: Which one.

    Raises:
        ChipDataError: It has no prediction.
    """
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
