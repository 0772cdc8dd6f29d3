"""The start of a stage in several processes, and the one message that a user sees when they fail.

The environment decides, since the number of processes changes no result:

- BIOMASSTERS_LAUNCH: a command that starts them, such as `srun torchrun --nnodes=2 ...`; the
  script and its arguments are put behind it.
- BIOMASSTERS_PROCESSES: how many to start on this machine; by default one a visible GPU.

Knows torchrun; knows nothing of what the processes do.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from tempfile import TemporaryDirectory
from typing import Final

import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # torch does not list it

from biomassters.errors import BiomasstersError
from biomassters.processes.counts import count_cores, count_processes
from biomassters.processes.ending import end_with_dvc
from biomassters.processes.environment import LAUNCH_VARIABLE, Environment

FAILURE_KEY: Final = "biomassters/failures"
GRACE_S: Final = 10
"""How long a failed process may take to end before it is ended."""
LOST_PEER_SIGNS: Final = ("gloo", "nccl", "connection closed", "connection reset")


def launch(main: Callable[[], None]) -> None:
    """Run `main`: here, or in several processes that run the same script from its beginning.

    Raises:
        BiomasstersError: What `main` raises, by one of the processes; an environment variable
            cannot be used; a process was killed.
    """
    if "RANK" in os.environ:  # torchrun started this process
        _run_as_one_of_many(main)
        return
    command = Environment().launch
    n_processes = 1 if command else count_processes()
    if command:
        _run_command(command)
    elif n_processes > 1:
        _run_torchrun(n_processes)
    else:
        main()


def _run_torchrun(n_processes: int) -> None:
    """Start the processes on this machine, and wait: this process becomes torchrun's agent."""
    end_with_dvc()
    logging.disable(logging.ERROR)  # torchrun's, which says what we say, at length
    threads = max(1, count_cores() // n_processes)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    # A machine need not know its own name.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", _find_loopback())
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    options = ["--standalone", f"--nproc-per-node={n_processes}", "--monitor-interval=0.1"]
    try:
        with TemporaryDirectory() as logs:  # torchrun leaves a folder in any case
            torchrun([*options, f"--log-dir={logs}", *sys.argv])
    except SignalException as error:
        sys.exit(128 + error.sigval)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            raise _killed(f"rank {rank} of {n_processes}", -failure.exitcode) from None
        sys.exit(1)  # it told why


def _find_loopback() -> str:
    """Return `lo`, as Linux has it, or `lo0`, as macOS does."""
    return next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), "lo")


def _run_command(command: Sequence[str]) -> None:
    """Start the processes by a user's command, and wait."""
    end_with_dvc()
    # Without the variable itself: a command that is no torchrun must not lead back here.
    environment = {
        key: value for key, value in os.environ.items() if key.upper() != LAUNCH_VARIABLE
    }
    environment.setdefault("LOGLEVEL", "CRITICAL")  # torchrun's
    try:
        process = subprocess.Popen([*command, *sys.argv], env=environment)  # noqa: S603  # the user's
    except OSError as error:
        raise BiomasstersError(
            f"expected a command, got {command[0]!r}, which cannot be started"
            f" ({error.strerror}), at the environment variable {LAUNCH_VARIABLE}; mend or unset it"
        ) from error
    with _ended_with_this_process(process):
        code = _wait_for(process)
    if code < 0:
        raise _killed(command[0], -code)
    sys.exit(code)


@contextmanager
def _ended_with_this_process(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Let a shell end a process should this one be killed, which closes the pipe to that shell."""
    # srun and torchrun take SIGTERM as the wish to end all that they started, on all machines.
    watcher = subprocess.Popen(  # noqa: S603  # ours
        ["/bin/sh", "-c", 'read line; kill -TERM "$0"', str(process.pid)],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is not for it: the command may take it and go on
    )
    try:
        yield
    finally:
        watcher.kill()
        watcher.communicate()


def _wait_for(process: "subprocess.Popen[bytes]") -> int:
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # which the terminal sent to the command, too
            continue


def _run_as_one_of_many(main: Callable[[], None]) -> None:
    """Run `main` as one of several processes, of which one alone tells what went wrong."""
    try:
        main()
    except Exception as error:
        # Libraries may wait for the other processes at the end of this one; that must end, too.
        signal.alarm(2 * GRACE_S)
        if _lost_a_peer(error):
            # The peer tells why, or was killed, and torchrun ends this process in a moment.
            time.sleep(GRACE_S)
        elif not _is_first_to_fail():
            time.sleep(GRACE_S)
            sys.exit(1)
        raise


def _lost_a_peer(error: Exception) -> bool:
    if isinstance(error, BiomasstersError) or not isinstance(error, RuntimeError):
        return False
    text = str(error).lower()
    return isinstance(error, dist.DistError) or any(sign in text for sign in LOST_PEER_SIGNS)


def _is_first_to_fail() -> bool:
    """Ask torchrun's store, which all processes reach; where it is none, tell in any case."""
    try:
        store = TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            wait_for_workers=False,
            timeout=timedelta(seconds=GRACE_S / 2),
        )
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return bool(store.add(f"{FAILURE_KEY}/{attempt}", 1) == 1)
    except (KeyError, ValueError, RuntimeError):
        return True


def _killed(who: str, number: int) -> BiomasstersError:
    return BiomasstersError(
        f"expected all processes to finish, got {who} ended by {signal.Signals(number).name}"
        " (by the kernel, if the memory was full); all were ended:"
        " run the same command again, and it goes on from the last checkpoint"
    )
