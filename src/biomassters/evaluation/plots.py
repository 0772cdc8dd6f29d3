"""Pictures of chips, predictions and errors, as matplotlib figures.

They are drawn from arrays, and nothing here reads or writes a file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from biomassters.store.bands import (
    CLP,
    MONTHS,
    S1_BANDS,
    S1_STORED_NODATA,
    S1_STORED_SCALE_DB,
    S2_BANDS,
    S2_STORED_NODATA,
)

Array = npt.NDArray[Any]

SUMMER = (10, 9, 11, 8)
"""July, June, August, May: where the true-colour month is looked for, in this order."""

TRUE_COLOUR = tuple(S2_BANDS.index(band) for band in ("B4", "B3", "B2"))
BIOMASS_COLOURS = "YlGn"
ERROR_COLOURS = "RdBu"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One chip's row of a picture.

    Attributes:
        chip_id: Its name.
        s1: Backscatter as stored, (T, 4, H, W), int16.
        s2: Reflectance and cloud probability as stored, (T, 11, H, W), uint16.
        s2_present: (T,) bool.
        target: AGBM, (H, W), t/ha; NaN = no target.
        prediction: AGBM, (H, W), t/ha.
    """

    chip_id: str
    s1: Array
    s2: Array
    s2_present: Array
    target: Array
    prediction: Array


def draw_panels(panels: Sequence[Panel]) -> Figure:
    """Draw chips as rows: S2 true colour, S1 VV, target, prediction, error."""
    figure = Figure(figsize=(13, 2.75 * len(panels)), dpi=100, layout="constrained")
    rows = figure.subplots(len(panels), 5, squeeze=False)
    for row, panel in zip(rows, panels, strict=True):
        _draw_inputs(row[0], row[1], panel)
        _draw_maps(figure, row[2:], panel)
        for axes in row:
            axes.set_xticks([])
            axes.set_yticks([])
        row[0].set_ylabel(panel.chip_id)
    return figure


def choose_summer_month(s2: Array, s2_present: Array) -> int | None:
    """Return the clearest of the summer months with an image, or None if there is none."""
    present = [month for month in SUMMER if s2_present[month]]
    if not present:
        return None
    # Where no cloud probability is known, the worst is assumed.
    clouds = np.minimum(s2[:, CLP], 100).mean(axis=(1, 2))
    return min(present, key=lambda month: float(clouds[month]))


def true_colour(s2_month: Array) -> Array:
    """Return an image, (H, W, 3), 0...1, from one month of S2, (11, H, W); nodata is black.

    The stretch goes from 0 to the 99th percentile of this image, and is at least 0...0.08 in
    reflectance, so that a forest stays dark.
    """
    image = np.moveaxis(s2_month[list(TRUE_COLOUR)], 0, -1).astype(np.float32)
    image[image == S2_STORED_NODATA] = 0
    top = max(800.0, float(np.percentile(image, 99)))
    return np.asarray(np.clip(image / top, 0, 1) ** 0.7)


def _draw_inputs(optical: Axes, radar: Axes, panel: Panel) -> None:
    month = choose_summer_month(panel.s2, panel.s2_present)
    if month is None:
        optical.text(0.5, 0.5, "no S2 in summer", ha="center", va="center")
        optical.set_aspect("equal")
    else:
        optical.imshow(true_colour(panel.s2[month]), interpolation="nearest")
        optical.set_title(f"S2 true colour, {MONTHS[month]}", fontsize=9)
    # The median over months takes the speckle away.
    stored = np.ma.masked_equal(panel.s1[:, 0], S1_STORED_NODATA)
    median = np.ma.median(stored, axis=0)  # type: ignore[no-untyped-call]
    backscatter = median * S1_STORED_SCALE_DB
    if backscatter.count() == 0:
        radar.text(0.5, 0.5, "no ascending S1", ha="center", va="center")
        radar.set_aspect("equal")
        return
    # The few darkest and brightest pixels, lakes and roofs, would take most of the greys.
    low, high = np.percentile(backscatter.compressed(), (2, 98))
    radar.imshow(backscatter, vmin=low, vmax=high, cmap="gray", interpolation="nearest")
    radar.set_title(f"S1 VV, median, {low:.0f}…{high:.0f} dB", fontsize=9)


