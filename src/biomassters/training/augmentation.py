"""Random changes of training chips: symmetries, rotations, lost months.

What happens to a chip is drawn on the CPU from (seed, epoch, chip index) alone, whatever batch,
worker or GPU it comes in, and whichever other changes are switched on. On a GPU the changes
themselves are a few operations on the whole batch (`augment`), which never make the host wait; on a
CPU each pixel of a month is fetched, with all its bands, from where it comes from (`PixelSources`).

Not a library's (torchvision, kornia): they draw from one generator in the order of calls, they know
no target that is missing here and there, and no months; of theirs, only the interpolation would be
left, which is torch's own `grid_sample`.

Source: the winner's code. He turns by whole degrees, and blanks the months that are lost.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from biomassters.batches import symmetries
from biomassters.batches.reading import send
from biomassters.params.sections import AugmentationParams

CENTRE_JITTER: Final = 0.1
"""A rotation's centre lies within this share of the side from the middle, in x and in y.

Source: the winner's code."""

TOUCHED: Final = 1e-4
"""Share of NaN in an interpolated pixel's footprint from which on it is NaN: above the rounding of
float32 coordinates, so that a pixel which meets another exactly has no neighbours."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What happens to one chip.

    Attributes:
        symmetry: 0...7, see `symmetries`.
        is_rotated: Whether the next two apply.
        angle_degrees: Counterclockwise.
        centre: Of the rotation: x, y from the middle, in sides of the chip.
        lost: Months that the model shall ignore, (T,) bool; never all.
    """

    symmetry: int
    is_rotated: bool
    angle_degrees: float
    centre: tuple[float, float]
    lost: npt.NDArray[np.bool_]


def may_drop_months(settings: AugmentationParams) -> bool:
    """Whether a chip may lose months, down to one."""
    return settings.month_dropout_p > 0 and settings.month_dropout_rate > 0


def draw_changes(
    settings: AugmentationParams, sample: tuple[int, int, int], n_months: int
) -> Changes:
    """Draw what happens to a chip.

    Args:
        settings: Section `augmentation` of params.yaml.
        sample: Seed, epoch and chip index; all that the result depends on but the settings.
        n_months: Months of the chip.
    """
    random = np.random.Generator(np.random.PCG64(sample))
    # All is drawn, needed or not: what one change draws must not depend on another's settings.
    symmetry = int(random.integers(len(symmetries.SYMMETRIES)))
    is_rotated = bool(random.random() < settings.rotation_p)
    angle = random.uniform(-settings.rotation_degrees, settings.rotation_degrees)
    x, y = random.uniform(-CENTRE_JITTER, CENTRE_JITTER, size=2)
    loses_months = random.random() < settings.month_dropout_p
    chances = random.random(n_months)
    lost = (chances < settings.month_dropout_rate) & loses_months
    lost[chances.argmax()] = False
    return Changes(
        symmetry=symmetry if settings.symmetries else symmetries.IDENTITY,
        is_rotated=is_rotated,
        angle_degrees=angle,
        centre=(x, y),
        lost=lost,
    )


def augment(images: Tensor, target: Tensor, changes: Sequence[Changes]) -> tuple[Tensor, Tensor]:
    """Turn and rotate each chip of a batch, its images and its target together.

    Args:
        images: Normalised bands, (B, T, C, H, W) float32, H = W; not modified.
        target: AGBM, (B, H, W), t/ha; NaN = no target; not modified.
        changes: What happens to each chip. (Its lost months are not touched: see `kept_months`.)

    Returns:
        Both, of the same shapes.
    """
    return _change(images, changes, rotate_images), change_target(target, changes)


def change_target(target: Tensor, changes: Sequence[Changes]) -> Tensor:
    """Turn and rotate the targets of chips, (B, H, W), t/ha; NaN = no target; not modified."""
    return _change(target, changes, rotate_target)


