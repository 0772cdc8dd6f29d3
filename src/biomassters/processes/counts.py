"""How many processes and threads this machine has for a stage; no recipe says it."""

import os

from biomassters.processes.environment import Environment


def count_cores() -> int:
    """Return the cores that this process may use; on macOS, which does not tell, all there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def count_workers(default: int) -> int:
    """Return what the environment variable BIOMASSTERS_WORKERS says; it changes no result.

    Raises:
        ParamsError: It is no number of processes.
    """
    asked = Environment().workers
    return default if asked is None else asked


def count_processes() -> int:
    """Return how many processes a stage has on this machine.

    Raises:
        ParamsError: BIOMASSTERS_PROCESSES is no number of processes.
    """
    asked = Environment().processes
    if asked is None:
        import torch  # not above: a fetch counts its workers without it

        return max(1, torch.cuda.device_count())
    return asked
