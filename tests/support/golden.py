"""The golden networks: reference weights and inputs, made from their published rule."""

import json
import math
import os
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.random import PCG64, Generator
from torch import Tensor

from biomassters.model.network import Network

FOLDER_VARIABLE = "GOLDEN_FOLDER"
"""An environment variable: where the files are, if not beside the repository."""

DECODER_CHANNELS = {
    "tf_efficientnetv2_b0": (64, 56, 48, 40, 32),
    "mobilenetv3_small_050": (32, 32, 24, 16, 16),
}


def find_golden() -> Path | None:
    """Return the folder of the reference networks' numbers; None where there is none."""
    beside = Path(__file__).parents[3] / "shared" / "golden"
    folders = [beside, *map(Path, filter(None, [os.environ.get(FOLDER_VARIABLE)]))]
    return next((folder for folder in folders if folder.is_dir()), None)


def load_golden(folder: Path, backbone: str) -> tuple[Network, dict[str, np.ndarray]]:
    """Return a network with the reference weights, and the reference's `mask` and outputs."""
    shapes = golden_shapes(folder, backbone)
    network = Network(backbone=backbone, decoder_channels=DECODER_CHANNELS[backbone]).eval()
    assert {name: value.shape for name, value in network.state_dict().items()} == shapes
    network.load_state_dict(golden_weights(shapes))
    return network, dict(np.load(folder / f"{backbone}.npz"))


def golden_shapes(folder: Path, backbone: str) -> dict[str, torch.Size]:
    """Return the reference network's state dict, as names and shapes."""
    keys = json.loads((folder / f"{backbone}.keys.json").read_text())
    return {name: torch.Size(shape) for name, shape in keys.items()}


def golden_weights(shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """Return the reference network's weights, each drawn from the checksum of its name."""
    return {name: _draw_weight(name, shape) for name, shape in shapes.items()}


def golden_images() -> Tensor:
    """Return the reference input, (2, 12, 15, 64, 64)."""
    return torch.from_numpy(Generator(PCG64(7)).random((2, 12, 15, 64, 64), dtype=np.float32))


def _draw_weight(name: str, shape: torch.Size) -> Tensor:
    kind = name.rpartition(".")[2]
    if kind == "num_batches_tracked":
        return torch.tensor(0)
    normal = Generator(PCG64(zlib.crc32(name.encode()))).standard_normal(shape)
    if kind in ("running_mean", "bias"):
        values = 0.1 * normal
    elif kind == "running_var":
        values = 1 + 0.1 * np.abs(normal)
    elif len(shape) == 1:
        values = 1 + 0.1 * normal
    else:
        values = normal * math.sqrt(2 / math.prod(shape[1:]))
    return torch.from_numpy(values.astype(np.float32))
