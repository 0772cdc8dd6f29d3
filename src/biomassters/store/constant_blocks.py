"""Blocks of one constant value: regions of an image in which nothing was measured.

A region is a set of pixels of one value, each beside or above another one (4-connectivity). To
label all regions of an image takes milliseconds, of which a chip has 24; so only those values are
looked at that enough pixels have, which the bands of a real chip do not.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

BLOCK_SHARE: Final = 0.03
"""Share of an image over which a region of one value is a block.

Source: drivendataorg/the-biomassters, 3rd-place/utils.py (preprocess_s2, of the band B12).
"""

Mask = NDArray[np.bool_]
Indices = NDArray[np.intp]


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
    blocks = np.zeros(image.shape, np.bool_)
    for labels, sizes in _find_regions(image, share, where):
        blocks |= (sizes > share * image.size)[labels]
    return blocks


def measure_largest_block(
    image: NDArray[np.uint16], share: float = BLOCK_SHARE, where: Mask | None = None
) -> int:
    """Return the pixels of the largest block of an image, 0 if it has none.

    The arguments are those of `find_constant_blocks`.
    """
    largest = [int(sizes.max()) for _, sizes in _find_regions(image, share, where)]
    size = max(largest, default=0)
    return size if size > share * image.size else 0


def _find_regions(
    image: NDArray[np.uint16], share: float, where: Mask | None
) -> Iterator[tuple[Indices, Indices]]:
    """Yield the regions of each value that enough pixels have for a block.

    Yields:
        The number of each pixel's region, (H, W), 0 = none; and by number its pixels, of 0 none.
    """
    limit = share * image.size
    for value in np.flatnonzero(np.bincount(image.ravel()) > limit):
        mask = image == value
        if where is not None:
            mask &= where
        if np.count_nonzero(mask) > limit:
            labels, _ = ndimage.label(mask)
            sizes = np.bincount(labels.ravel())
            sizes[0] = 0
            yield labels, sizes
