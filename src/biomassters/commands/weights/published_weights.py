"""Where the weights are in what the winner's training saved, and what lies beside them.

Source: the winner's code (drivendataorg/the-biomassters, 1st-place).
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from biomassters.commands.weights.inert_pickle import Placeholder
from biomassters.commands.weights.torch_archive import DTYPES, StoredTensor
from biomassters.errors import ModelError

MODULE_PARTS: Final = ("_parameters", "_buffers", "_modules")
DDP_PREFIX: Final = "module."

MAX_DEPTH: Final = 32
MAX_MODULES: Final = 100_000
"""Of a pickled module, which may hold itself; the winner's has 9 levels and 2,900 modules."""

HARMLESS: Final = {
    *("argparse Namespace", "collections Counter", "collections defaultdict"),
    *("torch Size", "torch device", "torch.serialization _get_layout"),
    *(str(dtype).replace(".", " ") for dtype in DTYPES.values()),
    *("timm.models._features FeatureInfo", "timm.models.features FeatureInfo"),
}
"""Globals that any checkpoint may name, or any pickled encoder of timm."""


@dataclass(frozen=True, kw_only=True)
class FoundWeights:
    """What a file of published weights holds.

    Attributes:
        kind: `checkpoint` (a state dict among other things), `state dict` (alone) or `module`
            (pickled whole).
        tensors: By the winner's names, without the prefix of distributed training.
        backbone: As the winner named it; None: the file does not say.
        epoch: Counted from 0; None: the file does not say.
        classes: Globals that a pickled module is made of.
    """

    kind: str
    tensors: Mapping[str, StoredTensor]
    backbone: str | None
    epoch: int | None
    classes: frozenset[str]


def find_weights(content: Any, source: Path) -> FoundWeights:
    """Find the weights in what a file holds.

    Args:
        content: As `TorchArchive.read_content` returns it.
        source: The file, for errors.

    Raises:
        ModelError: There are none.
    """
    classes: set[str] = set()
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        arguments = content.get("args")
        attributes = arguments.state if isinstance(arguments, Placeholder) else {}
        kind, named = "checkpoint", content["state_dict"].items()
        backbone, epoch = attributes.get("backbone"), content.get("epoch")
    elif isinstance(content, dict) and any(isinstance(t, StoredTensor) for t in content.values()):
        kind, named, backbone, epoch = "state dict", content.items(), None, None
    elif isinstance(content, Placeholder) and "_modules" in content.state:
        name = content.state.get("name")
        kind, named = "module", _walk_modules(content, source, classes)
        backbone = name.removeprefix("u-") if isinstance(name, str) else None
        epoch = None
    else:
        raise refuse("neither a state dict nor a module", source)
    tensors = {
        name: tensor
        for name, tensor in named
        if isinstance(name, str) and isinstance(tensor, StoredTensor)
    }
    if tensors and all(name.startswith(DDP_PREFIX) for name in tensors):
        tensors = {name.removeprefix(DDP_PREFIX): tensor for name, tensor in tensors.items()}
    return FoundWeights(
        kind=kind,
        tensors=tensors,
        backbone=backbone if isinstance(backbone, str) else None,
        epoch=epoch if type(epoch) is int else None,
        classes=frozenset(classes),
    )


def list_payload(unknown: set[str], found: FoundWeights) -> list[str]:
    """Return the globals that lie beside the weights and would be called by an unpickler.

    The classes of a module's own parts are none, but for those of Python's own library, in whose
    place no module is.

    Args:
        unknown: Globals that the file names, as `TorchArchive.unknown` has them.
        found: What else it holds.
    """
    parts = {name for name in found.classes if _top_module(name) not in sys.stdlib_module_names}
    return sorted(unknown - HARMLESS - parts)


def _top_module(name: str) -> str:
    return name.partition(" ")[0].partition(".")[0]


def _walk_modules(
    module: Placeholder, source: Path, classes: set[str]
) -> Iterator[tuple[str, Any]]:
    """Yield the parameters and persistent buffers of a module by their names in a state dict.

    What classes its parts are of goes to `classes`.
    """
    waiting = [("", module, 0)]
    n_modules = 0
    while waiting:
        prefix, current, depth = waiting.pop()
        n_modules += 1
        classes.add(current.name)
        if depth > MAX_DEPTH or n_modules > MAX_MODULES:
            raise refuse("a module that holds itself, or far more than the winner's", source)
        parts = {key: _as_dict(current.state.get(key)) for key in MODULE_PARTS}
        transient = current.state.get("_non_persistent_buffers_set")
        for name, tensor in [*parts["_parameters"].items(), *parts["_buffers"].items()]:
            if not (isinstance(transient, set) and name in transient):
                yield f"{prefix}{name}", tensor
        for name, child in parts["_modules"].items():
            if isinstance(child, Placeholder):
                waiting.append((f"{prefix}{name}.", child, depth + 1))


def _as_dict(value: Any) -> dict[str, Any]:
    items = value.items() if isinstance(value, dict) else ()
    return {name: item for name, item in items if isinstance(name, str)}


def refuse(got: str, source: Path) -> ModelError:
    """Return the error of a file that is not the winner's."""
    return ModelError(
        f"expected a checkpoint of the winner, got {got}, at {source};"
        " name the file model_last.pth or modelo_best.pth"
    )
