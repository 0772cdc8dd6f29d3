"""What the page shows: pictures of other stages, training curves, single chips; all within it."""

import base64
import csv
import io
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from biomassters.evaluation.plots import draw_panels
from biomassters.evaluation.report import read_panel
from biomassters.store.chips import ChipStore

Curves = Mapping[str, list[tuple[float, float]]]
"""Points (epoch, value) by the name of what they are of."""

PANEL_DPI: Final = 100
_PNG_SIZE: Final = slice(16, 24)
"""Where a PNG says its width and height. Source: PNG specification, IHDR."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture as the page holds it.

    Attributes:
        source: A data URI.
        width: Pixels.
        height: Pixels.
        alt: What is to be seen, for those who do not see it.
        caption: How to read it.
    """

    source: str
    width: int
    height: int
    alt: str
    caption: str


def find_picture(path: Path, alt: str, caption: str) -> list[Picture]:
    """Return a stage's PNG, or nothing where there is none."""
    if not path.exists():
        return []
    return [_hold_png(path.read_bytes(), alt, caption)]


def draw_chip(store: ChipStore, predictions: Path, chip_id: str, caption: str) -> Picture:
    """Draw a chip's images, target, prediction and error.

    Args:
        store: The chips.
        predictions: The folder of their predictions.
        chip_id: Which one.
        caption: How to read it.
    """
    figure = draw_panels([read_panel(store, predictions, chip_id)])
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=PANEL_DPI)
    alt = f"Chip {chip_id}: Sentinel-2, Sentinel-1, target, prediction and error side by side"
    return _hold_png(file.getvalue(), alt, caption)


def draw_curves(runs: Mapping[str, Path]) -> list[Picture]:
    """Draw how trainings went; nothing where none was recorded.

    Args:
        runs: Folders that DVCLive wrote curves to, by the trainings' names.
    """
    losses = {name: read_curve(folder / "train/loss.tsv") for name, folder in runs.items()}
    scores: dict[str, list[tuple[float, float]]] = {}
    for name, folder in runs.items():
        for kind, title in (("chip_rmse", "plain"), ("chip_rmse_tta", "with TTA")):
            scores[f"{name}, {title}"] = read_curve(folder / f"validation/{kind}.tsv")
    if not any(losses.values()):
        return []
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "biomassters"}):
        figure = Figure(figsize=(11, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        _draw_lines(left, losses, "training loss")
        _draw_lines(right, scores, "validation chip RMSE, t/ha")
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return [
        Picture(
            source=_as_uri("image/svg+xml", file.getvalue()),
            width=1100,
            height=360,
            alt="Training loss and validation chip RMSE by epoch",
            caption="Left: the loss of each epoch, in the space of the target scaling. Right: the"
            " held-out chips' RMSE; the best epoch of the plain view is kept.",
        )
    ]


def read_curve(path: Path) -> list[tuple[float, float]]:
    """Return the points of a curve that DVCLive wrote, (step, value); nothing without a file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter="\t")
        next(rows, None)
        return [(float(step), float(value)) for step, value in rows]


def _draw_lines(axes: Axes, curves: Curves, label: str) -> None:
    known = {name: points for name, points in curves.items() if points}
    for name, points in known.items():
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, marker="o", markersize=3, label=name)
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if known:
        axes.legend(frameon=False, fontsize=9)
    else:
        axes.text(0.5, 0.5, "nothing recorded", ha="center", transform=axes.transAxes)


def choose_chips(rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return the best, the median and the worst chip by RMSE, by these words.

    Args:
        rows: Of evaluation's table of chips, of one set.
    """
    order = sorted(rows, key=lambda row: float(row["chip_rmse"]))
    places = {"best": 0, "median": (len(order) - 1) // 2, "worst": len(order) - 1}
    return {word: order[place]["chip_id"] for word, place in places.items()}


def _hold_png(data: bytes, alt: str, caption: str) -> Picture:
    width, height = struct.unpack(">II", data[_PNG_SIZE])
    return Picture(
        source=_as_uri("image/png", data), width=width, height=height, alt=alt, caption=caption
    )


def _as_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
