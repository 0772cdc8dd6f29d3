"""The winner's recipe on a card of 24 GB, as docs/cluster.md says."""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from tiny_training import one_thread  # noqa: F401

from gpu_measuring import dry_setting, few_activations, gpu_setting
from measuring import finish, peak_gib, reset_peak
from model import make_step

pytestmark = pytest.mark.gpu

OF_24_GB = 21.5
"""GiB that torch may hold: an A10 has 22.5, an RTX 4090 has 24, less CUDA's own and NCCL's."""


@contextmanager
def at_most(gib: float, device: torch.device) -> Iterator[None]:
    """Let torch hold so much of the GPU for a while, and no more."""
    if device.type == "cpu":
        yield
        return
    whole = torch.cuda.get_device_properties(device).total_memory / 2**30
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, gib / whole))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def test_winners_step_with_few_activations_fits_a_card_of_24_gb(device: torch.device) -> None:
    setting = gpu_setting() if device.type == "cuda" else dry_setting()
    optimisation = setting.preset.optimisation
    options = argparse.Namespace(
        device=device, chip_size=setting.chip_size, clock=time.perf_counter
    )
    micro_batch_size = min(optimisation.micro_batch_size, setting.batches[0])
    with at_most(OF_24_GB, device), few_activations():
        take_step = make_step(
            options, setting.preset, micro_batch_size, optimisation.precision, False
        )
        reset_peak(device)
        for _ in range(3):
            take_step()
        finish(device)
        assert 0 < peak_gib(device) < OF_24_GB
