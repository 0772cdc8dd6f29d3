import copy
from typing import Any

import pytest
import torch
from timm.layers.norm_act import BatchNormAct2d
from together import run_together
from torch import Tensor, nn

from biomassters.batches.distributed import ALONE, Processes, join_processes
from biomassters.errors import ModelError
from biomassters.training.batch_norm import RunningStatistics
from biomassters.training.shared_norms import synchronise

SHARES = (1, 4)
"""Images of a micro-batch that each of two ranks has: the number may differ."""
STEPS, MICRO_BATCHES = 3, 4


def build_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        BatchNormAct2d(6, momentum=0.01),
        nn.Conv2d(6, 4, 3),
        nn.BatchNorm2d(4, eps=1e-3),
        nn.Flatten(),
        nn.Linear(4 * 4 * 4, 2),
    )


def draw_images(*key: int) -> Tensor:
    """A micro-batch, (5, 3, 8, 8), far from mean 0."""
    generator = torch.Generator().manual_seed(sum(n * 31**i for i, n in enumerate(key)))
    return torch.randn(sum(SHARES), 3, 8, 8, generator=generator) * 3 + 50


def measure(net: nn.Module, images: Tensor, processes: Processes) -> dict[str, Any]:
    """Take a backward pass; list outputs and, summed over the processes, gradients by name."""
    images.requires_grad_()
    output = net(images)
    output.square().sum().backward()
    measured = {"output": output.detach(), "images": images.grad}
    rows = {key: torch.cat(processes.gather(value)).tolist() for key, value in measured.items()}
    weights = {key: processes.add(p.grad).tolist() for key, p in net.named_parameters()}
    buffers = {key: buffer.tolist() for key, buffer in net.named_buffers()}
    return rows | weights | buffers


def share_a_micro_batch() -> dict[str, Any]:
    with join_processes() as processes:
        net = build_net()
        names = list(net.state_dict())
        synchronise(net, processes.divide(1))
        assert list(net.state_dict()) == names
        share = draw_images(0).split(SHARES)[processes.rank]
        measured = measure(net, share, processes)
        net = copy.deepcopy(net.eval())
        unshared = net(draw_images(1).split(SHARES)[processes.rank])  # ranks need not agree here
        measured["eval"] = torch.cat(processes.gather(unshared.detach())).tolist()
    return measured


def test_shared_micro_batch_is_normalised_as_a_whole() -> None:
    """Outputs, gradients of images and weights, running statistics: those of one process."""
    net = build_net()
    expected = measure(net, draw_images(0), ALONE)
    expected["eval"] = net.eval()(draw_images(1)).tolist()
    for found in run_together(__name__, "share_a_micro_batch"):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            scale = float(torch.tensor(value).abs().max())
            torch.testing.assert_close(
                torch.tensor(found[name]),
                torch.tensor(value),
                rtol=1e-5,
                # A sum that is 0 but for rounding, as a bias before a norm has, has no digits.
                atol=1e-5 * max(scale, 1.0),
                msg=lambda text, name=name: f"{name}: {text}",
            )


def run_steps(net: nn.Module, processes: Processes, *, shared: bool = False) -> dict[str, Any]:
    """Run forward passes of the micro-batches that are this process's; list the buffers."""
    statistics = RunningStatistics(net)
    n_local = MICRO_BATCHES if shared else MICRO_BATCHES // processes.size
    first = 0 if shared else processes.rank * n_local
    for step in range(STEPS):
        statistics.remember()
        for micro_batch in range(first, first + n_local):
            images = draw_images(step, micro_batch)
            net(images.split(SHARES)[processes.rank] if shared else images)
        statistics.combine(processes, n_local)
    return {name: buffer.tolist() for name, buffer in net.named_buffers()}


def run_micro_batches_apart() -> dict[str, Any]:
    with join_processes() as processes:
        return run_steps(build_net(), processes)


def run_micro_batches_shared() -> dict[str, Any]:
    with join_processes() as processes:
        net = build_net()
        synchronise(net, processes.divide(1))
        return run_steps(net, processes, shared=True)


@pytest.mark.parametrize("how", ["apart", "shared"])
def test_running_statistics_are_those_of_one_process(how: str) -> None:
    net = build_net()
    expected = run_steps(net, ALONE)
    found, other = run_together(__name__, f"run_micro_batches_{how}")
    assert found == other, "to the last bit"
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            torch.tensor(found[name]), torch.tensor(value), rtol=1e-5, atol=1e-6
        )


def freeze_and_run() -> dict[str, Any]:
    with join_processes() as processes:
        net = build_net()
        net[1].eval()
        return run_steps(net, processes)


def test_frozen_norm_keeps_its_statistics_to_the_last_bit() -> None:
    found, _ = run_together(__name__, "freeze_and_run")
    assert found["1.running_mean"] == [0.0] * 6
    assert found["1.num_batches_tracked"] == 0
    assert found["3.num_batches_tracked"] == STEPS * MICRO_BATCHES


def test_other_kinds_of_batch_norm_are_refused() -> None:
    class Other(nn.BatchNorm2d):
        pass

    with pytest.raises(ModelError, match=r"got Other, at 1 of model\.backbone; use at most"):
        synchronise(nn.Sequential(nn.ReLU(), Other(3)), None)  # type: ignore[arg-type]
