"""Weights files: safetensors that hold a whole model, with its architecture in the header.

The checkpoints of a training are of another format (`training.checkpoint`), and so are the winner's
published weights (`commands.import_weights`).
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import torch
from safetensors.torch import save
from torch import Tensor

from biomassters.errors import ModelError
from biomassters.model.biomass_model import BiomassModel
from biomassters.model.weights_header import (
    CLEANING_KEY,
    HEADER_KEY,
    PACKAGES_KEY,
    UNTRAINED_KEY,
    open_weights,
)
from biomassters.params.sections import Architecture
from biomassters.processes.packages import list_versions
from biomassters.processes.writing import write_whole

CLEANING_BEFORE: Final = "none"
"""How they were before there was any such key."""

BEFORE_THERE_WAS_A_CHOICE: Final = {
    "bands": "all",
    "month_aggregation": "attention",
    "month_encoding": "none",
    "missing_months": "zero",
    "head": "mean",
    "quantile_level": 0.9,
}
"""What an older file does not say of its architecture."""

N_NAMED: Final = 3
"""Tensors that an error message names."""

TensorKinds: TypeAlias = Mapping[str, tuple[torch.Size, torch.dtype]]
"""Shapes and types of tensors by name."""


def save_weights(path: Path, model: BiomassModel, metadata: Mapping[str, str]) -> None:
    """Write a model; the same model and metadata give the same bytes.

    The file appears under its name only when it is whole. Its header tells the versions of the
    packages that made it.

    Args:
        path: The file; its folder is created.
        model: On any device.
        metadata: Where the weights come from, and under `CLEANING_KEY` of what chips.
    """
    tensors = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    _write(path, tensors, encode_architecture(model.architecture), metadata)


def save_untrained(path: Path) -> None:
    """Write a file that says that there was nothing to train on, in the place of a model."""
    _write(path, {}, "none", {UNTRAINED_KEY: "no train chips"})


def load_model(path: Path, *, cleaning: str | None = None) -> BiomassModel:
    """Read what `save_weights` wrote, onto the CPU, in evaluation mode; nothing is downloaded.

    Args:
        path: The file.
        cleaning: How the chips that the model is meant for are cleaned; None = do not check.

    Raises:
        ModelError: The file is absent, is not such a file, holds no model, another model's
            weights, or a model of chips that were cleaned otherwise.
    """
    header, tensors = _read(path)
    if UNTRAINED_KEY in header["metadata"]:
        raise ModelError(
            f"expected a trained model, got none, for the catalogue has no train chips, at {path};"
            " add train chips to it, or import weights into models/imported and set predict.models"
            " to imported (docs/winner.md)"
        )
    if cleaning is not None:
        _check_cleaning(path, header["metadata"].get(CLEANING_KEY, CLEANING_BEFORE), cleaning)
    try:
        architecture = decode_architecture(header["architecture"])
    except ModelError as error:
        raise ModelError(f"{error}, at {path}; write it again with this version") from None
    model = BiomassModel.build_blank(architecture)
    _check_tensors(path, model.state_dict(), tensors)
    model.load_state_dict(tensors)
    return model.eval()


def identify_weights(model: BiomassModel) -> str:
    """Return 16 hex digits over the names, types, shapes and values of all tensors.

    Law: equal on any device, and before and after `save_weights`.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\0".encode())
        values = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(values.view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def encode_architecture(architecture: Architecture) -> str:
    """Return one line of JSON with sorted keys.

    Law: `decode_architecture(encode_architecture(architecture)) == architecture`.
    """
    return json.dumps(architecture.model_dump(mode="json"), sort_keys=True)


def decode_architecture(text: str) -> Architecture:
    """Read what `encode_architecture` wrote.

    What a file does not say, since it was written before there was a choice, is as the winner's.

    Raises:
        ModelError: It is not such a line.
    """
    try:
        fields = {**BEFORE_THERE_WAS_A_CHOICE, **json.loads(text)}
        return Architecture.model_validate_json(json.dumps(fields), strict=True)
    except (ValueError, TypeError):
        keys = ", ".join(Architecture.model_fields)
        raise ModelError(f"expected an architecture ({keys}), got {text}") from None


def _write(
    path: Path, tensors: dict[str, Tensor], architecture: str, metadata: Mapping[str, str]
) -> None:
    header = {
        "architecture": architecture,
        "metadata": dict(metadata),
        PACKAGES_KEY: list_versions(),
    }
    write_whole(path, save(tensors, {HEADER_KEY: json.dumps(header, sort_keys=True)}))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with open_weights(path, framework="pt") as (file, header):
        return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _check_cleaning(path: Path, trained: str, expected: str) -> None:
    if trained != expected:
        raise ModelError(
            f"expected a model that was trained with cleaning: {expected}, as params.yaml says, got"
            f" one trained with cleaning: {trained}, at {path}; set cleaning to {trained}, or train"
            " the model again"
        )


def _check_tensors(path: Path, expected: dict[str, Tensor], got: dict[str, Tensor]) -> None:
    differences = find_differences(describe_tensors(expected), describe_tensors(got))
    if differences:
        findings = "; ".join(
            f"{len(names)} {finding} ({', '.join(names[:N_NAMED])}"
            f"{', ...' if len(names) > N_NAMED else ''})"
            for finding, names in differences.items()
        )
        raise ModelError(
            f"expected the {len(expected)} tensors of the architecture that the header names,"
            f" got {findings}, at {path}; write the file again with this version"
        )


def describe_tensors(tensors: Mapping[str, Tensor]) -> TensorKinds:
    """Return shape and type of each tensor."""
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def find_differences(expected: TensorKinds, got: TensorKinds) -> dict[str, list[str]]:
    """Return the names of the tensors that differ, sorted, by what is wrong with them."""
    differing = sorted(
        name for name in expected.keys() | got.keys() if expected.get(name) != got.get(name)
    )
    findings = {
        "missing": [name for name in differing if name not in got],
        "unknown": [name for name in differing if name not in expected],
        "of another shape or type": [
            name for name in differing if name in expected and name in got
        ],
    }
    return {finding: names for finding, names in findings.items() if names}
