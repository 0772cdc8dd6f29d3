"""How well intervals hold, of pixels and of areas: coverage, width and scores, by chips.

Every figure is a mean over chips, of each chip's own mean over its pixels or blocks: chips are what
a calibration counts, so a share of `level` of a new chip is what it promises.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from biomassters.calibration.areas import LEAST_KNOWN, split_blocks
from biomassters.calibration.calibration import Calibration
from biomassters.evaluation.bootstrap import LEVEL, bootstrap_chips
from biomassters.evaluation.deciles import Deciles
from biomassters.evaluation.figures import CONFIDENCE
from biomassters.evaluation.proper_scores import score_clipped_normal, score_intervals
from biomassters.prediction.maps import Map, PixelIntervals
from biomassters.prediction.metrics import BIN_EDGES, BIN_NAMES

Floats = npt.NDArray[np.floating[Any]]

BLOCKS: Final = {"block_1ha": 10, "block_16ha": 40}
"""Sides of the blocks whose means are judged beside those of whole chips, pixels of 10 m."""

CHIP: Final = "chip"


class JudgedChip(NamedTuple):
    """A chip whose intervals are judged.

    Attributes:
        prediction: AGBM, (H, W), t/ha.
        target: AGBM, (H, W), t/ha; NaN = no target.
        intervals: Of its pixels.
        calibration: That they are of; the chip had no part in it.
    """

    prediction: Map
    target: Map
    intervals: PixelIntervals
    calibration: Calibration


class JudgedSet(NamedTuple):
    """Chips whose intervals are judged, read one by one.

    Attributes:
        n_chips: Their number.
        level: Of the intervals.
        read_chips: Opens a pass over them.
    """

    n_chips: int
    level: float
    read_chips: Callable[[], Iterator[JudgedChip]]


def judge_intervals(judged: JudgedSet) -> dict[str, Any] | None:
    """Judge the intervals of a set of chips, in two passes.

    Returns:
        By name, `level` and `crps`, and for `pixel`, `block_1ha`, `block_16ha` and `chip` the mean
        `coverage`, `width` and `score`; of pixels also by decile of the prediction (a list) and by
        biomass bin; of areas, `naive` has what pixels that err independently would claim. `ci95`
        has the confidence intervals by the same names. None where no chip has a target; None, too,
        for what no chip has.
    """
    if not judged.n_chips:
        return None
    deciles = Deciles((chip.prediction for chip in judged.read_chips()), judged.n_chips)
    chips = [
        _judge_chip(chip, deciles) for chip in judged.read_chips() if np.isfinite(chip.target).any()
    ]
    if not chips:
        return None
    means, intervals = _average(chips)
    return {"level": judged.level, **_nest(means), CONFIDENCE: _nest(intervals)}


def _judge_chip(chip: JudgedChip, deciles: Deciles) -> dict[str, Floats]:
    """Return a chip's figures by their dotted names; NaN = it has no such pixels."""
    known = np.isfinite(chip.target)
    # No forest has less than 0; rounding alone gives less to a target.
    target = np.maximum(chip.target[known], 0).astype(np.float64)
    prediction, deviation, lower, upper = (
        image[known].astype(np.float64) for image in (chip.prediction, *chip.intervals)
    )
    figures: dict[str, npt.NDArray[np.float64]] = {
        "coverage": ((lower <= target) & (target <= upper)).astype(np.float64),
        "width": upper - lower,
        "score": score_intervals(target, lower, upper, chip.calibration.level),
    }
    every = np.ones(len(target))
    bins = np.searchsorted(BIN_EDGES, target, side="right") - 1
    classes = {
        "": every[:, None],
        "_by_decile": deciles.share(chip.prediction[known]),
        "_by_bin": np.eye(len(BIN_EDGES))[bins],
    }
    judged = {
        f"pixel.{name}{suffix}": _divide(values @ shares, every @ shares)
        for suffix, shares in classes.items()
        for name, values in figures.items()
    }
    judged["crps"] = score_clipped_normal(target, prediction, deviation).mean(keepdims=True)
    for name, side in {**BLOCKS, CHIP: min(chip.target.shape)}.items():
        for figure, values in judge_areas(chip, side).items():
            judged[f"{name}.{figure}"] = _divide(values.sum(keepdims=True), np.array(len(values)))
    return judged


