"""The metrics of a finished pipeline as a short table."""

import json
from pathlib import Path
from typing import Any

from biomassters.errors import BiomasstersError

TITLE_WIDTH = 34
COLUMN_WIDTH = 13
COLUMNS = {
    "chip_rmse": "chip RMSE",
    "pooled_rmse": "pooled RMSE",
    "mae": "MAE",
    "bias": "bias",
    "r2": "R²",
}


def summarise(folder: Path) -> str:
    """Return the table of `folder`/evaluation.json, and where its pictures are.

    Raises:
        BiomasstersError: There is no evaluation yet, or a damaged one.
    """
    path = folder / "evaluation.json"
    if not path.exists():
        raise BiomasstersError(f"expected {path}, got none; run `dvc repro` first")
    try:
        return "\n".join(_tabulate(json.loads(path.read_text("utf-8")), folder))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise BiomasstersError(
            f"expected the scores that `dvc repro` writes, got others ({type(error).__name__}:"
            f" {error}), at {path}; run `dvc repro` again"
        ) from None


def _tabulate(evaluation: dict[str, Any], folder: Path) -> list[str]:
    header = "".join(f"{title:>{COLUMN_WIDTH}}" for title in COLUMNS.values())
    lines = [f"{'t/ha (R² has no unit)':{TITLE_WIDTH}}{header}"]
    sets = {"test": evaluation.get("test"), **evaluation["validation"]}
    for name, scores in sets.items():
        if scores is None:
            continue
        title = "test" if name == "test" else f"validation {name}"
        lines.append(_format_row(f"{title}, model", scores["model"]))
        chip_rmse = scores["model"]["chip_rmse"]
        if "baseline" not in scores:  # there are no train chips
            continue
        lines.append(_format_row(f"{title}, training mean", scores["baseline"]))
        better = 1 - chip_rmse / scores["baseline"]["chip_rmse"]
        side = "below" if better >= 0 else "above"
        lines.append(
            f"{'':{TITLE_WIDTH}}the model's chip RMSE is {abs(better):.0%} {side} the training"
            " mean's"
        )
    if len(lines) == 1:
        lines.append("no chips with targets: nothing was scored")
    lines.append("")
    lines.append(f"pictures: {folder / 'evaluation' / 'images'}; curves: dvc plots show")
    return lines


def _format_row(title: str, scores: dict[str, Any]) -> str:
    cells = (scores.get(column) for column in COLUMNS)  # an older file may lack one
    texts = ("-" if cell is None else f"{cell:.2f}" for cell in cells)
    return f"{title:{TITLE_WIDTH}}" + "".join(f"{text:>{COLUMN_WIDTH}}" for text in texts)
