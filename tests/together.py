"""Functions of a test file that several real processes run together, over gloo on loopback."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PATIENCE_S = 90


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
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT / 'tests'}",
        "CUDA_VISIBLE_DEVICES": "",
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        **changes,
    }


def run_together(module: str, function: str, *arguments: str, size: int = 2) -> list[Any]:
    """Run a function of a test file in `size` processes, as torchrun would start them.

    Returns:
        What it returned in each of them, by rank: JSON types.
    """
    code = f"import json, sys, {module}; print(json.dumps({module}.{function}(*sys.argv[1:])))"
    place = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_port())}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env=make_environment(**place, RANK=str(rank), LOCAL_RANK=str(rank)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    try:
        outputs = [process.communicate(timeout=PATIENCE_S) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for rank, (process, (_, stderr)) in enumerate(zip(processes, outputs, strict=True)):
        assert process.returncode == 0, f"rank {rank}:\n{stderr}"
    return [json.loads(stdout) for stdout, _ in outputs]


def find_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
