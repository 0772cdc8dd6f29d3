"""The audit of a split: what one should know of the data before training on them.

Knows the three files that say so: figures, a table of chips and a page of plots. They depend on
the store's facts alone, which were counted when each chip was packed; no pixel is read.
"""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from biomassters.audit.facts import SplitFacts
from biomassters.audit.findings import FEW_S2_MONTHS, Finding, list_findings
from biomassters.dataset.files import BadFile, Split
from biomassters.processes.writing import write_whole
from biomassters.store.bands import MONTHS, N_MONTHS, S1_BANDS, SWIR_BANDS
from biomassters.store.chips import ChipStore

NAMED_CHIPS: Final = 20
"""So many chips are named for a finding; the table of chips names all."""

PERCENTILES: Final = (0, 5, 25, 50, 75, 95, 100)


def write_audit(
    folder: Path, split: Split, store: ChipStore, bad_files: Sequence[BadFile] = ()
) -> None:
    """Write `<split>.json`, `<split>_chips.csv` and `images/<split>.png`.

    Law: the same store and bad files give the same bytes.

    Args:
        folder: Where to; made if absent.
        split: The store's split.
        store: Its chips.
        bad_files: Those for which chips were left out of the store.

    Raises:
        StoreError: The store's facts are missing or damaged.
    """
    # Not above: the processes that pack chips import the script too, and draw nothing.
    from biomassters.audit.plots import draw_audit

    facts = SplitFacts.read(store)
    findings = list_findings(facts)
    skipped = describe_skipped(bad_files)
    summary = {**summarise_facts(facts, findings), "skipped": skipped}
    page = io.BytesIO()
    figure = draw_audit(split, facts, findings, skipped)
    figure.savefig(page, format="png", metadata={"Software": None})
    write_whole(folder / f"{split}.json", json.dumps(summary, indent=2).encode() + b"\n")
    write_whole(folder / f"{split}_chips.csv", tabulate_chips(facts, findings).encode())
    write_whole(folder / "images" / f"{split}.png", page.getvalue())


