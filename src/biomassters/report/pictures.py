"""What the page shows: pictures of other stages, training curves, single chips; all within it."""

import base64
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
from biomassters.report.curves import Curve, Training
from biomassters.store.chips import ChipStore

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


def draw_trainings(trainings: Sequence[Training]) -> list[Picture]:
    """Draw how trainings went; nothing where none was recorded."""
    if not any(training.loss for training in trainings):
        return []
    scores = {}
    for training in trainings:
        scores[f"{training.name}, plain"] = training.chip_rmse
        scores[f"{training.name}, with TTA"] = training.chip_rmse_tta
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "biomassters"}):
        figure = Figure(figsize=(11, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        _draw_lines(left, {t.name: t.loss for t in trainings}, "training loss")
        _draw_lines(right, scores, "validation chip RMSE, t/ha")
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return [
        Picture(
            source=_as_uri("image/svg+xml", file.getvalue()),
            width=1100,
            height=360,
            alt="Training loss and validation chip RMSE by epoch",
            caption="Left: the mean loss of each epoch, where the target scaling takes it. Right:"
            " the held-out chips' RMSE; of a fold, the best epoch of the plain view is kept.",
        )
    ]


def _draw_lines(axes: Axes, curves: Mapping[str, Curve], label: str) -> None:
    known = {name: curve for name, curve in curves.items() if curve}
    for name, curve in known.items():
        axes.plot(list(curve), list(curve.values()), marker="o", markersize=3, label=name)
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
