import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from biomassters.errors import UnreadableRasterError
from biomassters.scenes.grid import Box
from biomassters.scenes.kept import Kept
from biomassters.scenes.scene import Pixels, make_nodata

BOXES = [Box(8 * row, 0, 8, 8) for row in range(5)]


def test_the_last_blocks_are_kept_and_each_is_made_once() -> None:
    made: list[Box] = []

    def make(box: Box) -> Pixels:
        made.append(box)
        return make_nodata(box)

    blocks = Kept(make, most=2)
    first = blocks.get(BOXES[0])
    assert blocks.get(BOXES[1]) is not first
    assert blocks.get(BOXES[0]) is first
    blocks.get(BOXES[2])  # takes the place of 1, which was asked for before 0
    assert blocks.get(BOXES[0]) is first
    blocks.get(BOXES[1])
    assert made == [BOXES[0], BOXES[1], BOXES[2], BOXES[1]]


def test_threads_wait_for_the_one_that_makes_a_block() -> None:
    both, made = threading.Barrier(2), []

    def make(box: Box) -> Pixels:
        made.append(box)
        return make_nodata(box)

    blocks = Kept(make, most=2)

    def ask(_: int) -> Pixels:
        both.wait(60)
        return blocks.get(BOXES[0])

    with ThreadPoolExecutor(2) as threads:
        one, other = threads.map(ask, range(2))
    assert one is other
    assert len(made) == 1


def test_block_that_failed_is_tried_again() -> None:
    answers = iter([UnreadableRasterError("busy"), None])

    def make(box: Box) -> Pixels:
        if error := next(answers):
            raise error
        return make_nodata(box)

    blocks = Kept(make, most=2)
    with pytest.raises(UnreadableRasterError, match="busy"):
        blocks.get(BOXES[0])
    assert blocks.get(BOXES[0]).s1.shape == (12, 4, 8, 8)
