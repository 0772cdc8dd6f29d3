import pytest
import torch
from torch import Tensor, nn

from biomassters.model.kept_months import KeptMonths, find_kept_months
from biomassters.model.month_aggregation import (
    MonthAttention,
    MonthMaximum,
    MonthMean,
    build_aggregation,
)


@pytest.fixture
def attention() -> MonthAttention:
    torch.manual_seed(0)
    return MonthAttention(channels=8)


@pytest.fixture
def features() -> Tensor:
    return torch.randn(2, 12, 8, 4, 6, generator=torch.Generator().manual_seed(1))


def keep_all_but(*months: int) -> KeptMonths:
    ignored = torch.zeros(2, 12, dtype=torch.bool)
    ignored[:, list(months)] = True
    return find_kept_months(ignored, ignored.shape, ignored.device)


def aggregate(module: nn.Module, features: Tensor, kept: KeptMonths) -> Tensor:
    return module(kept.pick(features), kept)


def test_weights_are_positive_and_sum_to_one(attention: MonthAttention, features: Tensor) -> None:
    weights = attention.weigh_months(features.flatten(0, 1), keep_all_but())
    assert weights.shape == (2, 12, 4, 6)
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(2, 4, 6))


def test_ignored_month_gets_no_attention(attention: MonthAttention, features: Tensor) -> None:
    kept = keep_all_but(3, 7)
    weights = attention.weigh_months(kept.pick(features), kept)
    assert (weights[:, [3, 7]] == 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(2, 4, 6))


def test_a_month_not_encoded_is_as_one_whose_score_is_masked(
    attention: MonthAttention, features: Tensor
) -> None:
    """As the winner has it: all months are scored, and then the scores of some made the lowest."""
    ignored = torch.rand(2, 12, generator=torch.Generator().manual_seed(2)) < 0.5
    scores = attention.attn(features.permute(0, 1, 3, 4, 2)).squeeze(-1)
    weights = scores.masked_fill(ignored[:, :, None, None], -torch.inf).softmax(1)
    expected = (weights.unsqueeze(2) * features).sum(1)
    kept = find_kept_months(ignored, ignored.shape, ignored.device)
    torch.testing.assert_close(aggregate(attention, features, kept), expected)


def test_result_does_not_depend_on_the_order_of_the_months(
    attention: MonthAttention, features: Tensor
) -> None:
    expected = aggregate(attention, features, keep_all_but())
    torch.testing.assert_close(aggregate(attention, features.flip(1), keep_all_but()), expected)


@pytest.mark.parametrize("module", [MonthAttention(channels=8), MonthMean(), MonthMaximum()])
def test_the_only_month_left_is_returned_as_it_is(module: nn.Module, features: Tensor) -> None:
    kept = keep_all_but(*(month for month in range(12) if month != 5))
    assert torch.equal(aggregate(module, features, kept), features[:, 5])


def test_a_pixel_attends_by_its_own_features_alone(
    attention: MonthAttention, features: Tensor
) -> None:
    other = features.clone()
    other[..., 0, 0] = 0
    same = torch.ones(4, 6, dtype=torch.bool)
    same[0, 0] = False
    merged, other_merged = (aggregate(attention, f, keep_all_but()) for f in (features, other))
    torch.testing.assert_close(merged[..., same], other_merged[..., same])
    assert not torch.allclose(merged[..., 0, 0], other_merged[..., 0, 0])


def test_equal_scores_give_the_mean_over_months(
    attention: MonthAttention, features: Tensor
) -> None:
    nn.init.zeros_(attention.attn[3].weight)
    for kept in (keep_all_but(), keep_all_but(0, 4)):
        mean = aggregate(MonthMean(), features, kept)
        torch.testing.assert_close(aggregate(attention, features, kept), mean)


