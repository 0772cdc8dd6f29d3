"""Runs the measurements of `make gpu` one after another, within a time; started by gpu.py.

What a task finds is written when it is done, so that a process that ends in the midst of one has
lost that one alone, and another goes on with the rest. A task for which the time is too short is
left out.
"""

import argparse
import gc
import json
import logging
import math
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import timm
import torch

from biomassters.processes.counts import count_cores
from biomassters.processes.writing import write_whole
from gpu_measuring import dry_setting, gpu_setting, list_tasks
from measuring import Row, read_commit


@dataclass(kw_only=True)
class Found:
    """What the tasks found so far, as it is written.

    Attributes:
        case: What was measured.
        ceiling_tflops: By precision.
        rows: Times.
        profiles: Where the time goes, by work.
        failures: Tasks that failed, and why.
        left_out: Tasks for which there was no time.
        waiting: Names of the tasks to come, the one under way first; None: of all of them.
    """

    case: dict[str, Any] = field(default_factory=dict)
    ceiling_tflops: dict[str, float] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    profiles: dict[str, Any] = field(default_factory=dict)
    failures: list[dict[str, str]] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)
    waiting: list[str] | None = None

    @classmethod
    def read(cls, path: Path) -> "Found":
        """Go on from a file, if it is there."""
        return cls(**json.loads(path.read_text())) if path.is_file() else cls()

    def write(self, path: Path) -> None:
        """Write the file whole."""
        write_whole(path, (json.dumps(vars(self), indent=2) + "\n").encode())


@dataclass(frozen=True, kw_only=True)
class Task:
    """One measurement.

    Attributes:
        name: For people, and to find it again.
        kind: Tasks of one kind take about as long.
        guess_s: How long, before one of its kind was seen.
        run: Adds to what was found.
    """

    name: str
    kind: str
    guess_s: float
    run: Callable[[Found], None]


def main() -> None:
    """Describe the machine, or run the tasks that wait."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--describe", action="store_true", help="print the machine, and no more")
    parser.add_argument("--dry", action="store_true", help="small, on the CPU")
    parser.add_argument("--seconds", type=float, default=math.inf, help="of all tasks")
    parser.add_argument("--state", type=Path, help="file to go on from, and to add to")
    options = parser.parse_args()
    if options.describe:
        print(json.dumps(describe_machine()))
        return
    if options.dry:  # nothing waits for a compiler, which the other tests try
        torch.compile = lambda function: function
    # Each batch, mode and precision is one more version of the same function, and none shall be
    # the last that is compiled.
    torch._dynamo.config.recompile_limit = 64
    deadline = time.monotonic() + options.seconds
    setting = dry_setting() if options.dry else gpu_setting()
    with tempfile.TemporaryDirectory() as folder:
        tasks = [Task(**task) for task in list_tasks(setting, Path(folder))]
        found = Found.read(options.state)
        found.case = setting.describe()
        run_tasks(tasks, found, options.state, deadline)


def run_tasks(tasks: list[Task], found: Found, state: Path, deadline: float) -> None:
    """Run the tasks that wait, as far as the time goes."""
    if found.waiting is None:
        found.waiting = [task.name for task in tasks]
    longest: dict[str, float] = {}
    for task in [task for task in tasks if task.name in found.waiting]:
        found.write(state)
        needed, left = longest.get(task.kind, task.guess_s), deadline - time.monotonic()
        if needed > left:
            reason = f"about {needed:.0f} s needed, {max(0.0, left):.0f} s left"
            found.left_out.append({"task": task.name, "reason": reason})
        else:
            started = time.monotonic()
            run_task(task, found)
            seconds = time.monotonic() - started
            longest[task.kind] = max(seconds, longest.get(task.kind, 0.0))
            print(f"{seconds:6.1f} s  {task.name}", flush=True)
        found.waiting.remove(task.name)
    found.write(state)


def run_task(task: Task, found: Found) -> None:
    """Run one; what fails is noted, and leaves no memory behind for others to lack."""
    complaints = Complaints()
    logging.getLogger("biomassters").addHandler(complaints)
    n_rows = len(found.rows)
    try:
        task.run(found)
        if complaints.messages:
            # It went on without the compiler: its times are not those of what was to be measured.
            del found.rows[n_rows:]
            found.failures.append({"task": task.name, "cause": complaints.messages[0]})
    except Exception as error:  # of any class: the other tasks go on
        cause = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if isinstance(error, torch.OutOfMemoryError):
            cause = "out of memory"
        found.failures.append({"task": task.name, "cause": cause})
    finally:
        logging.getLogger("biomassters").removeHandler(complaints)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class Complaints(logging.Handler):
    """Notes what the modules warn of when they go on without torch.compile."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Note it."""
        if "torch.compile" in record.getMessage():
            self.messages.append(record.getMessage())


def describe_machine() -> dict[str, Any]:
    """Return what a table of times must say with it; without a GPU there is none to describe."""
    on_gpu = torch.cuda.is_available()
    gpu = torch.cuda.get_device_properties(0) if on_gpu else None
    cuda = {
        "gpu": gpu and gpu.name,
        "gpus": torch.cuda.device_count() if on_gpu else 0,
        "gpu_gib": gpu and round(gpu.total_memory / 2**30, 1),
        "driver": read_driver() if on_gpu else None,
        "cuda": torch.version.cuda if on_gpu else None,
        "cudnn": torch.backends.cudnn.version() if on_gpu else None,
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if on_gpu else None,
    }
    return cuda | {
        "torch": torch.__version__,
        "timm": timm.__version__,
        "python": platform.python_version(),
        "cores": count_cores(),
        # Where the files alone were carried there is no commit to be read.
        "commit": os.environ.get("COMMIT") or read_commit(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def read_driver() -> str | None:
    """Return the version of NVIDIA's driver, if its tool is there to tell."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    command = [tool, "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or None


if __name__ == "__main__":
    main()
