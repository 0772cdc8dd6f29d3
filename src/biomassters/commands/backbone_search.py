"""Which of timm's backbones tensors belong to, told by their names and shapes alone."""

import warnings
from collections import Counter
from collections.abc import Mapping
from typing import Final, TypeAlias

import timm
import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from tqdm import tqdm

from biomassters.store.bands import N_BANDS

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]

MAX_MISFITS: Final = 8
"""Parameters without their like in a file before a backbone is given up: more than a head has,
which is built and then taken off, so that a few tensors of the file may still be missing."""


class _MisfitError(Exception):
    """A backbone that is being built is not that of the file."""


def rank_backbones(shapes: Shapes) -> list[tuple[int, str]]:
    """Return the backbones that come near, and by how many tensors each differs; 0 = it fits.

    Building each of timm's 1,400 whole takes minutes; nearly all of them are given up after their
    first few layers, and those are not built whose first convolution has another name.

    Args:
        shapes: Shapes of a backbone's tensors by name.
    """
    names = [str(name) for name in timm.list_models()] if shapes else []
    alike = [name for name in names if f"{_name_first(name)}.weight" in shapes]
    ranked = []
    for name in tqdm(alike or names, "looking for the backbone", leave=False, disable=None):
        own = _build(name, shapes)
        if own is not None:
            ranked.append((count_differences(own, shapes), name))
    return sorted(ranked)


def count_differences(one: Shapes, other: Shapes) -> int:
    """Return how many names only one has, or both with other shapes."""
    return sum(one.get(name) != other.get(name) for name in one.keys() | other.keys())


def _name_first(name: str) -> str | None:
    config = timm.get_pretrained_cfg(name)
    first = config.first_conv if config is not None else None
    return first if isinstance(first, str) else None


def _build(name: str, shapes: Shapes) -> dict[str, tuple[int, ...]] | None:
    """Return the shapes of a backbone; None: it is far from those of the file."""
    left = Counter(shapes.values())
    misfits = 0

    def look(_: nn.Module, __: str, parameter: nn.Parameter | None) -> None:
        nonlocal misfits
        if parameter is None:
            return
        shape = tuple(parameter.shape)
        left[shape] -= 1
        misfits += left[shape] < 0
        if misfits > MAX_MISFITS:
            raise _MisfitError

    hook = register_module_parameter_registration_hook(look)
    try:
        # On no device: no memory, and no time for numbers.
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of 15 bands, for instance
            model = timm.create_model(name, features_only=True, in_chans=N_BANDS)
    except Exception:  # what one raises that has no feature levels is of no one class
        return None
    finally:
        hook.remove()
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
