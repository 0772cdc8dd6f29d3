"""How many processes and threads this machine has for a stage; no recipe says it."""

import os
from typing import Final

from biomassters.errors import BiomasstersError, ParamsError

PROCESSES_VARIABLE: Final = "BIOMASSTERS_PROCESSES"
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


def count_processes() -> int:
    """Return how many processes a stage has on this machine.

    Raises:
        BiomasstersError: BIOMASSTERS_PROCESSES is no number of processes.
    """
    text = os.environ.get(PROCESSES_VARIABLE)
    if text is None:
        import torch  # not above: a fetch counts its workers without it

        return max(1, torch.cuda.device_count())
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise BiomasstersError(
            f"expected a number of processes from 1 on, got {text!r}, at the environment variable"
            f" {PROCESSES_VARIABLE}; set another, or unset it for one a GPU"
        )
    return int(text)
