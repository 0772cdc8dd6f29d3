"""How the tensors of a file differ from those that a network has, in words."""

from typing import Final

import torch

from biomassters.errors import name_few
from biomassters.model.weights import N_NAMED, TensorKinds, find_differences

LONGEST_NAME: Final = 80


def describe_differences(expected: TensorKinds, got: TensorKinds) -> str:
    """Return what differs, with the first few names of each kind of difference; "" = nothing."""

    def describe(name: str) -> str:
        if name not in expected or name not in got:
            return show(name)
        return f"{show(name)}: expected {_describe(*expected[name])}, got {_describe(*got[name])}"

    return "; ".join(
        f"{len(names)} {finding} ({name_few([*map(describe, names)], N_NAMED)})"
        for finding, names in find_differences(expected, got).items()
    )


def show(name: str) -> str:
    """Return a name that a file gives so that it stays on its line, whatever it is made of."""
    return ascii(name[:LONGEST_NAME])[1:-1]


def _describe(shape: torch.Size, dtype: torch.dtype) -> str:
    return f"{str(dtype).removeprefix('torch.')} {tuple(shape)}"
