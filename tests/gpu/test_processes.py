"""Processes with a GPU each, over NCCL, take the steps of one alone; on CPUs, over gloo."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from tiny_training import (
    AUGMENTATION,
    IDS,
    build_tiny_model,
    no_workers,  # noqa: F401
    one_thread,  # noqa: F401
    optimise,
    pack_chips,
    run_phase,
)
from together import run_together
from torch import Tensor, nn
from tqdm import tqdm

from biomassters.batches.distributed import ALONE, Processes, join_processes
from biomassters.model.execution import place_model
from biomassters.store.chips import ChipStore
from biomassters.training.engine import Recipe, Trainer
from biomassters.training.kept_weights import AverageWeights
from biomassters.training.optimisation import Schedule
from biomassters.training.replicas import add_gradients_up
from biomassters.training.shared_norms import synchronise

pytestmark = pytest.mark.gpu

MICRO_BATCH_SIZES = {"own micro-batches": 2, "shared micro-batch": 4}


def show_gpus(device: torch.device) -> dict[str, str]:
    """Return the variables by which other processes see this one's GPUs, and each other."""
    if device.type == "cpu":
        return {}
    every = ",".join(map(str, range(torch.cuda.device_count())))
    return {
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", every),
        "NCCL_SOCKET_IFNAME": "lo",  # there need not be another
    }


def compare_with_one_alone() -> dict[str, Any]:
    """What a process of its own does: a step by DDP and shared norms, and one without them."""
    device = ALONE.device
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    images = torch.rand(2, 12, 15, 32, 32, generator=torch.Generator().manual_seed(3)).to(device)
    alone, member = (place_model(build_tiny_model(), device).train() for _ in range(2))
    synchronise(member, dist.group.WORLD)
    parallel = add_gradients_up(member)
    for model in (alone, parallel):
        model(images).square().mean().backward()
    found = {
        "backend": str(dist.get_backend_config()),
        "device": device.type,
        "gradients": measure_distance(list_gradients(alone), list_gradients(member)),
        "statistics": measure_distance(list(alone.buffers()), list(member.buffers())),
    }
    dist.destroy_process_group()
    return found


def list_gradients(model: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def measure_distance(ones: list[Tensor], others: list[Tensor]) -> float:
    """Return how far the others are from the ones, by the length of these."""
    one, other = (
        torch.cat([tensor.double().flatten().cpu() for tensor in tensors])
        for tensors in (ones, others)
    )
    return float((other - one).norm() / one.norm())


def train_epochs(folder: str, processes: Processes | None = None) -> dict[str, list[float]]:
    """Train two epochs each way; return the losses. In processes of their own: join them first."""
    if processes is None:
        os.environ["BIOMASSTERS_WORKERS"] = "0"
        with join_processes() as joined:
            return train_epochs(folder, joined)
    store = ChipStore.open(Path(folder) / "train.zarr")
    losses = {}
    for name, micro_batch_size in MICRO_BATCH_SIZES.items():
        trainer = Trainer(
            model=place_model(build_tiny_model(), processes.device),
            store=store,
            indices=[0, 1, 2, 3],
            recipe=Recipe(
                schedule=Schedule(lr=1e-4, phase=run_phase()),
                seed=5,
                optimisation=optimise(batch_size=4, micro_batch_size=micro_batch_size),
                augmentation=AUGMENTATION,
            ),
            keeper=AverageWeights(first_epoch=0),
            processes=processes,
        )
        epochs = [trainer._train_epoch(epoch, tqdm(disable=True)) for epoch in range(2)]
        losses[name] = [epoch["train/loss"] for epoch in epochs]
    return losses


def test_one_process_over_nccl_takes_the_step_of_one_without(device: torch.device) -> None:
    [found] = run_together(__name__, "compare_with_one_alone", size=1, variables=show_gpus(device))
    assert found["device"] == device.type
    assert ("nccl" in found["backend"]) == (device.type == "cuda")
    assert found["gradients"] < 1e-2  # TF32, in another order
    assert found["statistics"] < 1e-3


def test_two_processes_have_the_losses_of_one(device: torch.device, tmp_path: Path) -> None:
    if device.type == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs, for NCCL takes no two processes on one")
    pack_chips(tmp_path, *IDS)
    first, second = run_together(
        __name__, "train_epochs", str(tmp_path), variables=show_gpus(device)
    )
    assert first == second
    for name, losses in train_epochs(str(tmp_path), ALONE).items():
        assert first[name] == pytest.approx(losses, rel=1e-2)
