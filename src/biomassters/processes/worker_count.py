"""How many processes read or pack chips on this machine."""

import os
from typing import Final

from biomassters.errors import ParamsError

WORKERS_VARIABLE: Final = "BIOMASSTERS_WORKERS"


def count_cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0))


def count_workers(default: int) -> int:
    """Return what the environment variable BIOMASSTERS_WORKERS says; it changes no result.

    Raises:
        ParamsError: It is no number of processes.
    """
    value = os.environ.get(WORKERS_VARIABLE, str(default))
    if not value.isdecimal():
        raise ParamsError(
            f"expected a number of processes, got {value!r}, at the environment variable"
            f" {WORKERS_VARIABLE}; set it to 0 or more"
        )
    return int(value)
