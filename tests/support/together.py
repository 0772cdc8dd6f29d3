"""Functions of a test file that several real processes run together, over gloo on loopback."""

import importlib
import json
import multiprocessing
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from forked_scripts import CONTEXT, keep_bytecode
from torch.distributed import TCPStore
from waiting import PATIENCE_S

ROOT = Path(__file__).parents[2]


def make_environment(**changes: str) -> dict[str, str]:
    """Return an environment for a process of this project that torchrun or DVC did not start."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("DVC", "BIOMASSTERS", "MASTER_"))
        and key not in {"RANK", "WORLD_SIZE", "LOCAL_RANK"}
    }
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "src", ROOT / "tests/support", ROOT))),
        "CUDA_VISIBLE_DEVICES": "",
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        **changes,
    }


def run_together(
    module: str,
    function: str,
    *arguments: str,
    size: int = 2,
    variables: Mapping[str, str] | None = None,
) -> list[Any]:
    """Run a function of a test file in `size` processes, with the environment of torchrun's.

    Args:
        module: Of the test file.
        function: Of that module.
        arguments: Of the function.
        size: Processes.
        variables: Of their environment, in which no GPU is visible.

    Returns:
        What it returned in each of them, by rank: JSON types.
    """
    # As torchrun's agent does: a store that listens already, so that its port is nobody else's.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    place = {
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        **(variables or {}),
    }
    with TemporaryDirectory() as folder:
        processes = [
            CONTEXT.Process(
                target=_become_rank,
                args=(
                    (module, function, *arguments),
                    make_environment(**place, RANK=str(rank), LOCAL_RANK=str(rank)),
                    f"{folder}/{rank}",
                ),
            )
            for rank in range(size)
        ]
        try:
            for process in processes:
                process.start()
            for process in processes:
                process.join(PATIENCE_S)
        finally:
            for process in processes:
                process.kill()
                process.join()
        for rank, process in enumerate(processes):
            stderr = Path(f"{folder}/{rank}.stderr").read_text()
            assert process.exitcode == 0, f"rank {rank}:\n{stderr}"
        return [json.loads(Path(f"{folder}/{rank}.json").read_text()) for rank in range(size)]


def _become_rank(call: tuple[str, ...], environment: dict[str, str], place: str) -> None:
    import torch

    # Not the way that this process was started: its own workers are forked.
    multiprocessing.set_start_method("fork", force=True)
    os.environ.clear()
    os.environ.update(environment)
    keep_bytecode(environment)
    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    os.dup2(os.open(f"{place}.stderr", os.O_WRONLY | os.O_CREAT), 2)
    module, function, *arguments = call
    result = getattr(importlib.import_module(module), function)(*arguments)
    Path(f"{place}.json").write_text(json.dumps(result))
