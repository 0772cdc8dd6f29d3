"""Less memory for more time: activations computed again for the gradient, rather than kept.

Changes no result: what is computed again sees the same inputs and random numbers, and leaves the
running statistics of batch normalisation as the first time made them.

Not timm's `set_grad_checkpointing`, which knows neither our decoder nor our attention, and whose
second computation updates running statistics again. (Nothing here is a checkpoint of a training.)
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from types import MethodType
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from biomassters.errors import ParamsError

VARIABLE: Final = "BIOMASSTERS_ACTIVATION_CHECKPOINTING"
"""The environment variable, 0 or 1: a matter of this machine's memory, not of the recipe."""


def is_requested() -> bool:
    """Return whether this machine wants it.

    Raises:
        ParamsError: The variable is neither 0 nor 1.
    """
    value = os.environ.get(VARIABLE, "0")
    if value not in ("0", "1"):
        raise ParamsError(
            f"expected 0 or 1, got {value!r}, at the environment variable {VARIABLE};"
            " set it to 1 to save memory"
        )
    return value == "1"


def checkpoint_activations(modules: Iterable[nn.Module]) -> None:
    """Let each module keep its inputs alone in training, and compute the rest again."""
    for module in modules:
        # A bound method, since a copy of the module takes a copy of it, bound to itself.
        module.forward = MethodType(_forward_checkpointed, module)


def find_blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the blocks of a backbone: what its sequences consist of, unless these are layers."""
    for child in module.children():
        if (
            isinstance(module, nn.Sequential)
            and not isinstance(child, nn.Sequential)
            and any(True for _ in child.children())
        ):
            yield child
        else:
            yield from find_blocks(child)


def _forward_checkpointed(module: nn.Module, *inputs: Any) -> Any:
    forward = partial(type(module).forward, module)
    if not (module.training and torch.is_grad_enabled()):
        return forward(*inputs)
    return checkpoint(
        forward, *inputs, use_reentrant=False, context_fn=partial(_make_contexts, module)
    )


def _make_contexts(
    module: nn.Module,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _keep_running_statistics(module)


@contextmanager
def _keep_running_statistics(module: nn.Module) -> Iterator[None]:
    """Let batch normalisation update copies that are then dropped."""
    norms = [m for m in module.modules() if isinstance(getattr(m, "running_mean", None), Tensor)]
    originals = [dict(norm.named_buffers(recurse=False)) for norm in norms]
    for norm, buffers in zip(norms, originals, strict=True):
        for name, buffer in buffers.items():
            setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, buffers in zip(norms, originals, strict=True):
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)
