"""The metrics of a finished pipeline as a short table."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from biomassters.errors import BiomasstersError

TITLE_WIDTH = 34
COLUMN_WIDTH = 14
COLUMNS = {
    "chip_rmse": "chip RMSE",
    "pooled_rmse": "pooled RMSE",
    "mae": "MAE",
    "bias": "bias",
    "r2": "R²",
}
INTERVALS = "intervals"
NAMES = {"baseline": "training mean"}
POSSESSIVES = {"baseline": "the training mean's"}
AREAS = {
    "pixel": "pixels",
    "block_1ha": "1 ha",
    "block_16ha": "16 ha",
    "chip": "chips",
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
        for kind in (kind for kind in scores if kind != INTERVALS):
            lines += _format_rows(f"{title}, {NAMES.get(kind, kind)}", scores[kind])
        lines += _compare(scores)
        if INTERVALS in scores:
            lines.append(f"{'':{TITLE_WIDTH}}{_describe_intervals(scores[INTERVALS])}")
    if len(lines) == 1:
        lines.append("no chips with targets: nothing was scored")
    lines.append("")
    lines.append(f"pictures: {folder / 'evaluation' / 'images'}; curves: dvc plots show")
    return lines


def _format_rows(title: str, scores: dict[str, Any]) -> Iterator[str]:
    """Yield a row of figures, and one of their confidence intervals if there are any."""
    # An older file may lack one, but not the first of them.
    cells = (scores["chip_rmse"], *(scores.get(column) for column in list(COLUMNS)[1:]))
    texts = ("-" if cell is None else f"{cell:.2f}" for cell in cells)
    yield f"{title:{TITLE_WIDTH}}" + "".join(f"{text:>{COLUMN_WIDTH}}" for text in texts)
    ends = scores.get("ci95", {})
    if any(ends.get(column) for column in COLUMNS):
        pairs = (ends.get(column) for column in COLUMNS)
        texts = ("-" if pair is None else f"{pair[0]:.2f}…{pair[1]:.2f}" for pair in pairs)
        label = "    95 % interval over chips"
        yield f"{label:{TITLE_WIDTH}}" + "".join(f"{text:>{COLUMN_WIDTH}}" for text in texts)


def _compare(scores: dict[str, Any]) -> Iterator[str]:
    """Yield how the model's chip RMSE compares with each of the others."""
    for kind in (kind for kind in scores if kind not in ("model", INTERVALS)):
        better = 1 - scores["model"]["chip_rmse"] / scores[kind]["chip_rmse"]
        side = "below" if better >= 0 else "above"
        yield (
            f"{'':{TITLE_WIDTH}}the model's chip RMSE is {abs(better):.0%} {side}"
            f" {POSSESSIVES.get(kind, f'that of {kind}')}"
        )


def _describe_intervals(intervals: dict[str, Any]) -> str:
    """Return how many targets of pixels, and of means of areas, lie in their interval."""
    shares = (
        f"{intervals[key]['coverage']:.0%} of {what}"
        for key, what in AREAS.items()
        if intervals[key]["coverage"] is not None
    )
    return f"{100 * intervals['level']:g} % intervals hold for {', '.join(shares)}"
