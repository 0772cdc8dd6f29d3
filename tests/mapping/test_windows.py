import numpy as np
import pytest

from biomassters.mapping.windows import Windows
from biomassters.scenes.grid import Box

LATTICES = [Windows(64, 16), Windows(64, 32), Windows(32, 0), Windows(256, 64), Windows(96, 24)]
AREA = Box(row=-1234, column=777, height=190, width=301)


def list_all(windows: Windows, area: Box) -> list[Box]:
    blocks = windows.list_blocks(area)
    return [window for block in blocks for window in windows.list_windows(block)]


@pytest.mark.parametrize("windows", LATTICES, ids=str)
def test_weights_of_a_pixel_add_up_to_one(windows: Windows) -> None:
    total = np.zeros(AREA.shape)
    for window in list_all(windows, AREA):
        common = window.intersect(AREA)
        if common is not None:
            total[common.within(AREA)] += windows.weights[common.within(window)]
    np.testing.assert_allclose(total, 1, rtol=1e-6)
    assert (windows.weights > 0).all()


@pytest.mark.parametrize("windows", LATTICES, ids=str)
def test_windows_are_the_same_for_every_area(windows: Windows) -> None:
    part = Box(AREA.row + 37, AREA.column + 59, 80, 70)
    inside = {window for window in list_all(windows, AREA) if window.intersect(part)}
    assert {window for window in list_all(windows, part) if window.intersect(part)} == inside
    assert all(window.row % windows.stride == 0 for window in inside)


@pytest.mark.parametrize("windows", LATTICES, ids=str)
def test_each_window_is_of_one_block_that_reaches_into_the_area(windows: Windows) -> None:
    all_windows = list_all(windows, AREA)
    assert len(set(all_windows)) == len(all_windows)
    boxes = [windows.block_box(block) for block in windows.list_blocks(AREA)]
    assert all(box.intersect(AREA) for box in boxes)
    assert boxes == sorted(boxes, key=lambda box: (box.row, box.column))


def test_a_window_has_its_middle_for_itself() -> None:
    weights = Windows(64, 16).weights
    assert (weights[16:48, 16:48] == 1).all()
    assert weights[0, 32] == pytest.approx(np.sin(np.pi / 64) ** 2)
    assert weights[7, 32] + weights[8, 32] == pytest.approx(1)


def test_blocks_are_about_as_large_whatever_the_window() -> None:
    assert (Windows(64, 16).per_block, Windows(64, 16).block_size) == (5, 256)
    assert (Windows(256, 64).per_block, Windows(256, 64).block_size) == (2, 448)
