"""How a script ends: on an error in one line, and with the DVC or torchrun that started it.

Without the latter, a killed `dvc repro` leaves its trainer alive, and the next one starts another.
The kernel's own signal (PR_SET_PDEATHSIG) tells of the parent only, which may be a shell: DVC runs
`$SHELL -c COMMAND`, and dash, unlike bash, stays between DVC and the command.
"""

import errno
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from biomassters.errors import BiomasstersError
from biomassters.processes.environment import warn_of_unknown_variables

DVC_VARIABLE: Final = b"DVC_ROOT="
"""DVC sets it for the commands that it runs, and so not for itself."""
FARTHEST: Final = 32
"""Ancestors to look at, at most."""

log = logging.getLogger(__name__)


def run_script(main: Callable[[], None]) -> None:
    """Run a script; turn what a user can mend into one line on stderr and exit code 1."""
    if "RANK" not in os.environ:  # else the process that started this one has said it
        warn_of_unknown_variables()
    try:
        main()
    except BiomasstersError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" at {error.filename}" if error.filename else ""
        sys.exit(
            f"error: expected room on the disk, got none left{where};"
            " free some space and run the same command again: finished work is kept"
        )
    except KeyboardInterrupt:
        sys.exit(130)


def end_with_dvc() -> None:
    """End this process when the DVC that started it ends, or any process in between.

    Does nothing where DVC did not start it.
    """
    if "DVC_ROOT" in os.environ:
        _end_with(list(_list_ancestors_to_dvc()))


def end_with_parent() -> None:
    """End this process when its parent ends."""
    _end_with([os.getppid()])


def _list_ancestors_to_dvc() -> Iterator[int]:
    """Yield the parent, its parent ... up to the first that DVC did not start: DVC itself."""
    pid = os.getppid()
    for _ in range(FARTHEST):
        if pid == 0:
            return
        yield pid
        if not _is_started_by_dvc(pid):
            return
        pid = _parent_of(pid)


def _is_started_by_dvc(pid: int) -> bool:
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # another user's, or it has just ended
        return False
    return any(variable.startswith(DVC_VARIABLE) for variable in variables)


def _parent_of(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    # pid (name) state parent ...: the name may hold brackets and spaces of its own.
    return int(status.rpartition(")")[2].split()[1])


def _end_with(pids: list[int]) -> None:
    poll = select.poll()
    try:
        for pid in pids:
            poll.register(os.pidfd_open(pid), select.POLLIN)
    except ProcessLookupError:
        os.kill(os.getpid(), signal.SIGKILL)
    except OSError as error:
        log.warning("cannot watch %s (%s): should DVC be killed, end this by hand", pids, error)
        return
    threading.Thread(target=_wait_and_end, args=(poll,), daemon=True).start()


def _wait_and_end(poll: "select.poll") -> None:
    # SIGKILL, since a rank that waits for another in C++ heeds no Python handler; what this
    # project writes is whole or not there at all.
    poll.poll()
    os.kill(os.getpid(), signal.SIGKILL)
