from typing import cast, get_args

import numpy as np
import pytest

from biomassters.params.bands import ConditionName
from biomassters.prediction.metrics import ErrorSums
from biomassters.robustness.conditions import ABSENT_BANDS, PLAIN, Condition
from biomassters.robustness.plots import TITLES, draw_results
from biomassters.robustness.scoring import ChipSet, Results
from biomassters.store.chips import ChipStore

NO_S1 = Condition("no_s1", ABSENT_BANDS["no_s1"])


def add_up(*errors: float) -> ErrorSums:
    """Each chip is off by one of the errors, everywhere."""
    sums = ErrorSums()
    for chip, error in enumerate(errors):
        target = np.full((2, 2), 60.0)
        sums.add(f"chip-{chip}", target + error, target)
    return sums


def measure(errors: dict[Condition, ErrorSums]) -> Results:
    """Say that these errors are some test chips'; their pixels are not drawn."""
    return Results(ChipSet("test", cast(ChipStore, None), [], []), errors)


def test_picture_shows_the_curve_a_bar_for_each_condition_and_their_changes() -> None:
    six = Condition("months_6", months_removed=6)
    errors = {PLAIN: add_up(10, 20), six: add_up(12, 24), NO_S1: add_up(-30, -40)}
    curve, bars = draw_results(measure(errors)).axes
    np.testing.assert_allclose(curve.lines[0].get_xydata(), [[0, 15], [6, 18]])
    assert [bar.get_width() for bar in bars.patches] == [15, 35]
    texts = {text.get_text() for text in bars.texts}
    assert {"+20.0", "\N{MINUS SIGN}35.0", "+15.0"} <= texts
    assert [label.get_text() for label in bars.get_yticklabels()] == ["everything", "without S1"]


def test_error_bar_is_the_standard_error_of_the_change() -> None:
    errors = {PLAIN: add_up(10, 20, 30), NO_S1: add_up(11, 22, 33)}
    _, bars = draw_results(measure(errors)).axes
    [_, segment] = bars.collections[0].get_segments()
    assert segment[1, 0] - segment[0, 0] == pytest.approx(2 / np.sqrt(3))


@pytest.mark.parametrize("errors", [{PLAIN: add_up(10)}, {PLAIN: add_up(0), NO_S1: add_up(5)}])
def test_one_chip_and_no_condition_are_drawn(errors: dict[Condition, ErrorSums]) -> None:
    draw_results(measure(errors)).draw_without_rendering()


def test_every_condition_has_a_title() -> None:
    assert set(TITLES) == set(get_args(ConditionName))
