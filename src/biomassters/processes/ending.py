"""How a script ends: on an error in one line, and with the DVC or torchrun that started it.

Without the latter, a killed `dvc repro` leaves its trainer alive, and the next one starts another.
A kernel's own signal, where it has one, tells of the parent only, which may be a shell: DVC runs
`$SHELL -c COMMAND`, and dash, unlike bash, stays between DVC and the command.
"""

import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

import psutil

from biomassters.errors import BiomasstersError
from biomassters.processes.cache_path import warn_of_cache_path
from biomassters.processes.faults import describe_fault

DVC_VARIABLE: Final = "DVC_ROOT"
"""DVC sets it for the commands that it runs, and so not for itself."""
OWN_PREFIX: Final = "BIOMASSTERS_"
"""Of this project's environment variables."""
LOOK_EVERY_S: Final = 0.1
STDOUT: Final = 1
STDERR: Final = 2
CLOSED_PIPE: Final = 128 + signal.SIGPIPE
"""The exit code of a program that SIGPIPE ended, as shells tell it."""

log = logging.getLogger(__name__)


def run_script(main: Callable[[], None]) -> None:
    """Run a script; turn what a user can mend into one line on stderr and exit code 1.

    Where nobody reads any more what it prints (`| head`), it ends without a word, as programs do
    that SIGPIPE ends. A programmer's mistake keeps its traceback.
    """
    if "RANK" not in os.environ:  # else the process that started this one has said it
        _warn_of_unknown_variables()
        warn_of_cache_path()
    try:
        try:
            main()
        except SystemExit:  # after a `--help`, which may still be in the buffer
            _flush_output()
            raise
        _flush_output()
    except BiomasstersError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _is_unread():
            sys.exit(CLOSED_PIPE)
        fault = describe_fault(error)
        if fault is None:
            raise
        sys.exit(f"error: {fault}")
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        _drop_unwritable_output()


def _warn_of_unknown_variables() -> None:
    # pydantic, which knows their types, takes longer to import than all else that a help needs: not
    # before there is a variable that it could be asked about.
    if any(name.upper().startswith(OWN_PREFIX) for name in os.environ):
        from biomassters.processes.environment import warn_of_unknown_variables

        warn_of_unknown_variables()


def _flush_output() -> None:
    """Write what was printed, as long as an error of it can still be told."""
    try:
        if sys.stdout is not None:  # else it was closed from the start
            sys.stdout.flush()
    except OSError as error:
        error.filename = "standard output"
        raise


def _drop_unwritable_output() -> None:
    """Let Python, which flushes at its end, find nothing to complain of in its own way."""
    try:
        _flush_output()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, STDOUT)
        os.close(nowhere)


def _is_unread() -> bool:
    """Tell whether the other end of the pipe that this process prints into is closed."""
    outputs = select.poll()
    for number in (STDOUT, STDERR):
        outputs.register(number, 0)  # for errors alone, which poll tells unasked
    return any(
        event & (select.POLLERR | select.POLLHUP) and not event & select.POLLNVAL
        for _, event in outputs.poll(0)
    )


def end_with_dvc() -> None:
    """End this process when the DVC that started it ends, or any process in between.

    Does nothing where DVC did not start it.
    """
    if DVC_VARIABLE in os.environ:
        _end_with(_list_ancestors_to_dvc())


def end_with_parent() -> None:
    """End this process when its parent ends."""
    _end_with(_list_ancestors()[:1])


def _list_ancestors_to_dvc() -> list[psutil.Process]:
    """Return the parent, its parent ... up to the first that DVC did not start: DVC itself."""
    ancestors = _list_ancestors()
    for position, ancestor in enumerate(ancestors, start=1):
        if not _is_started_by_dvc(ancestor):
            return ancestors[:position]
    return ancestors


def _list_ancestors() -> list[psutil.Process]:
    try:
        ancestors: list[psutil.Process] = psutil.Process().parents()
    except psutil.Error as error:
        log.warning("cannot watch parents (%s): should DVC be killed, end this by hand", error)
        return []
    return ancestors


def _is_started_by_dvc(process: psutil.Process) -> bool:
    try:
        return DVC_VARIABLE in process.environ()
    except psutil.Error:  # another user's, or it has just ended
        return False


def _end_with(processes: list[psutil.Process]) -> None:
    if processes:
        threading.Thread(target=_wait_and_end, args=(processes,), daemon=True).start()


def _wait_and_end(processes: list[psutil.Process]) -> None:
    # Looking again and again is what all systems can do. psutil's own waiting goes on until a dead
    # process is reaped, which its parent may never do.
    while not any(map(_has_ended, processes)):
        time.sleep(LOOK_EVERY_S)
    # SIGKILL, since a rank that waits for another in C++ heeds no Python handler; what this
    # project writes is whole or not there at all.
    os.kill(os.getpid(), signal.SIGKILL)


def _has_ended(process: psutil.Process) -> bool:
    try:
        # Its number may be another's by now, of which `is_running` knows.
        return process.status() == psutil.STATUS_ZOMBIE or not process.is_running()
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:  # another user's
        return False
