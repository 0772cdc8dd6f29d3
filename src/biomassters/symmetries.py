"""The eight flips and quarter turns of a square image, with their inverses.

They serve augmentation and TTA alike, on tensors of any type whose last two axes are H and W; an
image that is not square may be flipped, and a quarter turn changes its shape.

Laws: `undo(apply(x, k), k)` equals x; one symmetry after another is again one of the eight.
"""

from typing import Final, Literal

from torch import Tensor

IDENTITY: Final = 0

SYMMETRIES: Final = tuple(range(8))
"""k % 4 quarter turns, counterclockwise; where k is 4 and more, after a flip of left and right."""

FLIPS: Final = (0, 4, 2, 6)
"""Identity, flip of left and right, of both (a half turn), of up and down."""

_VIEWS: Final = {"none": (IDENTITY,), "flips": FLIPS, "dihedral": SYMMETRIES}


def apply(images: Tensor, symmetry: int) -> Tensor:
    """Apply a symmetry, 0...7, to images, (..., H, W)."""
    flipped = images.flip(-1) if symmetry >= 4 else images
    return flipped.rot90(symmetry % 4, (-2, -1))


def undo(images: Tensor, symmetry: int) -> Tensor:
    """Undo a symmetry, 0...7, on images, (..., H, W)."""
    turned = images.rot90(-symmetry % 4, (-2, -1))
    return turned.flip(-1) if symmetry >= 4 else turned


def views(tta: Literal["none", "flips", "dihedral"]) -> tuple[int, ...]:
    """Return the symmetries whose predictions a kind of TTA averages."""
    return _VIEWS[tta]
