"""A real model of a few channels, and stores of a few simulated chips, to train in seconds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from example_chips import simulate_record
from example_statistics import describe_chips
from torch import nn

from biomassters.batches import symmetries
from biomassters.model.biomass_model import BiomassModel
from biomassters.packing.assembly import pack_split
from biomassters.params.sections import (
    AugmentationParams,
    ModelParams,
    OptimisationParams,
    PhaseParams,
)
from biomassters.sources.synthetic_source import SyntheticSource
from biomassters.store.chips import ChipStore

IDS = ("5eed0001", "5eed0002", "5eed0003", "5eed0004")
CHIP_SIZE = 32

MODEL = ModelParams(
    bands="all",
    backbone="mobilenetv3_small_050",
    pretrained=False,
    decoder_channels=(16, 16, 8, 8, 8),
    normalisation="zscore",
    target_scaling="standard",
    month_aggregation="attention",
    month_encoding="none",
    missing_months="zero",
    head="mean",
    quantile_level=0.9,
)
STATISTICS = describe_chips(
    mean=(-12.0, -18.0, -13.0, -19.0, *[2000.0] * 10, 13.0),
    standard_deviation=(4.0, 5.0, 4.0, 5.0, *[2500.0] * 10, 25.0),
)
NO_AUGMENTATION = AugmentationParams(
    symmetries=False,
    rotation_p=0,
    rotation_degrees=0,
    month_dropout_p=0,
    month_dropout_rate=0,
)
AUGMENTATION = AugmentationParams(
    symmetries=True,
    rotation_p=0.5,
    rotation_degrees=45,
    month_dropout_p=0.5,
    month_dropout_rate=0.3,
)


def optimise(**changes: Any) -> OptimisationParams:
    """Return a section `optimisation` with changes; a batch is one micro-batch."""
    defaults = {
        "batch_size": 2,
        "micro_batch_size": changes.get("batch_size", 2),
        "weight_decay": 0.01,
        "clip_norm": 5.0,
        "precision": "fp32",
        "compile": False,
        "loss": "rmse",
        "max_target": 400.0,
        "ema_decay": 0.0,
        "batch_norm_chips": 0,
    }
    return OptimisationParams(**{**defaults, **changes})


def run_phase(**changes: Any) -> PhaseParams:
    """Return what `train` and `finetune` have in common, with changes."""
    defaults = {
        "epochs": 3,
        "lr_min": 1e-6,
        "warmup_epochs": 0,
        "frozen_encoder_epochs": 0,
        "plain_epochs": 0,
    }
    return PhaseParams(**{**defaults, **changes})


def build_tiny_model(seed: int = 0, **changes: Any) -> BiomassModel:
    """Build a model, with changes of its params; the same seed gives the same weights."""
    torch.manual_seed(seed)
    return BiomassModel.build(MODEL.model_copy(update=changes), STATISTICS)


def pack_chips(folder: Path, *chip_ids: str, target: bool = True) -> ChipStore:
    """Pack simulated chips of 32 pixels."""
    chips = [simulate_record(chip_id, target=target) for chip_id in chip_ids]
    path = folder / "train.zarr"
    pack_split(chips, SyntheticSource(CHIP_SIZE), path, folder / "scratch", chip_size=CHIP_SIZE)
    return ChipStore.open(path)


def list_bytes(model: nn.Module) -> dict[str, bytes]:
    """Return the bytes of all weights and buffers by name."""
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


PLAIN = {"none": symmetries.views("none")}
BOTH = PLAIN | {"flips": symmetries.views("flips")}
"""Sets of views."""


@pytest.fixture(autouse=True)
def no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read chips in the main thread."""
    monkeypatch.setenv("BIOMASSTERS_WORKERS", "0")


@pytest.fixture(scope="module", name="store")
def three_chips(tmp_path_factory: pytest.TempPathFactory) -> ChipStore:
    """Return a store of three chips."""
    return pack_chips(tmp_path_factory.mktemp("chips"), *IDS[:3])


@pytest.fixture(scope="module", name="model")
def evaluated_model() -> BiomassModel:
    """Return a tiny model in evaluation mode."""
    return build_tiny_model().eval()


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Keep torch to one thread: these tensors are too small for two to agree on anything."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
