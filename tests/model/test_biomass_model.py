import pytest
import torch
from example_models import build, ignore, make_images

from biomassters.errors import ModelError


@pytest.mark.parametrize(("height", "width"), [(32, 32), (96, 64)])
def test_prediction_has_the_shape_of_the_images(height: int, width: int) -> None:
    assert build().eval()(make_images(height, width)).shape == (2, height, width)


def test_standard_target_scaling_predicts_in_deviations_about_the_mean() -> None:
    plain, scaled = (build(target_scaling=name).eval() for name in ("none", "standard"))
    with torch.no_grad():
        torch.testing.assert_close(scaled(make_images()), 63 + 71 * plain(make_images()))


def test_ignored_month_changes_no_prediction_whatever_it_shows() -> None:
    model, images = build().eval(), make_images()
    other = images.clone()
    other[:, 4] = 0
    with torch.no_grad():
        assert torch.equal(model(images, ignore(4)), model(other, ignore(4)))
        assert not torch.equal(model(images), model(other))


def test_no_ignored_month_is_the_same_as_none() -> None:
    model = build().eval()
    with torch.no_grad():
        assert torch.equal(model(make_images(), ignore()), model(make_images()))


def test_a_chips_prediction_does_not_depend_on_its_batch() -> None:
    model, images = build().eval(), make_images()
    with torch.no_grad():
        torch.testing.assert_close(model(images)[1:], model(images[1:]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_memory_format_changes_no_prediction(memory_format: torch.memory_format) -> None:
    model = build().eval()
    with torch.no_grad():
        expected = model(make_images())
        got = model.to(memory_format=memory_format)(make_images())
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_every_trainable_parameter_gets_a_finite_gradient(dtype: torch.dtype | None) -> None:
    model = build().train()
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        prediction = model(make_images(), ignore(2, 3))
    assert prediction.dtype == torch.float32
    prediction.square().mean().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_month_encoding_without_attention_is_refused() -> None:
    with pytest.raises(
        ModelError, match=r"got learned with month_aggregation max, at model\.month_e"
    ):
        build(month_encoding="learned", month_aggregation="max")


@pytest.mark.parametrize(("name", "median"), [("log", 36.0), ("sqrt", 36.0), ("standard", 63.0)])
def test_new_model_predicts_about_the_data(name: str, median: float) -> None:
    model = build(target_scaling=name).eval()
    torch.nn.init.zeros_(model.network.segmentation_head.weight)
    torch.nn.init.zeros_(model.network.segmentation_head.bias)
    assert model(make_images(32, 32)).mean().item() == pytest.approx(median, rel=1e-5)


@pytest.mark.parametrize("name", ["none", "standard", "log", "sqrt"])
def test_prediction_in_the_space_of_the_loss_is_the_scaled_prediction(name: str) -> None:
    model = build(target_scaling=name).eval()
    with torch.no_grad():
        scaled, prediction = model.predict_scaled(make_images()), model(make_images())
    if name in ("log", "sqrt"):
        scaled = scaled.clamp(min=0)
    torch.testing.assert_close(model.scale_target(prediction), scaled, rtol=1e-4, atol=1e-5)


def test_months_without_s2_are_ignored_only_where_they_are_masked() -> None:
    present = torch.ones(1, 12, dtype=torch.bool)
    present[0, 3:5] = False
    assert build().ignore_months(present) is None
    assert build(missing_months="nearest").ignore_months(present) is None
    assert torch.equal(build(missing_months="mask").ignore_months(present), ~present)


def test_nearest_months_stand_in_for_missing_ones() -> None:
    s1 = torch.full((1, 12, 4, 32, 32), -1100, dtype=torch.int16)
    s2 = torch.full((1, 12, 11, 32, 32), 300, dtype=torch.int32).to(torch.uint16)
    present = torch.ones(1, 12, dtype=torch.bool)
    present[0, 3] = False
    filled, empty = (
        build(missing_months=name).normalise(s1, s2, present) for name in ("nearest", "zero")
    )
    assert torch.equal(filled[0, 3], filled[0, 2])
    assert (empty[0, 3, 4:] == 0).all()


def test_frozen_encoder_stays_as_it_is_while_all_else_learns() -> None:
    model = build()
    model.freeze_encoder(True)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    levels = model.network.encoder(make_images(32, 32).flatten(0, 1))
    assert not any(level.requires_grad for level in levels)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(make_images(32, 32)).square().mean().backward()
    optimizer.step()
    changed = {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
    assert not any(name.startswith("network.encoder.") for name in changed)
    for part in ("network.attn.4.", "network.decoder.blocks.0.conv1.1.running_mean"):
        assert any(name.startswith(part) for name in changed)


def test_encoder_learns_again_once_it_is_no_longer_frozen() -> None:
    model = build().train()
    trainable = {name for name, value in model.named_parameters() if value.requires_grad}
    model.freeze_encoder(True)
    assert not any(module.training for module in model.network.encoder.modules())
    model.freeze_encoder(False)
    assert all(module.training for module in model.network.encoder.modules())
    assert {name for name, value in model.named_parameters() if value.requires_grad} == trainable


def test_same_seed_builds_the_same_weights() -> None:
    first, same, other = build(0).state_dict(), build(0).state_dict(), build(1).state_dict()
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_normalise_takes_chips_as_stored() -> None:
    s1 = torch.full((1, 12, 4, 32, 32), -1100, dtype=torch.int16)
    s2 = torch.full((1, 12, 11, 32, 32), 300, dtype=torch.int32).to(torch.uint16)
    images = build().normalise(s1, s2, torch.ones(1, 12, dtype=torch.bool))
    assert images[0, 0, 0, 0, 0].item() == pytest.approx(49 / 30060)
    assert images[0, 0, 4, 0, 0].item() == pytest.approx(0.01)
