"""Scripts that start in a tenth of their time, forked from a process that imported their libraries.

What runs is the workspace's own script and sources, as by `python src/train.py 0`.
"""

import importlib
import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import TemporaryDirectory

from waiting import PATIENCE_S

LIBRARIES = [
    *("pytest", "timm", "dvclive.live", "rasterio", "torch.distributed.run"),
    *("scipy.ndimage", "matplotlib.figure", "numcodecs", "pydantic_settings", "obstore"),
]
"""And nothing of this project, which belongs to the workspace."""

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(LIBRARIES)


def fork_script(
    folder: Path,
    *command: str,
    stderr: Path,
    environment: Mapping[str, str],
    stdout: Path = Path(os.devnull),
    sources: Path = Path("src"),
) -> ForkServerProcess:
    """Start a script of a workspace.

    Args:
        folder: The workspace.
        command: The script, and its arguments.
        stderr: Where its errors go.
        environment: All of its variables.
        stdout: Where what it prints goes.
        sources: The folder of the package, seen from the workspace.
    """
    process = CONTEXT.Process(
        target=_become_script,
        args=(folder / sources, folder, command, (stdout, stderr), dict(environment)),
    )
    process.start()
    return process


def run_script(
    folder: Path,
    *command: str,
    environment: Mapping[str, str],
    sources: Path = Path("src"),
) -> "subprocess.CompletedProcess[str]":
    """Run a script in a folder to its end, as `subprocess.run` would."""
    with TemporaryDirectory() as outputs:
        stdout, stderr = Path(outputs, "stdout"), Path(outputs, "stderr")
        process = fork_script(
            folder,
            *command,
            stdout=stdout,
            stderr=stderr,
            environment=environment,
            sources=sources,
        )
        process.join(PATIENCE_S)
        process.kill()
        process.join()
        code = -1 if process.exitcode is None else process.exitcode
        return subprocess.CompletedProcess(command, code, stdout.read_text(), stderr.read_text())


def _become_script(
    sources: Path,
    folder: Path,
    command: tuple[str, ...],
    outputs: tuple[Path, Path],
    environment: dict[str, str],
) -> None:
    os.chdir(folder)
    for number, path in enumerate(outputs, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    become_script(sources, folder, command, environment)


def become_script(
    sources: Path, folder: Path, command: Sequence[str], environment: Mapping[str, str]
) -> None:
    """Run a script in this process, which was forked for it, with the outputs that it has.

    Args:
        sources: The folder of the package.
        folder: Where the script works.
        command: It, or `-m` and a module, and its arguments.
        environment: All of its variables.
    """
    import torch

    # What tells it from others that are forked from the same process; 15 letters of it are kept.
    name = command[1] if command[0] == "-m" else Path(command[0]).name
    Path("/proc/self/comm").write_text(name)
    # Not the way that this process was started: a script's own workers are forked, and end with it.
    multiprocessing.set_start_method("fork", force=True)
    os.environ.clear()
    os.environ.update(environment)
    keep_bytecode(environment)
    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    os.chdir(folder)
    first = list(filter(None, environment.get("PYTHONPATH", "").split(os.pathsep)))
    own = [path for path in sys.path if not Path(path, "biomassters").is_dir()]
    sys.path[:] = [str(sources), *first, *own]
    if any(Path(path, "sitecustomize.py").exists() for path in first):
        sys.modules.pop("sitecustomize", None)
        importlib.import_module("sitecustomize")  # as Python does when it starts
    assert not any(name.startswith("biomassters") for name in sys.modules)
    if command[0] == "-m":
        sys.argv[:] = list(command[1:])
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv[:] = list(command)
        runpy.run_path(command[0], run_name="__main__")


def keep_bytecode(environment: Mapping[str, str]) -> None:
    """Keep the bytecode of modules where the environment says, as Python does when it starts."""
    # Else each process compiles this project's hundred modules anew, which takes a second.
    sys.dont_write_bytecode = bool(environment.get("PYTHONDONTWRITEBYTECODE"))
    sys.pycache_prefix = environment.get("PYTHONPYCACHEPREFIX")


def list_children(pid: int) -> list[int]:
    """Return the processes that a process started."""
    try:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:  # it has ended
        return []
