"""The header of a weights file: what it says of its model, read without importing torch."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open

from biomassters.errors import ModelError

HEADER_KEY: Final = "biomassters"
"""The only key of the file's metadata: safetensors writes several in random order."""

CLEANING_KEY: Final = "cleaning"
"""Of the metadata: how the chips were cleaned that the model was trained on."""

ANCESTOR_KEY: Final = "finetuned_from_weights"
"""Of the metadata: the identity of the weights that the model was finetuned from."""

UNTRAINED_KEY: Final = "untrained"
"""Of the metadata: why the file holds no model."""

PACKAGES_KEY: Final = "packages"
"""Of the header: the versions that the model was made with."""


def read_packages(path: Path) -> dict[str, str]:
    """Return the versions of the packages that made a file, by name; none of an older file.

    Raises:
        ModelError: The file is absent, or is no weights file of this project.
    """
    with open_weights(path, framework="numpy") as (_, header):
        packages: dict[str, str] = header.get(PACKAGES_KEY, {})
    return packages


def read_metadata(path: Path) -> dict[str, str]:
    """Return what a file says of where its model comes from.

    Raises:
        ModelError: The file is absent, or is no weights file of this project.
    """
    with open_weights(path, framework="numpy") as (_, header):
        metadata: dict[str, str] = header["metadata"]
    return metadata


def list_weights(folder: Path) -> list[Path]:
    """Return the weights files of a folder, sorted by name.

    Raises:
        ModelError: There are none.
    """
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        remedy = "run `dvc repro` to train them"
        if folder.name == "imported":
            remedy = f"run `python -m biomassters import-weights FILE {folder}/NAME.safetensors`"
        raise ModelError(f"expected models at {folder}, got none; {remedy}")
    return paths


@contextmanager
def open_weights(path: Path, *, framework: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Open a file, and yield it with its header.

    Args:
        path: The file.
        framework: Whose tensors it gives: `pt` or, without importing torch, `numpy`.

    Raises:
        ModelError: It is absent, or is no weights file of this project.
    """
    if not path.is_file():
        raise ModelError(
            f"expected the weights {path}, got no such file; run `dvc repro` or `dvc pull`"
        )
    try:
        with safe_open(path, framework=framework) as file:
            header = json.loads((file.metadata() or {})[HEADER_KEY])
            header["architecture"], header["metadata"].get(CLEANING_KEY)
            yield file, header
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(
            f"expected a weights file of this project, got another ({type(error).__name__}:"
            f" {error}), at {path}; delete it and run `dvc repro`"
        ) from None