@torch.no_grad()
def _change(
    chips: Tensor, changes: Sequence[Changes], rotate: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Turn the chips that are turned, (B, ..., H, W), and let `rotate` rotate those that are."""
    size, device = chips.shape[-1], chips.device
    if any(change.symmetry for change in changes):
        sources = symmetries.source_pixels([change.symmetry for change in changes], size)
        chips = symmetries.take_pixels(chips, send(sources, device))
    rotated = [index for index, change in enumerate(changes) if change.is_rotated]
    if rotated:
        rows = send(torch.tensor(rotated), device)
        grid = _turn_grid([changes[index] for index in rotated], size, device)
        chips = chips.index_copy(0, rows, rotate(chips[rows], grid))
    return chips


@dataclass(frozen=True, kw_only=True)
class PixelSources:
    """Where each pixel of a changed chip comes from, on the CPU.

    Attributes:
        indices: Of the pixels that it is made of, row by row: (H * W, 1) of a chip that is only
            flipped and turned, (H * W, 4) of one that is rotated; int32.
        weights: Their weights, (H * W, 4) float32; None: the one pixel as it is.
    """

    indices: Tensor
    weights: Tensor | None

    @classmethod
    def find(cls, change: Changes, size: int) -> "PixelSources | None":
        """Return where the pixels come from; None: from their own places.

        Args:
            change: What happens to the chip.
            size: Side of the chip, pixels.
        """
        if not change.is_rotated and change.symmetry == symmetries.IDENTITY:
            return None
        turned = symmetries.source_pixels([change.symmetry], size)[0]
        if not change.is_rotated:
            return cls(indices=turned[:, None].int(), weights=None)
        corners, weights = _find_corners(_turn_grid([change], size, turned.device)[0])
        # The chip is rotated as it lies after its flips and quarter turns.
        return cls(indices=turned[corners].int(), weights=weights)

    def take(self, image: npt.NDArray[np.float32], out: npt.NDArray[np.float32]) -> None:
        """Make a changed image of an image, (H, W, C) both; a pixel's bands lie side by side.

        A fifth of the time that `augment` takes for it, which fetches each band by itself.
        """
        rows, changed = (array.reshape(-1, array.shape[2]) for array in (image, out))
        if self.weights is None:
            np.take(rows, self.indices[:, 0].numpy(), axis=0, out=changed, mode="clip")
            return
        # A sum of weighted rows of a table, for which torch has a kernel of its own.
        interpolated = F.embedding_bag(
            self.indices, torch.from_numpy(rows), per_sample_weights=self.weights, mode="sum"
        )
        changed[...] = interpolated.numpy()


def rotate_images(images: Tensor, grid: Tensor) -> Tensor:
    """Interpolate images, (B, T, C, H, W), at a grid, (B, H, W, 2).

    Beyond the border the image is mirrored about the centres of its outermost pixels.
    """
    folded = images.flatten(1, 2)  # (B, T, C, H, W) -> (B, T*C, H, W)
    return _interpolate(folded, grid).reshape(images.shape)


def rotate_target(target: Tensor, grid: Tensor) -> Tensor:
    """Interpolate a target, (B, H, W); a pixel that any NaN would contribute to is NaN."""
    missing = target.isnan()
    layers = torch.stack([torch.where(missing, 0.0, target), missing.to(target.dtype)], dim=1)
    values, share_missing = _interpolate(layers, grid).unbind(1)
    return torch.where(share_missing > TOUCHED, torch.nan, values)


def _turn_grid(changes: Sequence[Changes], size: int, device: torch.device) -> Tensor:
    """Return where each pixel of rotated chips comes from, (B, size, size, 2): x and y.

    -1 and 1 are the centres of the outermost pixels.

    Without a matrix product, which a GPU may round to ten bits (TF32): tenths of a pixel.
    """
    angles = np.radians([change.angle_degrees for change in changes])
    centres = np.array([change.centre for change in changes])
    turns = np.column_stack([np.cos(angles), np.sin(angles), centres])  # (B, 4) float64
    numbers = send(torch.from_numpy(turns), device)
    cos, sin, centre_x, centre_y = numbers[:, :, None, None].unbind(1)
    side = 2 * size / (size - 1)
    centre_x, centre_y = side * centre_x, side * centre_y
    pixel = torch.linspace(-1, 1, size, dtype=numbers.dtype, device=device)
    x, y = pixel[None, None, :] - centre_x, pixel[None, :, None] - centre_y
    sources = [cos * x - sin * y + centre_x, sin * x + cos * y + centre_y]
    return torch.stack(sources, dim=-1).float()


def _find_corners(grid: Tensor) -> tuple[Tensor, Tensor]:
    """Return the four pixels around each place of a grid, and their weights, (H * W, 4) both.

    In the order and with the arithmetic of `grid_sample`, so that the numbers are the same.

    Args:
        grid: (H, W, 2), see `_turn_grid`.
    """
    last = len(grid) - 1
    place = ((grid.flatten(0, 1) + 1) / 2 * last).abs()  # (H * W, 2), pixels
    # Mirrored at both borders, as often as it takes.
    bounces = torch.floor(place / last)
    inner = place - bounces * last
    place = torch.where(bounces % 2 == 0, inner, last - inner)
    before = place.floor()
    (x_after, y_after), (x_share, y_share) = (before + 1).clamp(max=last).T, (place - before).T
    x_before, y_before = before.T
    corners = [(y, x) for y in (y_before, y_after) for x in (x_before, x_after)]
    shares = [(y, x) for y in (1 - y_share, y_share) for x in (1 - x_share, x_share)]
    indices = torch.stack([y * len(grid) + x for y, x in corners], dim=1)
    return indices.long(), torch.stack([y * x for y, x in shares], dim=1)


def _interpolate(layers: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(
        layers, grid, mode="bilinear", padding_mode="reflection", align_corners=True
    )