def summarise_facts(facts: SplitFacts, findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the figures of a split; shares are 0...1, biomass is in t/ha, None = of nothing."""
    present = facts.s2_present
    valid = facts.pixels - facts["s1_nodata"]
    ascending, descending = (orbit.any(axis=1) for orbit in facts.orbit_present.values())
    return {
        "chips": len(facts),
        "targets": int(facts.has_target.sum()),
        "chip_size": facts.chip_size,
        **{
            f"s1_{orbit}_present": _by_month(images, np.ones_like(images))
            for orbit, images in facts.orbit_present.items()
        },
        "s2_present": _by_month(present, np.ones_like(present)),
        "orbits": {
            "both": _mean(ascending & descending),
            "ascending_only": _mean(ascending & ~descending),
            "descending_only": _mean(descending & ~ascending),
            "none": _mean(~ascending & ~descending),
        },
        "s2_months": {
            str(months): _mean(facts.s2_months == months) for months in range(N_MONTHS + 1)
        },
        f"s2_months_under_{FEW_S2_MONTHS}": _mean(facts.s2_months < FEW_S2_MONTHS),
        "s1_nodata": _by_band(facts["s1_nodata"], np.full_like(valid, facts.pixels)),
        "s1_zero": _by_band(facts["s1_zero"], valid),
        "s1_outside": _by_band(facts["s1_outside"], valid),
        **{
            name: _by_month(facts[name], present * facts.pixels)
            for name in ("s2_nodata", "s2_cloudy", "s2_zero")
        },
        "agbm": _summarise_targets(facts),
        "findings": {finding.name: _summarise_finding(finding, facts) for finding in findings},
    }


def describe_skipped(bad_files: Sequence[BadFile]) -> dict[str, Any]:
    """Return which chips were left out, each with its first bad file."""
    by_chip: dict[str, list[BadFile]] = {}
    for bad in sorted(bad_files):
        by_chip.setdefault(bad.chip_id, []).append(bad)
    reasons = {}
    for chip_id, (first, *more) in by_chip.items():
        others = f", and {len(more)} more" if more else ""
        reasons[chip_id] = f"{first.filename}: expected {first.expected}, got {first.got}{others}"
    return {"chips": len(by_chip), "files": len(bad_files), "reasons": reasons}


def tabulate_chips(facts: SplitFacts, findings: Sequence[Finding]) -> str:
    """Return a CSV with a row a chip, in the order of the store."""
    columns = _list_columns(facts, findings)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


def _list_columns(facts: SplitFacts, findings: Sequence[Finding]) -> Mapping[str, list[Any]]:
    of_s2 = facts.s2_months * facts.pixels
    blocks = facts["s2_block"].reshape(len(facts), N_MONTHS * len(SWIR_BANDS))
    flags = [
        " ".join(finding.name for finding in findings if finding.counts[index])
        for index in range(len(facts))
    ]
    return {
        "chip_id": facts.chip_ids,
        "s2_months": facts.s2_months.tolist(),
        "s2_present": _spell_months(facts.s2_present),
        **{
            f"{orbit}_present": _spell_months(present)
            for orbit, present in facts.orbit_present.items()
        },
        "s1_nodata": _ratios(_total(facts["s1_nodata"]), N_MONTHS * len(S1_BANDS) * facts.pixels),
        "s1_zero_values": _total(facts["s1_zero"]).tolist(),
        "s1_outside_values": _total(facts["s1_outside"]).tolist(),
        "s2_nodata": _ratios(_total(facts["s2_nodata"]), of_s2),
        "s2_cloudy": _ratios(_total(facts["s2_cloudy"]), of_s2),
        "s2_zero": _ratios(_total(facts["s2_zero"]), of_s2),
        "s2_zero_images": facts.zero_images.sum(axis=1).tolist(),
        "block_images": facts.block_images.sum(axis=1).tolist(),
        "largest_block": _ratios(blocks.max(axis=1), facts.pixels),
        "largest_block_image": _name_blocks(blocks),
        **{
            name: [f"{value:.6g}" if value == value else "" for value in facts[name].tolist()]
            for name in ("agbm_mean", "agbm_min", "agbm_max")
        },
        "agbm_nodata": _ratios(facts["agbm_nodata"], facts.pixels),
        "agbm_negative_pixels": facts["agbm_negative"].tolist(),
        "agbm_extreme_pixels": facts["agbm_extreme"].tolist(),
        "flags": flags,
    }


def _summarise_targets(facts: SplitFacts) -> dict[str, Any] | None:
    means = facts["agbm_mean"][facts.has_target]
    if not means.size:
        return None
    shares = np.percentile(means, PERCENTILES)
    return {
        # fsum, whose last bit does not depend on the processor.
        "mean": round(math.fsum(means) / len(means), 3),
        "chip_mean_percentiles": {
            str(percent): round(float(value), 3)
            for percent, value in zip(PERCENTILES, shares, strict=True)
        },
        "min": round(float(facts["agbm_min"][facts.has_target].min()), 3),
        "max": round(float(facts["agbm_max"][facts.has_target].max()), 3),
        "nodata": _divide(facts["agbm_nodata"][facts.has_target].sum(), len(means) * facts.pixels),
    }


def _summarise_finding(finding: Finding, facts: SplitFacts) -> dict[str, Any]:
    suspects = finding.suspects
    return {
        **({} if finding.unit == "chips" else {finding.unit: int(finding.counts.sum())}),
        "chips": len(suspects),
        "share_of_chips": _divide(len(suspects), len(facts)),
        "chip_ids": [facts.chip_ids[index] for index in suspects[:NAMED_CHIPS]],
    }


def _by_month(counts: NDArray[Any], totals: NDArray[Any]) -> dict[str, float | None]:
    """Return sums of `counts` as shares of those of `totals`, both (n, 12)."""
    shares = {
        month: _divide(counts[:, index].sum(), totals[:, index].sum())
        for index, month in enumerate(MONTHS)
    }
    return {**shares, "all": _divide(counts.sum(), totals.sum())}


def _by_band(counts: NDArray[Any], totals: NDArray[Any]) -> dict[str, float | None]:
    """Return sums of `counts` as shares of those of `totals`, both (n, 12, 4)."""
    sums, whole = (values.sum(axis=(0, 1), dtype=np.int64) for values in (counts, totals))
    return {band: _divide(sums[index], whole[index]) for index, band in enumerate(S1_BANDS)}


def _mean(values: NDArray[np.bool_]) -> float | None:
    return _divide(values.sum(), values.size)


def _divide(part: Any, whole: Any) -> float | None:
    return round(int(part) / int(whole), 6) if whole else None


def _total(counts: NDArray[Any]) -> NDArray[np.int64]:
    axes = tuple(range(1, counts.ndim))
    total: NDArray[np.int64] = counts.sum(axis=axes, dtype=np.int64)
    return total


def _ratios(parts: NDArray[Any], wholes: NDArray[Any] | int) -> list[str]:
    """Return shares as texts; empty where there is no whole."""
    pairs = zip(parts.tolist(), np.broadcast_to(wholes, parts.shape).tolist(), strict=True)
    return [f"{part / whole:.6g}" if whole else "" for part, whole in pairs]


def _spell_months(present: NDArray[np.bool_]) -> list[str]:
    """Return the months of each chip, (n, 12), as 12 initials; `-` = absent."""
    return ["".join(np.where(row, [name[0] for name in MONTHS], "-")) for row in present]


def _name_blocks(blocks: NDArray[Any]) -> list[str]:
    """Return month and band of the largest block of each chip, (n, 12 * 2); empty = none."""
    names = [f"{band} {month}" for month in MONTHS for band in SWIR_BANDS]
    return [names[row.argmax()] if row.any() else "" for row in blocks]
