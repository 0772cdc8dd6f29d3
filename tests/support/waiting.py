"""Waiting for what must happen, for as long as it may take a busy machine."""

import time
from collections.abc import Callable

PATIENCE_S = 300
"""Never waited for but by what hangs."""


def happens(condition: Callable[[], object], look_every_s: float = 0.02) -> bool:
    """Wait until a condition holds; False if it never does."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(look_every_s)
    return True
