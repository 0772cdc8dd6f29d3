import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from biomassters.store.constant_blocks import find_constant_blocks, measure_largest_block


def draw(*rows: str) -> np.ndarray:
    """Return an image: `.` = values that no other pixel has, others = their digit."""
    text = np.array([list(row) for row in rows])
    unique = np.arange(100, 100 + text.size).reshape(text.shape)
    digits = np.char.isdigit(text)
    return np.where(digits, np.where(digits, text, "0").astype(int), unique).astype(np.uint16)


SQUARE = draw(
    "..........",
    ".77.......",
    ".77.......",
    "..........",
    *[".........."] * 6,
)


def test_region_over_the_share_is_a_block() -> None:
    assert measure_largest_block(SQUARE, 0.03) == 4
    np.testing.assert_array_equal(find_constant_blocks(SQUARE, 0.03), SQUARE == 7)


def test_region_of_just_the_share_is_none() -> None:
    assert measure_largest_block(SQUARE, 0.04) == 0
    assert not find_constant_blocks(SQUARE, 0.04).any()


def test_regions_of_one_value_do_not_add_up() -> None:
    image = draw("777..", ".....", "..777", ".....")
    assert measure_largest_block(image, 0.2) == 0
    assert measure_largest_block(image, 0.1) == 3


def test_corners_do_not_join() -> None:
    image = draw("7...", ".7..", "..7.", "...7")
    assert measure_largest_block(image, 0.1) == 0


def test_rows_do_not_join_at_the_edges() -> None:
    image = draw("..77", "7...", "....")
    assert measure_largest_block(image, 0.1) == 2


@pytest.mark.parametrize(
    "rows",
    [
        ("77777", "7...7", "7.7.7", "7.777", "7...."),
        ("7.7.7", "7.7.7", "7.7.7", "7.7.7", "77777"),
        ("7.777", "7.7.7", "777.7", "....7", "77777"),
    ],
    ids=["spiral", "comb", "maze"],
)
def test_region_may_turn_as_it_likes(rows: tuple[str, ...]) -> None:
    image = draw(*rows)
    np.testing.assert_array_equal(find_constant_blocks(image, 0.5), image == 7)
    assert measure_largest_block(image, 0.5) == (image == 7).sum()


def test_blocks_of_several_values_are_all_found() -> None:
    image = draw("1122", "1122", "33..", "33..")
    np.testing.assert_array_equal(find_constant_blocks(image, 0.2), image < 100)
    assert measure_largest_block(image, 0.2) == 4


def test_pixels_that_cannot_be_part_are_left_out() -> None:
    image = np.full((4, 4), 0, np.uint16)
    where = np.ones((4, 4), bool)
    where[:, 1] = False
    assert measure_largest_block(image, 0.1, where) == 8
    assert measure_largest_block(image, 0.1, np.zeros((4, 4), bool)) == 0
    np.testing.assert_array_equal(
        find_constant_blocks(image, 0.3, where), np.indices((4, 4))[1] >= 2
    )


def measure_by_flooding(image: np.ndarray, share: float, where: np.ndarray) -> np.ndarray:
    """Return for each pixel how large its block is, 0 = it is in none."""
    sizes = np.zeros(image.shape, int)
    left = set(zip(*np.nonzero(where), strict=True))
    while left:
        region = [left.pop()]
        for row, column in region:  # which grows meanwhile
            for place in (
                (row - 1, column),
                (row + 1, column),
                (row, column - 1),
                (row, column + 1),
            ):
                if place in left and image[place] == image[row, column]:
                    left.remove(place)
                    region.append(place)
        if len(region) > share * image.size:
            sizes[tuple(np.transpose(region))] = len(region)
    return sizes


SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 12))


@given(st.data(), SHAPES, st.sampled_from([0.0, 0.03, 0.1, 0.3]))
def test_blocks_are_those_that_a_flood_reaches(
    data: st.DataObject, shape: tuple[int, int], share: float
) -> None:
    image = data.draw(arrays(np.uint16, shape, elements=st.sampled_from([0, 1, 2, 65535])))
    where = data.draw(arrays(bool, shape))
    sizes = measure_by_flooding(image, share, where)
    np.testing.assert_array_equal(find_constant_blocks(image, share, where), sizes > 0)
    assert measure_largest_block(image, share, where) == sizes.max()


@pytest.mark.parametrize("n_values", [2, 3, 20])
@pytest.mark.parametrize("smoothing", [0, 3])
def test_blocks_of_a_whole_chip_are_those_that_a_flood_reaches(
    n_values: int, smoothing: int
) -> None:
    noise = np.random.default_rng(n_values).normal(size=(256, 256))
    smooth = ndimage.gaussian_filter(noise, smoothing) if smoothing else noise
    ranks = smooth.ravel().argsort().argsort().reshape(256, 256)
    image = (ranks * n_values // 256**2).astype(np.uint16)
    sizes = measure_by_flooding(image, 0.03, np.ones((256, 256), bool))
    np.testing.assert_array_equal(find_constant_blocks(image), sizes > 0)
    assert measure_largest_block(image) == sizes.max()
