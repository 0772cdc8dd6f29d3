"""Functions made faster by torch's compiler, where there is one that works.

Knows what can go wrong with a compiler; knows nothing of what is compiled.
"""

import logging
from collections.abc import Callable
from typing import Final, Generic, ParamSpec, TypeVar

import torch
from torch._dynamo.exc import TorchDynamoException

log = logging.getLogger(__name__)

LONGEST_CAUSE: Final = 200
"""Characters of a compiler's complaint, which may be pages, that the log shows."""

Inputs = ParamSpec("Inputs")
Result = TypeVar("Result")


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
