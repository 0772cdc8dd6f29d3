import math

import pytest
import torch
from example_statistics import describe_target

from biomassters.errors import ModelError
from biomassters.model.target_scaling import fit_output, scale_target, unscale_prediction


@pytest.mark.parametrize(
    ("name", "scale", "offset"),
    [
        ("none", 1, 0),
        ("standard", 70, 60),
        ("log", math.log(257) / 4.1075, math.log(37)),
        ("sqrt", 16 / 4.1075, 6),
    ],
)
def test_new_model_starts_near_the_data(name: str, scale: float, offset: float) -> None:
    statistics = describe_target(mean=60.0, standard_deviation=70.0)
    assert fit_output(name, statistics) == pytest.approx((scale, offset))


def test_scale_of_a_normal_distribution_is_its_standard_deviation() -> None:
    quantiles = torch.distributions.Normal(10.0, 2.0).icdf(torch.tensor([0.02, 0.5, 0.98]))
    percentiles = dict(zip(("2", "50", "98"), quantiles.square().tolist(), strict=True))
    scale, offset = fit_output("sqrt", describe_target(percentiles=percentiles))
    assert (scale, offset) == pytest.approx((2, 10), rel=1e-3)


def test_target_without_spread_has_scale_one() -> None:
    alike = describe_target(percentiles={"2": 9.0, "50": 9.0, "98": 9.0})
    assert fit_output("sqrt", alike) == (1, 3)


def test_unknown_percentile_is_refused() -> None:
    with pytest.raises(ModelError, match=r"expected the percentile 98 .* got 2, 50, at model"):
        fit_output("log", describe_target(percentiles={"2": 0.0, "50": 1.0}))


@pytest.mark.parametrize(("name", "expected"), [("log", math.log(50)), ("sqrt", 7), ("none", 49)])
def test_target_by_hand(name: str, expected: float) -> None:
    assert scale_target(name, torch.tensor(49.0)).item() == pytest.approx(expected)


@pytest.mark.parametrize("name", ["none", "standard", "log", "sqrt"])
def test_unscaling_undoes_scaling(name: str) -> None:
    agbm = torch.tensor([0.0, 0.01, 63.0, 399.0, 9000.0])
    torch.testing.assert_close(unscale_prediction(name, scale_target(name, agbm)), agbm)


@pytest.mark.parametrize("name", ["none", "standard", "log", "sqrt"])
def test_missing_target_stays_missing(name: str) -> None:
    assert scale_target(name, torch.tensor([math.nan])).isnan().all()


@pytest.mark.parametrize("name", ["log", "sqrt"])
def test_negative_agbm_is_zero_both_ways(name: str) -> None:
    assert scale_target(name, torch.tensor([-3.0])).item() == 0
    assert unscale_prediction(name, torch.tensor([-3.0])).item() == 0
