import pytest
import torch
from tiny_training import build_tiny_model
from torch import nn

from biomassters.training.optimizer import build_optimizer, scale_gradients, set_lr


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