def _draw_maps(figure: Figure, row: Sequence[Axes], panel: Panel) -> None:
    truth, guess, difference = row
    has_target = bool(np.isfinite(panel.target).any())
    shown = panel.target if has_target else panel.prediction
    top = max(50.0, float(np.nanpercentile(shown, 99.5)))
    for axes, image, title in (
        (truth, panel.target, "target (t/ha)"),
        (guess, panel.prediction, "prediction (t/ha)"),
    ):
        picture = axes.imshow(
            image, vmin=0, vmax=top, cmap=BIOMASS_COLOURS, interpolation="nearest"
        )
        axes.set_title(title, fontsize=9)
    figure.colorbar(picture, ax=[truth, guess], shrink=0.85, pad=0.01)
    error = panel.prediction - panel.target
    limit = max(25.0, float(np.nanpercentile(np.abs(error), 99))) if has_target else 25.0
    picture = difference.imshow(
        error, vmin=-limit, vmax=limit, cmap=ERROR_COLOURS, interpolation="nearest"
    )
    title = "prediction minus target (t/ha)"
    if has_target:
        title += f", RMSE {np.sqrt(np.nanmean(error**2)):.1f}"
    difference.set_title(title, fontsize=9)
    figure.colorbar(picture, ax=difference, shrink=0.85, pad=0.01)


def draw_density(counts: Array, edges: Array, title: str) -> Figure:
    """Draw how often each pair of target and prediction occurs.

    Args:
        counts: Pixels, (n, n): rows are targets, columns predictions.
        edges: Of the n bins, t/ha.
        title: What the pixels are.
    """
    figure = Figure(figsize=(6, 5.2), dpi=100, layout="constrained")
    axes = figure.subplots()
    if counts.any():
        picture = axes.pcolormesh(edges, edges, counts.T, norm=LogNorm(vmin=1), cmap="viridis")
        figure.colorbar(picture, ax=axes, label="pixels")
    axes.plot(edges[[0, -1]], edges[[0, -1]], color="black", linewidth=0.8, linestyle="--")
    axes.set_aspect("equal")
    axes.set_xlabel("target (t/ha)")
    axes.set_ylabel("prediction (t/ha)")
    axes.set_title(title)
    return figure


def draw_error_by_bin(summary: Mapping[str, Mapping[str, Any]], title: str) -> Figure:
    """Draw the pooled RMSE of each biomass bin, t/ha, with its confidence interval if it has one.

    Args:
        summary: By what predicted, the `model` first: its `rmse_by_bin`, and that of `ci95`.
        title: What the chips are.
    """
    figure = Figure(figsize=(7.5, 4.2), dpi=100, layout="constrained")
    axes = figure.subplots()
    kinds = [*list(summary)[1:], *list(summary)[:1]]  # the model's bars to the right of the others'
    names = [name for name, value in summary[kinds[-1]]["rmse_by_bin"].items() if value is not None]
    positions = np.arange(len(names))
    width = 0.8 / len(kinds)
    for number, kind in enumerate(kinds):
        by_bin, intervals = (part["rmse_by_bin"] for part in (summary[kind], summary[kind]["ci95"]))
        heights = np.array([by_bin[name] for name in names])
        bars = axes.bar(
            positions + (number - (len(kinds) - 1) / 2) * width,
            heights,
            width,
            label={"baseline": "training mean"}.get(kind, kind),
            color={"model": "tab:green", "baseline": "0.75"}.get(kind, f"C{number}"),
        )
        ends = np.array([intervals[name] or (np.nan, np.nan) for name in names])
        # Of few and skewed chips an interval may lie beside its figure.
        # Of few and skewed chips an interval may lie beside its figure.
        reach = np.maximum((ends - heights[:, None]) * (-1, 1), 0)
        axes.errorbar(
            [bar.get_x() + width / 2 for bar in bars],
            *(heights, reach.T),
            fmt="none",
            ecolor="0.25",
            elinewidth=1,
            capsize=2,
        )
    axes.set_xticks(positions, names)
    axes.set_xlabel("target (t/ha)")
    axes.set_ylabel("pooled RMSE (t/ha)")
    axes.set_title(f"{title}; bars: 95 % intervals over chips")
    axes.legend(frameon=False)
    return figure


