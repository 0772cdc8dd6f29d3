import pytest
import torch
from example_models import build, make_images

from biomassters.model.quantile_head import list_quantiles, order_quantiles


@pytest.mark.parametrize(
    ("level", "quantiles"), [(0.9, (0.05, 0.5, 0.95)), (0.5, (0.25, 0.5, 0.75))]
)
def test_quantiles_lie_about_the_median(level: float, quantiles: tuple[float, ...]) -> None:
    assert list_quantiles(level) == pytest.approx(quantiles)
    assert build(head="quantiles", quantile_level=level).quantiles == pytest.approx(quantiles)
    assert build().quantiles is None


def test_quantiles_cross_nowhere_whatever_the_head_puts_out() -> None:
    output = 30 * torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    lower, median, upper = order_quantiles(output).unbind(1)
    assert torch.equal(median, output[:, 1])
    assert (lower <= median).all()
    assert (median <= upper).all()
    by_hand = order_quantiles(torch.tensor([0.0, 5.0, 20.0]).reshape(1, 3, 1, 1)).flatten()
    assert by_hand.tolist() == pytest.approx([5 - 0.693147, 5, 25], abs=1e-5)


@pytest.mark.parametrize("target_scaling", ["none", "standard", "log", "sqrt"])
def test_quantiles_are_ordered_in_every_space_of_the_target(target_scaling: str) -> None:
    model = build(head="quantiles", target_scaling=target_scaling).eval()
    with torch.no_grad():
        prediction = model(make_images(32, 32))
    assert prediction.shape == (2, 3, 32, 32)
    assert (prediction.diff(dim=1) >= 0).all()


def test_every_weight_of_a_model_of_quantiles_learns() -> None:
    model = build(head="quantiles").train()
    model(make_images(32, 32)).square().mean().backward()
    head = model.network.segmentation_head
    assert head.weight.shape[0] == 3
    assert (head.weight.grad.abs().amax((1, 2, 3)) > 0).all()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_head_of_one_number_has_the_weights_that_it_always_had() -> None:
    mean, quantiles = build().state_dict(), build(head="quantiles").state_dict()
    assert mean["network.segmentation_head.weight"].shape[0] == 1
    changed = {name for name in mean if mean[name].shape != quantiles[name].shape}
    assert changed == {f"network.segmentation_head.{kind}" for kind in ("weight", "bias")}
