"""A model in its place for training: on the device, with as little memory as the machine asks."""

import torch

from biomassters.model.biomass_model import BiomassModel
from biomassters.model.execution import place_model
from biomassters.processes.environment import Environment


def place_for_training(model: BiomassModel, device: torch.device) -> BiomassModel:
    """Move a model to a device; checkpoint its activations if the environment says so.

    Args:
        model: On the CPU.
        device: Of this process.
    """
    placed = place_model(model, device)
    if Environment().activation_checkpointing:
        placed.network.checkpoint_activations()
    return placed
