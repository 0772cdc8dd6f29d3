"""The audit of a split as one page of plots."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from biomassters.audit.facts import CLOUDY_CLP, ORBITS, SplitFacts
from biomassters.audit.findings import FEW_S2_MONTHS, Finding
from biomassters.store.bands import MONTHS, N_MONTHS

PRESENT_COLOURS: Final = "YlGn"
DEFECT_COLOURS: Final = "OrRd"
ORBIT_COLOURS: Final = {"ascending": "tab:blue", "descending": "tab:purple"}
GOOD, POOR = "#2a7f62", "#f0a030"
TARGET_STEP, TARGET_RANGE, TARGET_LIMIT = 10, 200, 1000
"""The bins of the targets, how far they reach at least, and at most, t/ha."""
EXAMPLES: Final = 4
"""So many chips are named for a finding."""


def draw_audit(
    split: str, facts: SplitFacts, findings: Sequence[Finding], skipped: Mapping[str, Any]
) -> Figure:
    """Draw what the audit found.

    Args:
        split: Name of the split.
        facts: Of its chips.
        findings: What they are suspected of.
        skipped: What `audit.describe_skipped` returns.
    """
    if not len(facts):
        return _draw_nothing(split)
    figure = Figure(figsize=(14, 12.5), dpi=100)
    figure.suptitle(_title(split, facts), fontsize=14, fontweight="bold", y=0.985)
    # Fixed places: a layout that looks for them would take seconds, and move with each number.
    top, middle, bottom = (
        figure.add_gridspec(1, columns, left=left, right=0.985, bottom=low, top=high, wspace=gap)
        for columns, left, low, high, gap in (
            (2, 0.1, 0.715, 0.925, 0.52),
            (3, 0.055, 0.4, 0.635, 0.24),
            (1, 0.02, 0.015, 0.34, 0),
        )
    )
    _draw_months(
        figure.add_subplot(top[0]),
        "Images present, % of the chips",
        *(_present_rows(facts), PRESENT_COLOURS, 1),
    )
    _draw_months(
        figure.add_subplot(top[1]),
        "Defects, % of the pixels of the images present",
        *(_defect_rows(facts), DEFECT_COLOURS, 0.4),
    )
    _draw_s2_months(figure.add_subplot(middle[0]), facts)
    _draw_orbit_months(figure.add_subplot(middle[1]), facts)
    _draw_targets(figure.add_subplot(middle[2]), facts)
    _draw_findings(figure.add_subplot(bottom[0]), facts, findings, skipped)
    return figure


def _draw_nothing(split: str) -> Figure:
    figure = Figure(figsize=(14, 2), dpi=100)
    figure.text(0.5, 0.5, f"Split {split}: no chips", ha="center", va="center", fontsize=14)
    return figure


def _title(split: str, facts: SplitFacts) -> str:
    n_targets = int(facts.has_target.sum())
    with_target = {0: "none", len(facts): "each"}.get(n_targets, f"{n_targets:,}")
    return (
        f"Split {split}: {len(facts):,} chips of {facts.chip_size} x {facts.chip_size} pixels,"
        f" {with_target} with a target"
    )


def _present_rows(facts: SplitFacts) -> dict[str, NDArray[np.float64]]:
    images = {f"S1 {orbit}": present for orbit, present in facts.orbit_present.items()}
    return {name: rows.mean(axis=0) for name, rows in {**images, "S2": facts.s2_present}.items()}


def _defect_rows(facts: SplitFacts) -> dict[str, NDArray[np.float64]]:
    rows = {
        f"S1 {orbit}: nodata": _share_of_images(
            facts["s1_nodata"][..., bands].mean(axis=-1), facts.orbit_present[orbit], facts.pixels
        )
        for orbit, bands in ORBITS.items()
    }
    for title, name in (
        ("S2: CLP unknown", "s2_nodata"),
        (f"S2: CLP over {CLOUDY_CLP}, cloudy", "s2_cloudy"),
        ("S2: without reflectance", "s2_zero"),
    ):
        rows[title] = _share_of_images(facts[name], facts.s2_present, facts.pixels)
    return rows


def _share_of_images(
    counts: NDArray[Any], present: NDArray[np.bool_], pixels: int
) -> NDArray[np.float64]:
    """Return the share of the pixels of each month's images, (12,); NaN = no image."""
    lost = np.where(present, counts, 0).sum(axis=0)
    images = present.sum(axis=0)
    share = np.full(N_MONTHS, np.nan)
    np.divide(lost, images * pixels, out=share, where=images > 0)
    return share


