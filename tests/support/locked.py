"""A folder that another process holds: a process is never in the way of its own lock."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from biomassters.errors import BusyError
from biomassters.processes.scratch import hold_folder

HOLD = """
import importlib, sys
from pathlib import Path
module, function, folder = sys.argv[1:]
with getattr(importlib.import_module(module), function)(Path(folder)):
    print("held", flush=True)
    sys.stdin.read()
"""


def start_holder(
    folder: Path,
    *,
    hold: str = "biomassters.processes.scratch.hold_folder",
    launcher: tuple[str, ...] = (),
) -> "subprocess.Popen[str]":
    """Start a child, perhaps by a launcher, and return when it holds `folder` by `hold`."""
    child = subprocess.Popen(
        [*launcher, sys.executable, "-c", HOLD, *hold.rsplit(".", 1), str(folder)],
        stdin=subprocess.PIPE,  # which ends with the test, at the latest
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")},
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    return child


@contextmanager
def held_by_another_process(folder: Path) -> Iterator[None]:
    """Hold `folder` in a child process."""
    with start_holder(folder) as child:
        yield
        child.kill()


def is_free(folder: Path) -> bool:
    """Whether no process holds a folder."""
    try:
        with hold_folder(folder):
            return True
    except BusyError:
        return False