def test_mean_and_maximum_are_of_the_kept_months_alone(features: Tensor) -> None:
    months = [month for month in range(12) if month not in (2, 9)]
    kept, everything = keep_all_but(2, 9), keep_all_but()
    torch.testing.assert_close(aggregate(MonthMean(), features, kept), features[:, months].mean(1))
    assert torch.equal(aggregate(MonthMaximum(), features, kept), features[:, months].amax(1))
    torch.testing.assert_close(aggregate(MonthMean(), features, everything), features.mean(1))
    assert torch.equal(aggregate(MonthMaximum(), features, everything), features.amax(1))


def test_mean_and_maximum_have_no_weights() -> None:
    assert not MonthMean().state_dict()
    assert not MonthMaximum().state_dict()


@pytest.mark.parametrize("ignored_months", [(), (1, 8)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradient_is_that_of_the_sum_of_all_products(
    attention: MonthAttention,
    features: Tensor,
    ignored_months: tuple[int, ...],
    layout: torch.memory_format,
) -> None:
    kept = keep_all_but(*ignored_months)
    picked = kept.pick(features).contiguous(memory_format=layout).requires_grad_()
    pull = torch.randn(2, 8, 4, 6, generator=torch.Generator().manual_seed(4))
    parameters = [picked, *attention.parameters()]
    got = torch.autograd.grad((attention(picked, kept) * pull).sum(), parameters)
    weights = attention.weigh_months(picked, kept)
    plain = (weights.unsqueeze(2) * kept.spread(picked, 0)).sum(1)
    expected = torch.autograd.grad((plain * pull).sum(), parameters)
    torch.testing.assert_close(got, expected)


def test_layout_stays_channels_last(attention: MonthAttention, features: Tensor) -> None:
    for kept in (keep_all_but(), keep_all_but(4)):
        picked = kept.pick(features).contiguous(memory_format=torch.channels_last)
        for module in (attention, MonthMean(), MonthMaximum()):
            assert module(picked, kept).is_contiguous(memory_format=torch.channels_last)


def test_softmax_is_float32_under_autocast(attention: MonthAttention, features: Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        weights = attention.weigh_months(features.flatten(0, 1).bfloat16(), keep_all_but())
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights.sum(1), torch.ones(2, 4, 6))


def test_month_encoding_tells_equal_months_apart_once_it_has_learned(features: Tensor) -> None:
    torch.manual_seed(0)
    attention = MonthAttention(channels=8, month_encoding="learned")
    alike = features[:, :1].expand(-1, 12, -1, -1, -1)
    kept = keep_all_but(0, 3)
    at_first = attention.weigh_months(kept.pick(alike), kept)
    torch.testing.assert_close(at_first[:, [1, 11]], torch.full((2, 2, 4, 6), 0.1))
    torch.nn.init.normal_(attention.month_encoding)
    weights = attention.weigh_months(kept.pick(alike), kept)
    assert (weights[:, [0, 3]] == 0).all()
    alone = attention.weigh_months(alike.flatten(0, 1), keep_all_but())
    torch.testing.assert_close(weights[:, 5] / weights[:, 11], alone[:, 5] / alone[:, 11])
    assert not torch.allclose(weights[:, 5], weights[:, 11])


def test_month_encoding_gets_a_gradient_from_the_start(features: Tensor) -> None:
    attention = MonthAttention(channels=8, month_encoding="learned")
    aggregate(attention, features, keep_all_but(7)).square().sum().backward()
    rows = attention.month_encoding.grad.abs().sum(1)
    assert (rows > 0).tolist() == [month != 7 for month in range(12)]


@pytest.mark.parametrize("ignored", [(), (3, 7)])
@pytest.mark.parametrize(
    ("name", "encoding"), [("attention", "learned"), ("mean", "none"), ("max", "none")]
)
def test_each_way_is_one_graph_for_the_compiler(
    features: Tensor, name: str, encoding: str, ignored: tuple[int, ...]
) -> None:
    module = build_aggregation(name, channels=8, month_encoding=encoding)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    kept = keep_all_but(*ignored)
    torch.testing.assert_close(
        aggregate(compiled, features, kept), aggregate(module, features, kept)
    )
