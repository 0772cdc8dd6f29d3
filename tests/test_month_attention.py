import pytest
import torch
from torch import Tensor

from biomassters.month_attention import MonthAttention


@pytest.fixture
def attention() -> MonthAttention:
    torch.manual_seed(0)
    return MonthAttention(channels=8)


@pytest.fixture
def features() -> Tensor:
    return torch.randn(2, 12, 8, 4, 6, generator=torch.Generator().manual_seed(1))


def ignore(*months: int) -> Tensor:
    ignored = torch.zeros(2, 12, dtype=torch.bool)
    ignored[:, list(months)] = True
    return ignored


def test_weights_are_positive_and_sum_to_one(attention: MonthAttention, features: Tensor) -> None:
    weights = attention.weigh_months(features, None)
    assert weights.shape == (2, 12, 4, 6)
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(2, 4, 6))


def test_ignored_month_gets_no_attention(attention: MonthAttention, features: Tensor) -> None:
    weights = attention.weigh_months(features, ignore(3, 7))
    assert (weights[:, [3, 7]] == 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(2, 4, 6))


def test_ignored_month_has_no_effect_whatever_it_holds(
    attention: MonthAttention, features: Tensor
) -> None:
    other = features.clone()
    other[:, 3] = 1e3
    assert torch.equal(attention(features, ignore(3)), attention(other, ignore(3)))


def test_result_does_not_depend_on_the_order_of_the_months(
    attention: MonthAttention, features: Tensor
) -> None:
    torch.testing.assert_close(attention(features.flip(1), None), attention(features, None))


def test_the_only_month_left_is_returned_as_it_is(
    attention: MonthAttention, features: Tensor
) -> None:
    ignored = ignore(*(month for month in range(12) if month != 5))
    assert torch.equal(attention(features, ignored), features[:, 5])


def test_a_pixel_attends_by_its_own_features_alone(
    attention: MonthAttention, features: Tensor
) -> None:
    other = features.clone()
    other[..., 0, 0] = 0
    same = torch.ones(4, 6, dtype=torch.bool)
    same[0, 0] = False
    merged, other_merged = attention(features, None), attention(other, None)
    torch.testing.assert_close(merged[..., same], other_merged[..., same])
    assert not torch.allclose(merged[..., 0, 0], other_merged[..., 0, 0])


def test_equal_scores_give_the_mean_over_months(
    attention: MonthAttention, features: Tensor
) -> None:
    torch.nn.init.zeros_(attention.attn[3].weight)
    torch.testing.assert_close(attention(features, None), features.mean(1))


def test_all_months_ignored_is_finite(attention: MonthAttention, features: Tensor) -> None:
    merged = attention(features, torch.ones(2, 12, dtype=torch.bool))
    torch.testing.assert_close(merged, features.mean(1))


def test_softmax_is_float32_under_autocast(attention: MonthAttention, features: Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        weights = attention.weigh_months(features.bfloat16(), None)
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights.sum(1), torch.ones(2, 4, 6))
