import copy

import pytest
import torch
from example_models import build
from tiny_training import one_thread  # noqa: F401

from biomassters.errors import ModelError
from biomassters.model.trial import try_prediction, try_training

CHANNELS = (8, 8, 8, 8, 8)


def train_on(n_chips: int, n_months: int, chip_size: int = 32, precision: str = "fp32") -> None:
    try_training(build(), chip_size, n_chips=n_chips, n_months=n_months, precision=precision)


@pytest.mark.parametrize(
    ("backbone", "cause"),
    [
        ("test_coatnet", "RuntimeError: The size of tensor a"),  # positions of its own size
        ("botnet26t_256", "AssertionError"),  # which says nothing
        ("legacy_xception", "feature levels of 29 x 29, 15 x 15, 8 x 8"),  # no padding
    ],
)
def test_backbone_that_does_not_take_the_chips_size_is_refused_in_one_line(
    backbone: str, cause: str
) -> None:
    model = build(backbone=backbone, decoder_channels=CHANNELS)
    with pytest.raises(ModelError, match=rf"of 64 pixels .* got {backbone} with {cause}") as error:
        try_prediction(model, 64, precision="fp32")
    assert "\n" not in str(error.value)
    assert "at model.backbone; choose another backbone" in str(error.value)


def test_backbone_is_taken_at_a_size_that_it_takes() -> None:
    model = build(backbone="botnet26t_256", decoder_channels=CHANNELS)
    try_prediction(model, 256, precision="fp32")


def test_error_of_a_weights_file_names_it() -> None:
    model = build(backbone="test_coatnet", decoder_channels=CHANNELS)
    with pytest.raises(ModelError, match=r"at models/final/final\.safetensors; choose"):
        try_prediction(model, 64, precision="fp32", where="models/final/final.safetensors")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_trial_leaves_everything_as_it_was(precision: str) -> None:
    model = build(month_encoding="learned").eval()
    before = copy.deepcopy(model.state_dict())
    generator = torch.get_rng_state()
    try_prediction(model, 64, precision=precision)
    try_training(model, 64, n_chips=8, n_months=1, precision=precision)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert not any(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_one_value_a_channel_is_refused_and_names_the_micro_batch() -> None:
    """A chip of 32 pixels with one month: the coarsest level is a single pixel."""
    with pytest.raises(
        ModelError, match=r"got one of 1 chip of 32 pixels, .* 1 month .*more than 1 value per chan"
    ) as error:
        train_on(n_chips=1, n_months=1)
    assert "at optimisation.micro_batch_size; raise it" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("n_chips", "n_months", "size"), [(2, 1, 32), (1, 2, 32), (1, 1, 64)])
def test_several_values_a_channel_are_taken(n_chips: int, n_months: int, size: int) -> None:
    train_on(n_chips, n_months, size)


def test_backbone_that_fails_in_training_alone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build()
    forward = model.network.encoder.forward

    def fail_in_training(images: torch.Tensor) -> list[torch.Tensor]:
        if model.training:
            raise ValueError("no\ntraining")
        return forward(images)

    monkeypatch.setattr(model.network.encoder, "forward", fail_in_training)
    try_prediction(model, 64, precision="fp32")
    with pytest.raises(ModelError, match=r"with ValueError: no training, at model\.backbone"):
        try_training(model, 64, n_chips=1, n_months=12, precision="fp32")
