"""What a measurement of robustness leaves behind: figures, a curve, a row a chip and a picture."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from biomassters.processes.writing import write_whole
from biomassters.robustness.conditions import PLAIN
from biomassters.robustness.plots import draw_results
from biomassters.robustness.scoring import Results, summarise_errors

UNIT: Final = "t/ha"
CURVE_COLUMNS: Final = ("months_removed", "chip_rmse", "pooled_rmse")


def write_results(metrics: Path, folder: Path, results: Results) -> None:
    """Write `metrics`, and `months.csv`, `chips.csv` and `images/robustness.png` in a folder.

    Args:
        metrics: JSON: the scores of each condition, and of what they were measured.
        folder: Where the rest goes; made if absent.
        results: Of one chip at least.
    """
    picture = io.BytesIO()
    draw_results(results).savefig(picture, format="png", metadata={"Software": None})
    write_whole(folder / "images" / "robustness.png", picture.getvalue())
    _write_table(folder / "chips.csv", *_tabulate_chips(results))
    _write_table(folder / "months.csv", CURVE_COLUMNS, _tabulate_curve(results))
    _write_metrics(metrics, describe_results(results))


def write_no_results(metrics: Path, folder: Path, reason: str) -> None:
    """Write the same files, but for the picture, where there was nothing to measure.

    Args:
        metrics: JSON that says so.
        folder: Where the rest goes; made if absent.
        reason: Why.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    _write_table(folder / "chips.csv", ("set", "chip_id"), [])
    _write_table(folder / "months.csv", CURVE_COLUMNS, [])
    _write_metrics(metrics, {"unit": UNIT, "chips": 0, "reason": reason})


def describe_results(results: Results) -> dict[str, Any]:
    """Return the scores by condition, t/ha, and of which chips and models they are."""
    scores = {condition: summarise_errors(sums) for condition, sums in results.errors.items()}
    return {
        "unit": UNIT,
        "set": results.of.name,
        "chips": len(results.of.chips),
        "models": ",".join(path.stem for path in results.of.weights),
        "plain": scores[PLAIN],
        "months_removed": {
            str(condition.months_removed): found
            for condition, found in scores.items()
            if condition.months_removed
        },
        "conditions": {
            condition.name: found for condition, found in scores.items() if condition.bands
        },
    }


def _tabulate_curve(results: Results) -> Iterable[Sequence[Any]]:
    for condition, errors in results.errors.items():
        if not condition.bands:
            scores = summarise_errors(errors)
            yield condition.months_removed, *(scores[name] for name in CURVE_COLUMNS[1:])


def _tabulate_chips(results: Results) -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
    """Return the columns, and a row for each chip: its RMSE under each condition."""
    columns = ("set", "chip_id", "s2_months", *(condition.name for condition in results.errors))
    name, store, chips, _ = results.of
    rmses = zip(*(sums.chip_rmses.tolist() for sums in results.errors.values()), strict=True)
    rows = [
        (name, store.chip_ids[chip], int(store.s2_present[chip].sum()), *of_chip)
        for chip, of_chip in zip(chips, rmses, strict=True)
    ]
    return columns, rows


def _write_metrics(path: Path, metrics: dict[str, Any]) -> None:
    write_whole(path, json.dumps(metrics, indent=2).encode() + b"\n")


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow(f"{v:.3f}" if isinstance(v, float) else v for v in row)
    write_whole(path, text.getvalue().encode())