def draw_coverage(intervals: Mapping[str, Any], title: str) -> Figure:
    """Draw how many targets lie in their interval: by decile of the prediction, and by area.

    Args:
        intervals: As `intervals.judge_intervals` returns them.
        title: What the chips are.
    """
    figure = Figure(figsize=(10, 4.4), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    confidence = intervals["ci95"]
    coverages = zip(
        intervals["pixel"]["coverage_by_decile"],
        confidence["pixel"]["coverage_by_decile"],
        strict=True,
    )
    _draw_shares(left, range(1, 11), list(coverages), label="pixels", color="tab:green")
    left.set_xticks(range(1, 11))
    left.set_xlabel("decile of the prediction")
    left.set_ylabel("share of targets in their interval")
    areas = {"pixel": "pixel", "block_1ha": "1 ha", "block_16ha": "16 ha", "chip": "chip"}
    parts = [(intervals[key], confidence[key]) for key in areas]
    naive = [(part["naive"], ends["naive"]) for part, ends in parts[1:]]
    for first, label, colour, pairs in (
        (0, "calibrated", "tab:green", parts),
        (1.15, "as if pixels erred independently", "tab:red", naive),
    ):
        shares = [(part["coverage"], ends["coverage"]) for part, ends in pairs]
        places = [first + number for number in range(len(shares))]
        _draw_shares(right, places, shares, label=label, color=colour)
    widths = ["-" if part["width"] is None else f"{part['width']:.0f} t/ha" for part, _ in parts]
    labels = [f"{name}\n{width}" for name, width in zip(areas.values(), widths, strict=True)]
    right.set_xticks(range(len(areas)), labels)
    right.set_xlabel("mean of an area, and the mean width of its interval")
    for axes in (left, right):
        axes.axhline(intervals["level"], color="black", linewidth=0.8, linestyle="--")
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlim(*(np.array(axes.get_xticks())[[0, -1]] + (-0.5, 0.5)))
    right.legend(frameon=False, loc="center left")
    figure.suptitle(
        f"{title}; dashed: the intervals' level, {100 * intervals['level']:g} %;"
        " bars: 95 % confidence intervals over chips",
        fontsize=11,
    )
    return figure


def _draw_shares(
    axes: Axes,
    places: Sequence[float],
    shares: Sequence[tuple[float | None, Sequence[float] | None]],
    **style: Any,
) -> None:
    """Draw shares as points with their confidence intervals, where there are any."""
    values = np.array([np.nan if share is None else share for share, _ in shares])
    ends = np.array([(np.nan, np.nan) if pair is None else pair for _, pair in shares])
    reach = np.maximum((ends - values[:, None]) * (-1, 1), 0)
    axes.errorbar(places, values, reach.T, fmt="o", capsize=3, elinewidth=1, **style)


def draw_histograms(histograms: Mapping[str, Sequence[tuple[float, float]]]) -> Figure:
    """Draw the distribution of each band's values over the train chips.

    Args:
        histograms: By band: the middle of each bin and the share of the pixels with data in it.
    """
    columns = 4
    # A layout that measures each label and tick takes as long as all other pictures together.
    figure = Figure(figsize=(13, 9), dpi=100)
    figure.subplots_adjust(0.06, 0.03, 0.99, 0.97, hspace=0.28, wspace=0.22)
    grid = figure.subplots(-(-len(histograms) // columns), columns, squeeze=False)
    for axes, (name, bins) in zip(grid.flat, histograms.items(), strict=False):
        values, shares = np.asarray(bins).T
        axes.fill_between(values, shares, step="mid", color="tab:green", alpha=0.6)
        axes.set_title(f"{name} ({_unit(name)})", fontsize=9)
        axes.set_yscale("log")  # the tails are what normalisation has to cope with
        axes.set_ylim(bottom=max(1e-5, shares[shares > 0].min()) / 2)
        axes.minorticks_off()
        axes.yaxis.set_major_formatter("{x:g}")
        axes.tick_params(labelsize=7)
    for axes in grid.flat[len(histograms) :]:
        axes.set_axis_off()
    figure.supylabel("share of pixels", fontsize=9, x=0.005)  # left of the longest number
    return figure


def _unit(name: str) -> str:
    if name in S1_BANDS:
        return "dB"
    if name == "CLP":
        return "%"
    return "DN" if name in S2_BANDS else "t/ha"
