"""How the tensors of a file differ from those that a network has, in words."""

from collections.abc import Iterable
from typing import Final

import torch

from biomassters.model.weights import TensorKinds

N_NAMED: Final = 3
"""Names that an error or warning gives of many."""
LONGEST_NAME: Final = 80


def describe_differences(expected: TensorKinds, got: TensorKinds) -> str:
    """Return what differs, with the first few names of each kind of difference; "" = nothing."""
    names = expected.keys() | got.keys()
    differing = sorted(name for name in names if expected.get(name) != got.get(name))
    missing = [show(name) for name in differing if name not in got]
    unknown = [show(name) for name in differing if name not in expected]
    others = [
        f"{show(name)}: expected {_describe(*expected[name])}, got {_describe(*got[name])}"
        for name in differing
        if name in got and name in expected
    ]
    findings = {"missing": missing, "unknown": unknown, "of another shape or type": others}
    return "; ".join(
        f"{len(names)} {finding} ({name_few(names)})"
        for finding, names in findings.items()
        if names
    )


def name_few(names: Iterable[str]) -> str:
    """Return the first names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - N_NAMED} more" if len(listed) > N_NAMED else ""
    return ", ".join(listed[:N_NAMED]) + more


def show(name: str) -> str:
    """Return a name that a file gives so that it stays on its line, whatever it is made of."""
    return ascii(name[:LONGEST_NAME])[1:-1]


def _describe(shape: torch.Size, dtype: torch.dtype) -> str:
    return f"{str(dtype).removeprefix('torch.')} {tuple(shape)}"
