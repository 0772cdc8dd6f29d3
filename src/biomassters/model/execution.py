"""How a forward pass is run: device, memory layout, arithmetic, and torch's compiler if it works.

All of it changes speed and rounding, and nothing else of a result.
"""

import logging
from collections.abc import Callable
from typing import Final, Generic, ParamSpec, TypeVar

import torch
from torch import nn

log = logging.getLogger(__name__)

DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""The arithmetic by its name in params.yaml."""

LONGEST_CAUSE: Final = 200
"""Characters of a compiler's complaint, which may be pages, that the log shows."""

Inputs = ParamSpec("Inputs")
Result = TypeVar("Result")
ModuleT = TypeVar("ModuleT", bound=nn.Module)


def place_model(model: ModuleT, device: torch.device) -> ModuleT:
    """Move a model to a device, in the layout that convolutions like best.

    Channels last made the training step of the embedded default 1.5 times faster on a CPU.
    """
    return model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context in which a forward pass runs; `fp32` leaves it as it is."""
    return torch.autocast(device.type, DTYPES[precision], enabled=precision != "fp32")


class Compiled(Generic[Inputs, Result]):
    """A function that torch compiles when it is first called, or that stays as it is.

    A compiler needs a C++ compiler or Triton, which are not on every machine, and does not know
    every operation: where it fails, one warning says so, and all goes on without it.
    """

    def __init__(self, function: Callable[Inputs, Result]) -> None:
        self.function = function
        self._call: Callable[Inputs, Result] | None = None

    def __call__(self, *args: Inputs.args, **kwargs: Inputs.kwargs) -> Result:
        """Return the function's result."""
        # The compiler takes as long to import as the rest of torch: for who compiles alone.
        from torch._dynamo.exc import TorchDynamoException

        try:
            if self._call is None:
                self._call = torch.compile(self.function)
            return self._call(*args, **kwargs)
        except TorchDynamoException as error:
            cause = " ".join(str(error).split())[:LONGEST_CAUSE]
            log.warning(
                "expected torch.compile to work, got %s (%s); going on without it, more slowly",
                type(error).__name__,
                cause,
            )
            self._call = self.function
            return self.function(*args, **kwargs)
