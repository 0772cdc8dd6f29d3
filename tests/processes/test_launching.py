"""A script in two real processes: how they start, what a user sees of errors, how they end."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from forked_scripts import run_script
from together import make_environment
from waiting import PATIENCE_S, happens

from repository_copy import ROOT

SCRIPT = """
import os, sys, time
from pathlib import Path
import torch
from biomassters.batches.distributed import join_processes
from biomassters.processes.ending import run_script
from biomassters.errors import ParamsError
from biomassters.processes import launching

launching.GRACE_S = 600  # nothing may end for having waited long enough

def main():
    task = sys.argv[1]
    if task == "params":
        raise ParamsError("expected this, got that")
    with join_processes() as processes:
        if task == "wait":
            Path(f"rank-{processes.rank}").write_text(str(os.getpid()))
        if task == "report":
            ranks = processes.gather((processes.rank, torch.get_num_threads()))
            if processes.is_first:
                print(ranks)
        if task == "one fails" and processes.rank == 1:
            raise ParamsError("expected a finite loss, got nan")
        if task == "bug" and processes.rank == 1:
            raise ZeroDivisionError("our own mistake")
        while task in ("wait", "one fails", "bug"):
            if task == "wait":
                time.sleep(0.05)
            processes.wait()

run_script(lambda: launching.launch(main))
"""
SOURCES = ROOT / "src"
TORCHRUN = f"{sys.executable} -m torch.distributed.run --standalone --nproc-per-node=2"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def run(script: Path, task: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a script to its end: the first process is forked, those that it starts are not."""
    environment = make_environment(**environment)
    return run_script(script.parent, str(script), task, environment=environment, sources=SOURCES)


def test_number_of_processes_comes_from_the_environment(script: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    environment = make_environment(BIOMASSTERS_PROCESSES="2")
    del environment["OMP_NUM_THREADS"]  # each then gets its share of the cores
    result = subprocess.run(
        [sys.executable, script, "report"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    threads = max(1, cores // 2)
    assert result.stdout == f"[(0, {threads}), (1, {threads})]\n"


def test_one_process_is_no_torchrun(script: Path) -> None:
    result = run(script, "report", BIOMASSTERS_PROCESSES="1")
    assert (result.returncode, result.stdout, result.stderr) == (0, "[(0, 1)]\n", "")


def test_users_command_starts_the_processes(script: Path) -> None:
    result = run(script, "report", BIOMASSTERS_LAUNCH=TORCHRUN)
    assert (result.returncode, result.stdout) == (0, "[(0, 1), (1, 1)]\n"), result.stderr


def test_users_command_may_be_no_torchrun(script: Path) -> None:
    result = run(script, "report", BIOMASSTERS_LAUNCH=f"nice {sys.executable}")
    assert (result.returncode, result.stdout) == (0, "[(0, 1)]\n"), result.stderr


@pytest.mark.parametrize(
    ("task", "message"),
    [("params", "expected this, got that"), ("one fails", "expected a finite loss, got nan")],
)
def test_users_mistake_is_one_line(script: Path, task: str, message: str) -> None:
    """All processes find the same mistake; or one finds it, and the others wait for that one."""
    result = run(script, task, BIOMASSTERS_PROCESSES="2")
    assert (result.returncode, result.stderr) == (1, f"error: {message}\n")


def test_users_mistake_is_one_error_line_under_a_users_command(script: Path) -> None:
    result = run(script, "params", BIOMASSTERS_LAUNCH=TORCHRUN)
    assert result.returncode == 1
    assert result.stderr.count("error: expected this, got that\n") == 1


def test_programmers_mistake_keeps_one_traceback(script: Path) -> None:
    result = run(script, "bug", BIOMASSTERS_PROCESSES="2")
    assert result.returncode == 1
    assert result.stderr.count("Traceback") == 1
    assert "ZeroDivisionError: our own mistake" in result.stderr


@contextmanager
def waiting(script: Path, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """Start a script whose processes wait for each other until they are ended."""
    process = subprocess.Popen(
        [sys.executable, script, "wait"],
        cwd=script.parent,
        env=make_environment(**environment),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert happens(lambda: have_started(script) or process.poll() is not None)
        assert process.poll() is None
        yield process
    finally:
        process.kill()
        process.communicate()


def have_started(script: Path) -> bool:
    files = [script.parent / f"rank-{rank}" for rank in range(2)]
    return all(file.exists() and file.read_text() for file in files)


def list_ranks(script: Path) -> list[int]:
    return [int((script.parent / f"rank-{rank}").read_text()) for rank in range(2)]


def all_end(pids: list[int]) -> bool:
    return happens(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_killed_rank_ends_all_in_one_line(script: Path) -> None:
    with waiting(script, BIOMASSTERS_PROCESSES="2") as process:
        ranks = list_ranks(script)
        os.kill(ranks[1], signal.SIGKILL)
        assert process.wait(PATIENCE_S) == 1
        assert all_end(ranks)
        assert process.stderr is not None
        stderr = process.stderr.read()
    assert stderr.startswith(
        "error: expected all processes to finish, got rank 1 of 2 ended by SIGKILL"
    )
    assert stderr.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize(
    "environment",
    [{"BIOMASSTERS_PROCESSES": "2"}, {"BIOMASSTERS_LAUNCH": TORCHRUN}],
    ids=["processes", "command"],
)
def test_ended_launcher_ends_all(script: Path, environment: dict[str, str], number: int) -> None:
    with waiting(script, **environment) as process:
        process.send_signal(number)
        assert process.wait(PATIENCE_S) != 0
        assert all_end(list_ranks(script))


def test_command_that_is_none_is_one_line(script: Path) -> None:
    result = run(script, "report", BIOMASSTERS_LAUNCH="no-such-command --nnodes=2")
    assert result.returncode == 1
    assert result.stderr.startswith("error: expected a command, got 'no-such-command', which")
    assert result.stderr.count("\n") == 1
