"""A script ends on an error in one line, and with the DVC that started it, whatever is between."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from together import make_environment
from waiting import happens

from biomassters.errors import BiomasstersError
from biomassters.processes.ending import run_script
from biomassters.processes.environment import PREFIX

WORKER = """
import os, sys, time
from biomassters.processes.ending import end_with_dvc, end_with_parent
{call}()
print(os.getpid(), flush=True)
time.sleep(3600)
"""
# As DVC does: the command in a shell, with a variable that DVC itself has not.
STARTER = """
import os, subprocess, sys
subprocess.run([sys.argv[1], "-c", sys.argv[2]], env=os.environ | {extra})
"""
DVC = '{"DVC_ROOT": "."}'


@contextmanager
def started(shell: str, extra: str, call: str = "end_with_dvc") -> Iterator[tuple[int, int]]:
    """Start a starter that starts a shell that starts a worker; give the first's pid and last's."""
    # What follows the worker keeps a shell from becoming it.
    command = f"{sys.executable} -c '{WORKER.format(call=call)}'; true"
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER.format(extra=extra), shell, command],
        env=make_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert starter.stdout is not None
    worker = int(starter.stdout.readline())
    try:
        yield starter.pid, worker
    finally:
        starter.kill()
        starter.wait()
        if is_alive(worker):
            os.kill(worker, signal.SIGKILL)
        starter.stdout.close()


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # before it was opened, or after
        return False
    return state != "Z"


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def ends(pid: int) -> bool:
    return happens(lambda: not is_alive(pid))


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_killed_dvc_takes_its_stage_along(shell: str) -> None:
    with started(shell, DVC) as (dvc, worker):
        assert parent_of(worker) != dvc, "a shell is in between"
        os.kill(dvc, signal.SIGKILL)
        assert ends(worker)


def test_killed_shell_in_between_takes_the_stage_along() -> None:
    with started("/bin/sh", DVC) as (_, worker):
        os.kill(parent_of(worker), signal.SIGKILL)
        assert ends(worker)


def test_without_dvc_a_stage_outlives_who_started_it() -> None:
    with started("/bin/sh", "{}") as (starter, worker):
        shell = parent_of(worker)
        os.kill(starter, signal.SIGKILL)
        os.kill(shell, signal.SIGKILL)
        assert happens(lambda: parent_of(worker) not in (starter, shell))
        time.sleep(0.5)  # five times what a watched parent's end takes
        assert is_alive(worker)


def test_process_of_torchrun_ends_with_it_even_without_dvc() -> None:
    with started("/bin/sh", "{}", call="end_with_parent") as (_, worker):
        os.kill(parent_of(worker), signal.SIGKILL)
        assert ends(worker)


def raise_error(error: BaseException) -> None:
    raise error


def test_users_mistake_is_one_line_and_exit_code_1() -> None:
    with pytest.raises(SystemExit, match=r"^error: expected chips, got none$"):
        run_script(lambda: raise_error(BiomasstersError("expected chips, got none")))


def test_full_disk_is_one_line_that_names_the_file() -> None:
    error = OSError(errno.ENOSPC, "No space left on device", "chips/train.zarr")
    with pytest.raises(SystemExit, match=r"^error: .*room on the disk.*chips/train\.zarr"):
        run_script(lambda: raise_error(error))


def test_programmers_mistake_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_script(lambda: raise_error(ZeroDivisionError()))


def run_printing(call: str, output: int) -> "subprocess.CompletedProcess[str]":
    """Run a script that prints into an open file, by way of Python's buffer as scripts do."""
    script = f"from biomassters.processes.ending import run_script; run_script(lambda: {call})"
    environment = make_environment()
    environment.pop("PYTHONUNBUFFERED", None)
    try:
        return subprocess.run(
            [sys.executable, "-c", script],
            env=environment,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(output)


def open_unread_pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


HELP = "__import__('argparse').ArgumentParser().parse_args(['--help'])"
PRINTING = pytest.mark.parametrize("call", ["print('a')", "print('a' * 100_000)", HELP])


@PRINTING
def test_reader_that_has_enough_is_no_error(call: str) -> None:
    result = run_printing(call, open_unread_pipe())
    assert (result.returncode, result.stderr) == (128 + signal.SIGPIPE, "")


@PRINTING
def test_output_that_cannot_be_written_is_one_line(call: str) -> None:
    result = run_printing(call, os.open("/dev/full", os.O_WRONLY))
    assert result.returncode == 1
    assert result.stderr.startswith("error: expected room on the disk, got none left")
    assert result.stderr.count("\n") == 1


def test_output_that_is_closed_is_no_error() -> None:
    script = "from biomassters.processes.ending import run_script; run_script(lambda: print('a'))"
    closed = ["sh", "-c", '"$0" -c "$1" >&-', sys.executable, script]
    assert subprocess.run(closed, env=make_environment(), check=False).returncode == 0


def test_broken_pipe_of_our_own_keeps_its_traceback() -> None:
    with pytest.raises(BrokenPipeError):
        run_script(lambda: raise_error(BrokenPipeError(errno.EPIPE, "Broken pipe")))


def test_mistake_keeps_its_traceback_where_nobody_reads_the_output() -> None:
    result = run_printing("print('a') or 1 / 0", open_unread_pipe())
    assert "ZeroDivisionError" in result.stderr
    assert "BrokenPipeError" not in result.stderr


def test_script_warns_of_a_slip_in_a_variables_name(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(f"{PREFIX.lower()}workerz", "1")
    run_script(lambda: None)
    assert "workerz, which nothing reads" in caplog.text
