import pytest
import torch
from tiny_training import build_tiny_model, run_phase
from torch import nn

from biomassters.training.optimisation import (
    Schedule,
    build_optimizer,
    scale_gradients,
    set_lr,
)


def follow(schedule: Schedule, *moments: float) -> list[float]:
    return [schedule.learning_rate(moment) for moment in moments]


def test_cosine_leads_from_lr_to_lr_min() -> None:
    schedule = Schedule(lr=1e-3, phase=run_phase(epochs=4, lr_min=1e-4))
    expected = [1e-3, 8.6819805e-4, 5.5e-4, 2.3180195e-4, 1e-4]
    assert follow(schedule, 0, 1, 2, 3, 4) == pytest.approx(expected, rel=1e-7)


def test_lr_min_above_lr_leaves_lr_as_it_is() -> None:
    schedule = Schedule(lr=1e-4, phase=run_phase(lr_min=1e-2))
    assert follow(schedule, 0, 1.3, 3) == [1e-4] * 3


def test_warmup_rises_from_zero_and_the_cosine_has_the_epochs_that_are_left() -> None:
    schedule = Schedule(lr=1e-3, phase=run_phase(epochs=6, lr_min=1e-4, warmup_epochs=2))
    expected = [0, 2.5e-4, 5e-4, 1e-3, 8.6819805e-4, 1e-4]
    assert follow(schedule, 0, 0.5, 1, 2, 3, 6) == pytest.approx(expected, rel=1e-7)


def test_warmup_of_all_epochs_only_rises() -> None:
    schedule = Schedule(lr=1e-3, phase=run_phase(epochs=2, warmup_epochs=2))
    assert follow(schedule, 0, 1, 1.5) == pytest.approx([0, 5e-4, 7.5e-4])


def test_first_epochs_are_frozen_and_last_ones_plain() -> None:
    schedule = Schedule(lr=1, phase=run_phase(epochs=5, frozen_encoder_epochs=2, plain_epochs=1))
    assert [schedule.is_encoder_frozen(epoch) for epoch in range(5)] == [True] * 2 + [False] * 3
    assert [schedule.is_plain(epoch) for epoch in range(5)] == [False] * 4 + [True]
    assert [schedule.is_last(epoch) for epoch in range(5)] == [False] * 4 + [True]


def test_no_epoch_is_frozen_or_plain_unless_asked() -> None:
    schedule = Schedule(lr=1, phase=run_phase(epochs=2))
    assert not any(schedule.is_encoder_frozen(e) or schedule.is_plain(e) for e in range(2))


def test_every_trainable_parameter_is_in_one_group() -> None:
    model = build_tiny_model()
    frozen = model.network.segmentation_head.weight.requires_grad_(False)
    grouped = [p for g in build_optimizer(model, 1e-3, 0.01).param_groups for p in g["params"]]
    trainable = [p for p in model.parameters() if p.requires_grad]
    assert not any(p is frozen for p in grouped)
    assert sorted(map(id, grouped)) == sorted(map(id, trainable))


def test_biases_and_norms_do_not_decay() -> None:
    model = build_tiny_model()
    decaying, others = build_optimizer(model, 1e-3, 0.01).param_groups
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.01, 0.0)
    norms = (nn.BatchNorm2d, nn.LayerNorm)
    expected = {
        id(parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.requires_grad and (name.endswith("bias") or isinstance(module, norms))
    }
    assert {id(parameter) for parameter in others["params"]} == expected
    assert len(decaying["params"]) > 50


def test_learning_rate_is_set_in_all_groups() -> None:
    optimizer = build_optimizer(nn.Linear(2, 2), 1e-3, 0.01)
    set_lr(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5]


def make_gradients(*values: list[float]) -> tuple[list[nn.Parameter], torch.optim.Optimizer]:
    parameters = [nn.Parameter(torch.zeros(len(value))) for value in values]
    for parameter, value in zip(parameters, values, strict=True):
        parameter.grad = torch.tensor(value)
    unused = nn.Parameter(torch.zeros(1))  # such as those of a frozen encoder
    return parameters, torch.optim.SGD([*parameters, unused])


@pytest.mark.parametrize(
    ("factor", "clip_norm", "expected"),
    [
        (1, 10, [[3.0, 0.0], [4.0]]),
        (1, 2.5, [[1.5, 0.0], [2.0]]),
        (2, 20, [[6.0, 0.0], [8.0]]),
        (2, 5, [[3.0, 0.0], [4.0]]),
    ],
)
def test_gradients_are_multiplied_and_then_clipped(
    factor: float, clip_norm: float, expected: list[list[float]]
) -> None:
    parameters, optimizer = make_gradients([3.0, 0.0], [4.0])
    scale_gradients(optimizer, torch.tensor(factor), clip_norm)
    for parameter, value in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, torch.tensor(value))


@pytest.mark.parametrize("clip_norm", [0.3, 1e3])
def test_factor_of_one_gives_the_bytes_of_torch(clip_norm: float) -> None:
    values = [torch.randn(n, generator=torch.Generator().manual_seed(n)).tolist() for n in (50, 7)]
    parameters, optimizer = make_gradients(*values)
    others, _ = make_gradients(*values)
    scale_gradients(optimizer, torch.tensor(1.0), clip_norm)
    nn.utils.clip_grad_norm_(others, clip_norm)
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(parameters, others, strict=True))
