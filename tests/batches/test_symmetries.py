from itertools import product

import pytest
import torch
from torch import Tensor

from biomassters.batches.symmetries import (
    FLIPS,
    SYMMETRIES,
    apply,
    source_pixels,
    take_pixels,
    undo,
    views,
)

CORNERS = torch.tensor([[1, 2], [3, 4]])


def numbered(*shape: int) -> Tensor:
    return torch.arange(torch.Size(shape).numel()).reshape(shape)


@pytest.mark.parametrize("symmetry", SYMMETRIES)
@pytest.mark.parametrize("shape", [(4, 4), (2, 3, 5, 5), (3, 2, 6)])
def test_undo_returns_what_was_applied(symmetry: int, shape: tuple[int, ...]) -> None:
    images = numbered(*shape)
    assert torch.equal(undo(apply(images, symmetry), symmetry), images)
    assert torch.equal(apply(undo(images, symmetry), symmetry), images)


@pytest.mark.parametrize(
    ("symmetry", "expected"),
    [
        (0, [[1, 2], [3, 4]]),
        (1, [[2, 4], [1, 3]]),
        (2, [[4, 3], [2, 1]]),
        (3, [[3, 1], [4, 2]]),
        (4, [[2, 1], [4, 3]]),
        (5, [[1, 3], [2, 4]]),
        (6, [[3, 4], [1, 2]]),
        (7, [[4, 2], [3, 1]]),
    ],
)
def test_each_symmetry_by_hand(symmetry: int, expected: list[list[int]]) -> None:
    assert apply(CORNERS, symmetry).tolist() == expected


def test_two_symmetries_make_a_third() -> None:
    eight = {str(apply(CORNERS, symmetry).tolist()) for symmetry in SYMMETRIES}
    assert len(eight) == 8
    for first, second in product(SYMMETRIES, repeat=2):
        assert str(apply(apply(CORNERS, first), second).tolist()) in eight


def test_flips_keep_the_shape_and_undo_themselves() -> None:
    image = numbered(2, 3)
    assert len(set(FLIPS)) == 4
    for symmetry in FLIPS:
        assert apply(image, symmetry).shape == image.shape
        assert torch.equal(apply(apply(image, symmetry), symmetry), image)


def test_every_channel_turns_alike() -> None:
    images = numbered(2, 3, 4, 4)
    for symmetry in SYMMETRIES:
        turned = apply(images, symmetry)
        assert torch.equal(turned[1, 2], apply(images[1, 2], symmetry))


@pytest.mark.parametrize(("tta", "n_views"), [("none", 1), ("flips", 4), ("dihedral", 8)])
def test_views_start_with_the_image_itself(tta: str, n_views: int) -> None:
    assert len(set(views(tta))) == n_views
    assert views(tta)[0] == 0


@pytest.mark.parametrize("shape", [(8, 5, 5), (8, 2, 3, 4, 4)])
def test_one_gather_turns_each_image_as_apply_does(shape: tuple[int, ...]) -> None:
    images = numbered(*shape)
    chosen = (3, 0, 7, 4, 6, 1, 5, 2)
    turned = take_pixels(images, source_pixels(chosen, shape[-1]))
    for got, image, symmetry in zip(turned, images, chosen, strict=True):
        assert torch.equal(got, apply(image, symmetry))


def test_gathering_copies_nan_as_it_is() -> None:
    image = torch.tensor([[[1.0, torch.nan], [3.0, 4.0]]])
    turned = take_pixels(image, source_pixels([4], 2))
    assert torch.equal(turned.isnan(), torch.tensor([[[True, False], [False, False]]]))
