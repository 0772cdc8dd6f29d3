import numpy as np
import pytest

from biomassters.evaluation.deciles import Deciles

VALUES = np.random.default_rng(0).permutation(np.arange(200, dtype=np.float32))


def test_each_decile_has_a_tenth_from_low_to_high() -> None:
    shares = Deciles([VALUES.reshape(10, 20)], 1).share(VALUES)
    np.testing.assert_array_equal(shares.sum(axis=0), np.full(10, 20))
    np.testing.assert_array_equal(shares.argmax(axis=1), VALUES // 20)
    assert set(shares.ravel()) == {0, 1}


def test_equal_predictions_are_in_the_deciles_that_they_fill() -> None:
    values = np.float32([0] * 15 + list(range(1, 86)))  # 15 % are 0
    shares = Deciles([values], 1).share(values)
    np.testing.assert_allclose(shares[0], [2 / 3, 1 / 3, *[0] * 8])
    np.testing.assert_allclose(shares.sum(axis=0), np.full(10, 10))


def test_constant_prediction_is_in_all_deciles_alike() -> None:
    shares = Deciles([np.full((8, 8), 3.0)], 1).share(np.full(5, 3.0))
    np.testing.assert_allclose(shares, np.full((5, 10), 0.1))


def test_predictions_that_are_not_in_the_sample_have_a_decile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("biomassters.evaluation.deciles._SAMPLE", 100)
    shares = Deciles([VALUES[:100], VALUES[100:]], 2).share(np.float32([-5, *VALUES, 999]))
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert shares[0, 0] == shares[-1, 9] == 1
    np.testing.assert_allclose(shares.sum(axis=0), 20, atol=10)
