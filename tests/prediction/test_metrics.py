import numpy as np
import pytest

from biomassters.prediction.metrics import BIN_NAMES, ErrorSums


def sums_of(*pairs: tuple[list[float], list[float]]) -> ErrorSums:
    sums = ErrorSums()
    for number, (prediction, target) in enumerate(pairs):
        sums.add(f"{number:08x}", np.float32([prediction]), np.float32([target]))
    return sums


def test_worked_example_of_two_chips() -> None:
    summary = sums_of(([3.0, 3.0], [0.0, 0.0]), ([12.0, 28.0], [10.0, 30.0])).summarise()
    assert summary["chip_rmse"] == pytest.approx((3 + 2) / 2)
    assert summary["pooled_rmse"] == pytest.approx(np.sqrt((9 + 9 + 4 + 4) / 4))
    assert summary["mae"] == pytest.approx(10 / 4)
    assert summary["bias"] == pytest.approx(6 / 4)
    assert summary["r2"] == pytest.approx(1 - 26 / (900 + 100 - 4 * 10**2))


def test_pixels_without_a_target_are_left_out() -> None:
    with_gap = sums_of(([3.0, 99.0], [1.0, np.nan])).summarise()
    assert with_gap == sums_of(([3.0], [1.0])).summarise()


def test_chip_without_a_target_is_no_chip() -> None:
    sums = sums_of(([3.0], [np.nan]), ([3.0], [1.0]))
    assert sums.chip_ids == ["00000001"]
    assert sums.summarise()["chip_rmse"] == pytest.approx(2)


def test_agrees_with_numpy_over_all_pixels() -> None:
    random = np.random.default_rng(0)
    target = random.gamma(2, 40, (5, 16, 16)).astype(np.float32)
    prediction = (target + random.normal(3, 20, target.shape)).astype(np.float32)
    sums = ErrorSums()
    for number in range(5):
        sums.add(str(number), prediction[number], target[number])
    error = prediction.astype(float) - target
    summary = sums.summarise()
    assert summary["chip_rmse"] == pytest.approx(np.sqrt((error**2).mean(axis=(1, 2))).mean())
    assert summary["pooled_rmse"] == pytest.approx(np.sqrt((error**2).mean()))
    assert summary["r2"] == pytest.approx(1 - (error**2).mean() / target.astype(float).var())


@pytest.mark.parametrize(
    ("target", "name"),
    [(0.0, "0-25"), (24.99, "0-25"), (25.0, "25-50"), (399.0, "300-400"), (400.0, "400+")],
)
def test_bin_holds_its_lower_edge(target: float, name: str) -> None:
    by_bin = sums_of(([target + 7], [target])).summarise()["rmse_by_bin"]
    assert by_bin[name] == pytest.approx(7, rel=1e-5)
    assert [other for other in BIN_NAMES if by_bin[other] is not None] == [name]


def test_predicting_the_mean_explains_nothing() -> None:
    assert sums_of(([20.0, 20.0], [10.0, 30.0])).summarise()["r2"] == pytest.approx(0)


def test_constant_targets_have_no_r2() -> None:
    assert sums_of(([20.0, 20.0], [10.0, 10.0])).summarise()["r2"] is None
