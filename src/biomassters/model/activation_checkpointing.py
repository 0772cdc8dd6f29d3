"""Less memory for more time: activations computed again for the gradient, rather than kept.

Changes no result: what is computed again sees the same inputs and random numbers, and leaves the
running statistics of batch normalisation as the first time made them.

Not timm's `set_grad_checkpointing`, which knows neither our decoder nor our attention, and whose
second computation updates running statistics again. (Nothing here is a checkpoint of a training.)
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def checkpoint_activations(modules: Iterable[nn.Module]) -> None:
    """Let each module keep its inputs alone in training, and compute the rest again."""
    for module in modules:
        # A bound method, since a copy of the module takes a copy of it, bound to itself.
        module.forward = MethodType(_forward_checkpointed, module)


def is_checkpointed(model: nn.Module) -> bool:
    """Return whether any module within a model keeps its inputs alone."""
    forwards = (vars(module).get("forward") for module in model.modules())
    return any(getattr(f, "__func__", None) is _forward_checkpointed for f in forwards)


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