def _draw_months(
    axes: Axes, title: str, rows: Mapping[str, NDArray[np.float64]], colours: str, gamma: float
) -> None:
    """Draw shares, (12,) a row, as a table of coloured cells."""
    values = np.stack(list(rows.values())) * 100
    axes.imshow(values, cmap=colours, norm=PowerNorm(gamma, 0, 100), aspect="auto")
    for (row, month), value in np.ndenumerate(values):
        dark = value > 100 * 0.6 ** (1 / gamma)
        axes.text(
            *(month, row, _percent(value)),
            ha="center",
            va="center",
            fontsize=9,
            color="white" if dark else "black",
        )
    axes.set_xticks(range(N_MONTHS), [name[:3] for name in MONTHS])
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_xticks(np.arange(N_MONTHS + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title)


def _percent(value: float) -> str:
    if np.isnan(value):
        return "-"
    if 0 < value < 0.1:
        return "<0.1"
    if value in (0, 100):
        return f"{value:.0f}"
    return f"{value:.1f}" if value < 10 or value > 99 else f"{value:.0f}"


def _draw_s2_months(axes: Axes, facts: SplitFacts) -> None:
    months = np.arange(N_MONTHS + 1)
    shares = np.bincount(facts.s2_months, minlength=len(months)) / len(facts)
    few = months < FEW_S2_MONTHS
    axes.bar(months, shares, color=np.where(few, POOR, GOOD))
    axes.set_title("Months with S2, by chip")
    axes.set_xlabel("months with an S2 image")
    _finish_months(axes, f"{_percent(shares[few].sum() * 100)}% have fewer than {FEW_S2_MONTHS}")


def _draw_orbit_months(axes: Axes, facts: SplitFacts) -> None:
    months = np.arange(N_MONTHS + 1)
    for offset, (orbit, present) in zip((-0.2, 0.2), facts.orbit_present.items(), strict=True):
        shares = np.bincount(present.sum(axis=1), minlength=len(months)) / len(facts)
        axes.bar(months + offset, shares, 0.4, color=ORBIT_COLOURS[orbit], label=orbit)
    both = np.logical_and(*(present.any(axis=1) for present in facts.orbit_present.values()))
    axes.set_title("Months with S1, by chip and orbit")
    axes.set_xlabel("months with an S1 image")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 0.93))
    _finish_months(axes, f"{_percent(both.mean() * 100)}% have both orbits")


def _finish_months(axes: Axes, text: str) -> None:
    axes.set_xticks(range(N_MONTHS + 1))
    axes.set_ylabel("share of the chips")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylim(0, axes.get_ylim()[1] * 1.08)
    axes.text(0.02, 0.97, text, transform=axes.transAxes, va="top")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_targets(axes: Axes, facts: SplitFacts) -> None:
    means = facts["agbm_mean"][facts.has_target]
    axes.set_title("Mean AGBM of each chip")
    axes.spines[["top", "right"]].set_visible(False)
    if not means.size:
        axes.text(0.5, 0.5, "no targets in this split", ha="center", va="center", color="0.55")
        axes.set_axis_off()
        return
    shown = np.clip(means, -TARGET_LIMIT, TARGET_LIMIT)
    low, high = min(0, shown.min()), max(TARGET_RANGE, shown.max())
    first, last = np.floor(low / TARGET_STEP), np.ceil(high / TARGET_STEP)
    axes.hist(shown, (np.arange(first, last + 1) * TARGET_STEP).tolist(), color=GOOD)
    top = axes.get_ylim()[1]
    axes.set_ylim(0, top * 1.5)  # room for the legend
    for percent, style in ((5, ":"), (50, "-"), (95, "--")):
        value, place = np.percentile(means, percent), np.percentile(shown, percent)
        name = "median" if percent == 50 else f"{percent}th percentile"
        axes.plot([place] * 2, [0, top], style, color="black", label=f"{name}: {value:.3g} t/ha")
    least = facts["agbm_min"][facts.has_target].min()
    most = facts["agbm_max"][facts.has_target].max()
    axes.legend(
        frameon=False,
        title=f"pixels: {least:.4g}…{most:,.4g} t/ha",
        loc="upper right",
        alignment="left",
    )
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("mean AGBM (t/ha)")
    axes.set_ylabel("chips")


def _draw_findings(
    axes: Axes, facts: SplitFacts, findings: Sequence[Finding], skipped: Mapping[str, Any]
) -> None:
    """Draw a table of the findings, and of the chips that were left out."""
    rows = [_describe_finding(finding, facts) for finding in findings]
    left_out = (
        *("Left out of the store", _count(skipped["files"], "bad files"), f"{skipped['chips']:,}"),
        *("", _name_chips(list(skipped["reasons"]))),
    )
    rows.append(left_out if skipped["chips"] else ("Left out of the store", "none", "", "", ""))
    header = ("Finding", "count", "chips", "of all chips", "such as")
    columns = ((0.0, "left"), (0.5, "right"), (0.58, "right"), (0.68, "right"), (0.71, "left"))
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(len(rows) + 0.5, -0.5)
    for line, row in enumerate((header, *rows)):
        found = line > 0 and row[1] != "none"
        if line % 2:
            axes.axhspan(line - 0.5, line + 0.5, color="0.96", linewidth=0)
        for (x, side), text in zip(columns, row, strict=True):
            axes.text(
                *(x, line, text),
                ha=side,
                va="center",
                fontsize=10.5,
                fontweight="bold" if line == 0 else "normal",
                color="black" if line == 0 or found else "0.55",
            )


def _describe_finding(finding: Finding, facts: SplitFacts) -> tuple[str, ...]:
    suspects = finding.suspects
    if not suspects.size:
        return finding.title, "none", "", "", ""
    count = "" if finding.unit == "chips" else _count(int(finding.counts.sum()), finding.unit)
    share = f"{_percent(100 * len(suspects) / len(facts))}%"
    names = _name_chips([facts.chip_ids[index] for index in suspects[: EXAMPLES + 1]])
    return finding.title, count, f"{len(suspects):,}", share, names


def _name_chips(chip_ids: Sequence[str]) -> str:
    more = ", …" if len(chip_ids) > EXAMPLES else ""
    return ", ".join(chip_ids[:EXAMPLES]) + more


def _count(number: int, unit: str) -> str:
    return f"{number:,} {unit if number != 1 else unit.removesuffix('s')}"
