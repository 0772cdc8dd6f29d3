"""Which months of which chips the model looks at; all others are never encoded.

Months that are kept lie one behind the other, as if they were the images of a batch of M. Of two
chips with three months, of which the second of the first chip is ignored, M = 5:

    (B, T)     chip 0: a . c      chip 1: d e f
    positions  0 2 3 4 5          pick:   a c d e f
    spread     chip 0: a fill c   chip 1: d e f
"""

from typing import NamedTuple

import torch
from torch import Tensor


class KeptMonths(NamedTuple):
    """The months of a batch that are encoded: M of the B * T, in the order of chips and months.

    Attributes:
        n_chips: B.
        n_months: T.
        positions: Of the kept months among the B * T, (M,) int64, ascending; None: all are kept.
    """

    n_chips: int
    n_months: int
    positions: Tensor | None

    def pick(self, values: Tensor) -> Tensor:
        """Return what belongs to the kept months, (B, T, ...) -> (M, ...)."""
        values = values.flatten(0, 1)
        return values if self.positions is None else values[self.positions]

    def spread(self, values: Tensor, fill: float) -> Tensor:
        """Put back what `pick` took, (M, ...) -> (B, T, ...), with `fill` in all other months.

        No two values meet, so that it is deterministic, as is its gradient.
        """
        if self.positions is not None:
            # (B * T, ...), as the positions count
            everywhere = values.new_full((self.n_chips * self.n_months, *values.shape[1:]), fill)
            values = everywhere.index_copy(0, self.positions, values)
        return values.view(self.n_chips, self.n_months, *values.shape[1:])


def find_kept_months(ignored: Tensor | None, shape: torch.Size, device: torch.device) -> KeptMonths:
    """Return the months that are left.

    How many are left is needed on the host: a mask on a GPU makes it wait for all work before.

    Args:
        ignored: (B, T) bool, on any device; None: no month is ignored. A chip that would ignore all
            its months keeps all: a prediction, though without meaning, in place of NaN, which would
            spread to the whole batch's gradient.
        shape: Of the images, (B, T, ...).
        device: Of the images.
    """
    n_chips, n_months = shape[:2]
    positions = None
    if ignored is not None:
        ignored = ignored.cpu()
        kept = (~ignored | ignored.all(dim=1, keepdim=True)).flatten()
        if not kept.all():  # else None: a view in place of a copy of all images
            positions = kept.nonzero().squeeze(1).to(device, non_blocking=True)
    return KeptMonths(n_chips, n_months, positions)


def ignore_absent_months(s2_present: Tensor) -> Tensor:
    """Return the months without Sentinel-2 images, (B, T) bool; none of a chip that has no other.

    Args:
        s2_present: (B, T) bool; False = absent month.
    """
    return ~s2_present & s2_present.any(dim=1, keepdim=True)


def merge_ignored(absent: Tensor | None, dropped: Tensor | None) -> Tensor | None:
    """Return the months to ignore for either reason, on the device of the first.

    A chip that would have no month left ignores its absent months alone.

    Args:
        absent: Months to ignore for what the chip lacks, (B, T) bool, never all; None: none.
        dropped: Months to ignore by chance, (B, T) bool; None: none.
    """
    if absent is None or dropped is None:
        return dropped if absent is None else absent
    merged = absent | dropped.to(absent.device)
    return torch.where(merged.all(dim=1, keepdim=True), absent, merged)
