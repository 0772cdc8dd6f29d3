"""What is done to a chip's values when it is read: the rules of the competition's three winners.

- `none`: as stored.
- `winner`: a missing cloud probability becomes 255, as the files have it. He divides by 255
  whatever the file holds, so that such a pixel is 1, the worst cloud, while nodata is 0 to our
  models (see `normalisation`). All else that he does to the values is in the normalisation, or the
  same: where no cloud probability is missing this equals `none`.
- `second`: backscatter is clipped, and a cloud probability over 100 is 0. Nodata stays nodata
  (he clips -9999 too, to the least backscatter, and has 0 for a pixel without any S2).
- `third`: nodata are backscatter of 0 dB; of S2 regions of one value of B12 over 3 % of a chip,
  and clouds: a probability over 50 %, by which small groups of pixels are spared and large ones
  grow by some pixels. (He then drops the cloud probability, and takes medians over seasons.)

Laws: cleaning twice is cleaning once; absent months, targets and the place stay as they are.

Source: drivendataorg/the-biomassters, 1st-place/src/dataset.py, 2nd-place/libs/process/clean.py
and 3rd-place/utils.py (preprocess_s1, preprocess_s2).
"""

from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from biomassters.params.sections import CleaningName
from biomassters.store.bands import (
    CLP,
    CLP_NODATA,
    S1_STORED_NODATA,
    S1_STORED_SCALE_DB,
    S2_BANDS,
    S2_STORED_NODATA,
)
from biomassters.store.chips import Chip, ChipStore
from biomassters.store.constant_blocks import find_constant_blocks

SECOND_S1_RANGE_DB: Final = ((-25, 30), (-63, 29), (-25, 32), (-70, 23))
SECOND_CLP_MAX: Final = 100

THIRD_CLP_MAX: Final = 50
THIRD_CORE: Final = (1, 3, 3)
"""A cloud's core has clouds all around it, in 3 x 3 pixels; what has no core is spared."""
THIRD_GROWTH: Final = (1, 6, 6)
"""A core becomes 6 x 6 pixels: its own, the 3 before it and the 2 after it, by row and column."""
THIRD_HOLE: Final = 2
"""Pixels of the largest hole in a cloud that is filled."""
_CROSS: Final = ndimage.generate_binary_structure(3, 1) & (np.arange(3) == 1)[:, None, None]
"""The pixels beside, above and below one, of its own image."""

_B12: Final = S2_BANDS.index("B12")

Mask = NDArray[np.bool_]


def open_cleaned(path: Path, name: CleaningName) -> ChipStore:
    """Open a store whose chips are cleaned by a rule as they are read.

    Raises:
        StoreError: It is absent, incomplete or of another format.
    """
    return ChipStore.open(path, clean=partial(clean_chip, name=name))


def clean_chip(chip: Chip, name: CleaningName) -> Chip:
    """Return a chip with one of the rules applied; its own arrays are not modified.

    Args:
        chip: As stored.
        name: The rule.
    """
    if name == "winner":
        return _clean_as_winner(chip)
    if name == "second":
        return _clean_as_second(chip)
    if name == "third":
        return _clean_as_third(chip)
    return chip


def _clean_as_winner(chip: Chip) -> Chip:
    return _set_clouds(chip, chip.s2[:, CLP] == S2_STORED_NODATA, CLP_NODATA)


def _clean_as_second(chip: Chip) -> Chip:
    low, high = (
        np.array([round(db / S1_STORED_SCALE_DB) for db in ends], np.int16)[:, None, None]
        for ends in zip(*SECOND_S1_RANGE_DB, strict=True)
    )
    s1 = np.clip(chip.s1, low, high)
    np.copyto(s1, S1_STORED_NODATA, where=chip.s1 == S1_STORED_NODATA)
    wrong = chip.s2[:, CLP] > SECOND_CLP_MAX
    return _set_clouds(chip._replace(s1=s1), wrong & ~_find_nodata(chip), 0)


def _set_clouds(chip: Chip, where: Mask, value: int) -> Chip:
    """Set the cloud probability of pixels, (12, H, W), but in absent months."""
    where = where & chip.s2_present[:, None, None]
    if not where.any():
        return chip
    s2 = chip.s2.copy()
    np.copyto(s2[:, CLP], value, where=where)
    return chip._replace(s2=s2)


def _clean_as_third(chip: Chip) -> Chip:
    s1, s2 = chip.s1.copy(), chip.s2.copy()
    np.copyto(s1, S1_STORED_NODATA, where=chip.s1 == 0)
    nodata = _find_nodata(chip)
    present = chip.s2_present[:, None, None]
    known = present & ~nodata  # nodata counts as no cloud, or cleaning again would let it grow
    blocks = np.zeros_like(nodata)
    for month in np.flatnonzero(known.any(axis=(1, 2))):
        b12 = chip.s2[month, _B12]
        where = known[month] & (b12 != S2_STORED_NODATA)
        blocks[month] = find_constant_blocks(b12, where=where)
    clouds = _open_clouds(known & ((chip.s2[:, CLP] > THIRD_CLP_MAX) | blocks))
    np.copyto(s2, S2_STORED_NODATA, where=(present & (blocks | clouds))[:, None])
    return chip._replace(s1=s1, s2=s2)


def _find_nodata(chip: Chip) -> Mask:
    """Find the pixels without any S2, (12, H, W); also false in absent months, which hold 0."""
    nodata: Mask = chip.s2[:, CLP] == S2_STORED_NODATA
    if nodata.any():
        nodata &= (chip.s2[:, :CLP] == S2_STORED_NODATA).all(axis=1)
    return nodata


def _open_clouds(clouds: Mask) -> Mask:
    """Spare small clouds and let large ones grow, in images (12, H, W).

    Beyond the edges all is cloudy to a core, and nothing to a cloud that grows.
    """
    # As filters, which go along one axis after the other: half the time of binary morphology.
    cores = ndimage.minimum_filter(clouds.view(np.uint8), THIRD_CORE, mode="constant", cval=1)
    grown = ndimage.maximum_filter(cores, THIRD_GROWTH, mode="constant", origin=(0, -1, -1))
    return _fill_holes(grown.view(np.bool_))


def _fill_holes(mask: Mask) -> Mask:
    """Fill holes of one or two pixels, beside or above each other."""
    labels, _ = ndimage.label(~mask, _CROSS)
    sizes = np.bincount(labels.ravel())
    filled: Mask = (sizes <= THIRD_HOLE)[labels] | mask
    return filled
