"""A picture of what a model does with less: a curve over months, and a bar for each condition."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from biomassters.params.bands import ConditionName
from biomassters.robustness.conditions import PLAIN, Condition
from biomassters.robustness.scoring import Results, summarise_errors

TITLES: Final[Mapping[ConditionName, str]] = {
    "no_s1": "without S1",
    "no_s2": "without S2",
    "no_ascending": "without ascending S1",
    "no_descending": "without descending S1",
    "no_clp": "without cloud probability",
    "no_swir": "without SWIR (B11, B12)",
    "rgb_only": "RGB alone (B4, B3, B2)",
}
"""For people, by the condition's name in params.yaml."""
PLAIN_TITLE: Final = "everything"
COLOUR: Final = "tab:green"
PLAIN_COLOUR: Final = "0.35"


def draw_results(results: Results) -> Figure:
    """Draw the chip RMSE, t/ha, over months removed, and of each other condition.

    Error bars are one standard error of the change from the same chips with everything: chips
    differ far more from each other than from themselves.
    """
    by_band = [condition for condition in results.errors if condition.bands]
    height = max(4.2, 1.6 + 0.42 * len(by_band))
    figure = Figure(figsize=(13, height), dpi=100, layout="constrained")
    curve, bars = figure.subplots(1, 2, width_ratios=(1, 1.15))
    _draw_curve(curve, results)
    _draw_bars(bars, results, [PLAIN, *by_band])
    title = f"{results.of.name}: the same {len(results.errors[PLAIN].chip_ids)} chips with less"
    figure.suptitle(f"{title}; bars: one standard error of the change", fontsize=10)
    return figure


def _measure(results: Results, condition: Condition) -> tuple[float, float]:
    """Return the chip RMSE, and the standard error of its change from the plain one, t/ha."""
    rmses = results.errors[condition].chip_rmses
    change = rmses - results.errors[PLAIN].chip_rmses
    error = float(change.std(ddof=1) / np.sqrt(len(change))) if len(change) > 1 else 0.0
    return float(rmses.mean()), error


def _draw_curve(axes: Axes, results: Results) -> None:
    conditions = [condition for condition in results.errors if not condition.bands]
    values, errors = _as_columns([_measure(results, condition) for condition in conditions])
    months = [condition.months_removed for condition in conditions]
    axes.errorbar(months, values, errors, color=COLOUR, marker="o", markersize=4, capsize=3)
    axes.axhline(values[0], color=PLAIN_COLOUR, linewidth=0.8, linestyle="--")
    axes.set_xticks(months)
    axes.set_xlabel("months of Sentinel-2 removed, of those that a chip has")
    axes.set_ylabel("chip RMSE (t/ha)")
    axes.set_ylim(bottom=0)
    axes.set_title("Fewer months of S2, S1 as it is", fontsize=10)


def _draw_bars(axes: Axes, results: Results, conditions: list[Condition]) -> None:
    values, errors = _as_columns([_measure(results, condition) for condition in conditions])
    places = np.arange(len(conditions))
    colours = [PLAIN_COLOUR, *[COLOUR] * (len(conditions) - 1)]
    axes.barh(places, values, 0.62, color=colours, alpha=0.75, xerr=errors, capsize=3)
    # The table stands right of the longest bar, in columns of its own.
    right = float((values + errors).max())
    columns = {"chip RMSE": 1.26, "change": 1.5, "pooled RMSE": 1.86, "bias": 2.08}
    for title, column in columns.items():
        axes.text(column * right, -0.85, title, ha="right", va="center", fontsize=8, color="0.3")
    for place, condition in zip(places, conditions, strict=True):
        scores = summarise_errors(results.errors[condition])
        change = values[place] - values[0]
        cells = (
            f"{values[place]:.1f}",
            f"{change:+.1f}" if condition != PLAIN else "",
            f"{scores['pooled_rmse']:.1f}",
            f"{scores['bias']:+.1f}",
        )
        for cell, column in zip(cells, columns.values(), strict=True):
            text = cell.replace("-", "\N{MINUS SIGN}")
            axes.text(column * right, float(place), text, ha="right", va="center", fontsize=9)
    titles = [PLAIN_TITLE, *(TITLES[condition.name] for condition in conditions[1:])]  # type: ignore[index]
    axes.set_yticks(places, titles)
    axes.set_xlim(0, 2.1 * right)
    axes.set_ylim(len(conditions) - 0.4, -1.3)  # the first on top, below the columns' titles
    axes.set_xticks([tick for tick in axes.get_xticks() if tick <= right])
    axes.set_xlabel("chip RMSE (t/ha)", loc="left")
    axes.spines["bottom"].set_bounds(0, right)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("Fewer bands (t/ha)", fontsize=10)


def _as_columns(
    pairs: list[tuple[float, float]],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    values, errors = np.asarray(pairs, dtype=np.float64).T
    return values, errors
