"""What a catalogue tells of its data before a byte of them is fetched.

Knows presence, sizes and checksums of the files, and how test differs from train; knows nothing
of pixels, which `audit` counts once they are packed.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from biomassters.audit.findings import FEW_S2_MONTHS
from biomassters.dataset.catalogue import Catalogue
from biomassters.dataset.files import SPLITS, ChipRecord, Split, list_files
from biomassters.store.bands import MONTHS

_TITLE_WIDTH = 34
_COLUMN_WIDTH = 16


class SplitAudit(NamedTuple):
    """What the catalogue says of one split.

    Attributes:
        chips: How many.
        feature_files: S1 and S2 files.
        targets: Target files.
        size: Bytes of all these files.
        with_cksum: How many of them have a checksum.
        s2_present: Months that have an S2 file, (n, 12) bool.
    """

    chips: int
    feature_files: int
    targets: int
    size: int
    with_cksum: int
    s2_present: NDArray[np.bool_]

    @property
    def s2_share(self) -> float:
        """Share of the chips' months that have an S2 file."""
        return float(self.s2_present.mean())

    @property
    def few_s2_share(self) -> float:
        """Share of the chips with fewer than `FEW_S2_MONTHS` months of S2."""
        return float((self.s2_present.sum(axis=1) < FEW_S2_MONTHS).mean())


def audit_catalogue(catalogue: Catalogue) -> dict[Split, SplitAudit]:
    """Count what a catalogue has, by split; a split without chips is left out."""
    chips = {split: catalogue.chips(split) for split in SPLITS}
    return {split: _audit_split(chips[split]) for split in SPLITS if chips[split]}


def tabulate_catalogue(audits: Mapping[Split, SplitAudit]) -> str:
    """Return a table of the splits, and of the shift from train to test where it has both."""
    columns = list(audits.values())
    shift = ["test - train"] if len(columns) == 2 else []
    lines = [_format_row("", [*audits, *shift])]
    for title, counts in (
        ("chips", [f"{audit.chips:,}" for audit in columns]),
        ("S1 and S2 files", [f"{audit.feature_files:,}" for audit in columns]),
        ("targets", [f"{audit.targets:,}" for audit in columns]),
        ("size", [f"{audit.size / 1e9:,.1f} GB" for audit in columns]),
        ("files with a checksum", [f"{audit.with_cksum:,}" for audit in columns]),
    ):
        lines.append(_format_row(title, counts))
    lines += [
        "",
        _format_shares("S2 present", [audit.s2_share for audit in columns]),
        *(
            _format_shares(f"  {name}", [float(a.s2_present[:, month].mean()) for a in columns])
            for month, name in enumerate(MONTHS)
        ),
        _format_shares(
            f"chips with fewer than {FEW_S2_MONTHS} S2 months",
            [audit.few_s2_share for audit in columns],
        ),
        "",
        _describe_total(columns),
    ]
    return "\n".join(lines)


def _audit_split(chips: Sequence[ChipRecord]) -> SplitAudit:
    files = [record for chip in chips for record in list_files(chip)]
    targets = sum(chip.agbm is not None for chip in chips)
    return SplitAudit(
        chips=len(chips),
        feature_files=len(files) - targets,
        targets=targets,
        size=sum(record.size for record in files),
        with_cksum=sum(record.cksum is not None for record in files),
        s2_present=np.array([[record is not None for record in chip.s2] for chip in chips]),
    )


def _describe_total(audits: Sequence[SplitAudit]) -> str:
    chips = sum(audit.chips for audit in audits)
    features = sum(audit.feature_files for audit in audits)
    targets = sum(audit.targets for audit in audits)
    size = sum(audit.size for audit in audits)
    return (
        f"together {chips:,} chips, {features:,} S1 and S2 files, {targets:,} targets,"
        f" {size / 1e9:,.1f} GB"
    )


def _format_shares(title: str, shares: Sequence[float]) -> str:
    texts = [f"{share:.1%}" for share in shares]
    if len(shares) == 2:
        texts.append(f"{100 * (shares[1] - shares[0]):+.1f}")
    return _format_row(title, texts)


def _format_row(title: str, cells: Iterable[str]) -> str:
    return f"{title:{_TITLE_WIDTH}}" + "".join(f"{cell:>{_COLUMN_WIDTH}}" for cell in cells)