def judge_areas(chip: JudgedChip, side: int) -> dict[str, Floats]:
    """Judge the intervals of the means of a chip's blocks.

    Args:
        chip: The chip.
        side: Of a block, pixels; what fills no block is left out, so are blocks of which less than
            a share of `LEAST_KNOWN` has a target.

    Returns:
        Coverage, width and score of each block, (n,); those of `naive` too: the same of intervals
        of a normal error, if pixels erred independently.
    """
    target, prediction, deviation = (
        split_blocks(image, side).astype(np.float64)
        for image in (chip.target, chip.prediction, chip.intervals.deviation)
    )
    known = np.isfinite(target)
    enough = known.mean((1, 2)) >= LEAST_KNOWN
    known = known[enough]
    n_known = known.sum((1, 2))
    truth, mean = (
        np.where(known, np.maximum(image[enough], 0), 0).sum((1, 2)) / n_known
        for image in (target, prediction)
    )
    deviations = np.where(known, deviation[enough], 0)
    factors = np.array([chip.calibration.area.at(pixels) for pixels in n_known])
    level = chip.calibration.level
    reaches = {
        "": factors * chip.calibration.correlation.sum_errors(deviations) / n_known,
        "naive.": ndtri((1 + level) / 2) * np.sqrt((deviations**2).sum((1, 2))) / n_known,
    }
    judged = {}
    for prefix, reach in reaches.items():
        lower, upper = np.maximum(mean - reach, 0), mean + reach
        judged[f"{prefix}coverage"] = (lower <= truth) & (truth <= upper)
        judged[f"{prefix}width"] = upper - lower
        judged[f"{prefix}score"] = score_intervals(truth, lower, upper, level)
    return judged


def _divide(total: Floats, number: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        return np.asarray(total / number)


def _average(chips: list[dict[str, Floats]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return means over the chips that have a figure, and their confidence intervals; None = none.

    Both by dotted name, of the figures' shapes.
    """
    names = np.repeat(list(chips[0]), [len(values) for values in chips[0].values()])
    table = np.array([np.concatenate(list(chip.values())) for chip in chips])
    known = np.isfinite(table)
    filled = np.where(known, table, 0)
    means = _divide(filled.sum(axis=0), known.sum(axis=0))
    ends = bootstrap_chips(len(table), lambda counts: _divide(counts @ filled, counts @ known))
    is_coverage = np.char.find(names, "coverage") >= 0
    _widen_certain(ends, np.where(is_coverage, means, np.nan), known.sum(axis=0))
    cuts = np.flatnonzero(names[1:] != names[:-1]) + 1
    return tuple(  # type: ignore[return-value]  # two of them
        {
            name: [None if np.isnan(value).any() else value.tolist() for value in part]
            for name, part in zip(chips[0], np.split(values, cuts), strict=True)
        }
        for values in (means, ends)
    )


def _widen_certain(ends: Floats, coverage: Floats, n_chips: Floats) -> None:
    """Give intervals to coverages of which all chips have the same, 1 or 0: so have all resamples.

    If chips were covered with a mean of p, that all n are covered wholly had a probability of at
    most p^n, which shall be 2.5 % or more.

    Source: Clopper, Pearson, The use of confidence or fiducial limits (1934).

    Args:
        ends: Of the confidence intervals, (F, 2); those of such coverages are replaced.
        coverage: (F,); NaN = another figure.
        n_chips: Chips that have it, (F,).
    """
    reach = 1 - ((1 - LEVEL) / 2) ** (1 / np.maximum(n_chips, 1))
    is_known = np.isfinite(ends).all(axis=1)
    for certain, lower, upper in ((1, 1 - reach, 1 + 0 * reach), (0, 0 * reach, reach)):
        chosen = is_known & (coverage == certain)
        ends[chosen] = np.stack([lower, upper], axis=1)[chosen]


def _nest(figures: Mapping[str, Iterable[Any]]) -> dict[str, Any]:
    """Return figures by nested names: lists by decile, by name by bin, else the value itself."""
    nested: dict[str, Any] = {}
    for name, values in figures.items():
        *outer, last = name.split(".")
        inner = nested
        for key in outer:
            inner = inner.setdefault(key, {})
        if last.endswith("_by_bin"):
            inner[last] = dict(zip(BIN_NAMES, values, strict=True))
        else:
            inner[last] = values if last.endswith("_by_decile") else next(iter(values))
    return nested
