"""Blocks of one constant value: regions of an image in which nothing was measured.

A region is a set of pixels of one value, each beside or above another one (4-connectivity). To
label all regions of an image takes milliseconds, of which a chip has 24; so only those values are
looked at that enough pixels have, which the bands of a real chip do not.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

BLOCK_SHARE: Final = 0.03
"""Share of an image over which a region of one value is a block.

Source: drivendataorg/the-biomassters, 3rd-place/utils.py (preprocess_s2, of the band B12).
"""

Mask = NDArray[np.bool_]
Indices = NDArray[np.intp]


class _Runs(NamedTuple):
    """The horizontal runs of a mask, from the top left on.

    Attributes:
        starts: (n,), indices into the flattened mask with one column more.
        stops: (n,), the indices after their last pixels.
        sizes: (n,), pixels of the region that each is a part of.
    """

    starts: Indices
    stops: Indices
    sizes: Indices


def find_constant_blocks(
    image: NDArray[np.uint16], share: float = BLOCK_SHARE, where: Mask | None = None
) -> Mask:
    """Find the pixels of all blocks of an image.

    Args:
        image: One band, (H, W).
        share: A block is a region of one value that has more than this share of all pixels.
        where: Pixels that can be part of one, (H, W); None = all.

    Returns:
        (H, W).
    """
    height, width = image.shape
    edges = np.zeros(height * (width + 1) + 1, np.int8)
    for runs in _find_regions(image, share, where):
        of_block = runs.sizes > share * image.size
        edges[runs.starts[of_block]] += 1
        edges[runs.stops[of_block]] -= 1
    # Counted up where a run of a block starts and down behind its end, the running sum is 1 inside.
    inside = np.add.accumulate(edges[:-1], dtype=np.int8)
    return np.ascontiguousarray(inside.reshape(height, width + 1)[:, :width]).view(np.bool_)


def measure_largest_block(
    image: NDArray[np.uint16], share: float = BLOCK_SHARE, where: Mask | None = None
) -> int:
    """Return the pixels of the largest block of an image, 0 if it has none.

    The arguments are those of `find_constant_blocks`.
    """
    largest = [int(runs.sizes.max()) for runs in _find_regions(image, share, where)]
    size = max(largest, default=0)
    return size if size > share * image.size else 0


def _find_regions(image: NDArray[np.uint16], share: float, where: Mask | None) -> Iterator[_Runs]:
    """Yield the regions of each value that enough pixels have for a block."""
    limit = share * image.size
    for value in np.flatnonzero(np.bincount(image.ravel()) > limit):
        mask = image == value
        if where is not None:
            mask &= where
        if np.count_nonzero(mask) > limit:
            yield _label_runs(mask)


def _label_runs(mask: Mask) -> _Runs:
    """Find the runs of a mask, and the size of the region that each is a part of.

    An example, of 4 rows and 3 columns; with the gap behind each row the stride is 4:

        # . #     runs 0 and 1: starts 0, 2; stops 1, 3
        # # #     run 2: start 4, stop 7; under 2 runs, from run 0 on
        . . .
        # # .     run 3: start 12, stop 14; under none

    The pairs are 0 above 2 and 1 above 2. So runs 0, 1 and 2 have the root 0 and the size 5, run 3
    has the root 3 and the size 2.
    """
    stride = mask.shape[1] + 1
    padded = np.zeros((mask.shape[0], stride), np.bool_)  # a gap that no run crosses
    padded[:, :-1] = mask
    edges = np.flatnonzero(np.diff(padded.ravel(), prepend=False))
    starts, stops = edges[::2], edges[1::2]
    # Which runs of the row above each run lies under: those from `first` on, `counts` in number.
    # Moved down by a row, a run lies `stride` further on. Of the runs, which are sorted, those that
    # stop before this one starts are passed over; then those count that start before it stops.
    first = np.searchsorted(stops + stride, starts, side="right")
    counts = np.searchsorted(starts + stride, stops, side="left") - first
    # The pairs, one run after the other: above it are `first`, `first + 1`, ... in number `counts`.
    below = np.repeat(np.arange(len(starts)), counts)
    offsets = np.arange(len(below)) - np.repeat(np.cumsum(counts) - counts, counts)
    roots = _join(len(starts), np.repeat(first, counts) + offsets, below)
    sizes = np.bincount(roots, weights=stops - starts).astype(np.intp)
    return _Runs(starts, stops, sizes[roots])


def _join(n: int, above: Indices, below: Indices) -> Indices:
    """Return for each of n runs the first of those with which pairs connect it.

    Args:
        n: Number of runs.
        above: The one run of each pair.
        below: The other.
    """
    # Each run points at an earlier one of its region or, as all do at first, at itself. The pairs
    # whose runs still have different roots let the later root point at the earlier one (several
    # may do so with one root: the earliest counts); then each run is pointed at the end of its
    # chain. In each round at least one root goes, so it ends.
    roots = np.arange(n)
    while True:
        one, other = roots[above], roots[below]
        apart = one != other
        if not apart.any():
            return roots
        one, other = one[apart], other[apart]
        np.minimum.at(roots, np.maximum(one, other), np.minimum(one, other))
        while (roots[roots] != roots).any():
            roots = roots[roots]
