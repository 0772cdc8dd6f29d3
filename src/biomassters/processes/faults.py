"""What the system refuses every day (files, folders, disks), told in one line.

Knows error numbers and paths; knows nothing of what a script did there.
"""

import errno
import os
from pathlib import Path
from typing import Final, NamedTuple


class _Fault(NamedTuple):
    """What an error number means.

    Attributes:
        expected: What the script needed.
        got: What it found.
        remedy: What to do about it.
    """

    expected: str
    got: str
    remedy: str


_NO_ROOM: Final = _Fault(
    "room on the disk",
    "none left",
    "free some space and run the same command again: finished work is kept",
)
_NO_PERMISSION: Final = _Fault(
    "the permission to use it",
    "none",
    "change its owner or its mode (`chmod`), or work in a folder of your own",
)
_TOO_MANY_OPEN: Final = _Fault(
    "to open one file more",
    "too many open ones",
    "raise the limit (`ulimit -n`), or set BIOMASSTERS_WORKERS lower",
)

_FAULTS: Final = {
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.EFBIG: _Fault(
        "room for a whole file",
        "a limit on the size of files",
        "raise it (`ulimit -f`), or use another disk",
    ),
    errno.ENOENT: _Fault(
        "a file or folder",
        "none",
        "put it back, or run `dvc repro`, which makes what stages write",
    ),
    errno.ENOTDIR: _Fault("a folder", "a file", "move the file away"),
    errno.EISDIR: _Fault("a file", "a folder", "move the folder away"),
    errno.EEXIST: _Fault("nothing there yet", "a file or folder", "move it away"),
    errno.ENOTEMPTY: _Fault("an empty folder", "one with files", "move them away"),
    errno.EACCES: _NO_PERMISSION,
    errno.EPERM: _NO_PERMISSION,
    errno.EROFS: _Fault(
        "to write there",
        "a file system that can only be read",
        "mount it for writing, or work elsewhere",
    ),
    errno.EMFILE: _TOO_MANY_OPEN,
    errno.ENFILE: _TOO_MANY_OPEN,
    errno.ENOMEM: _Fault(
        "memory", "none left", "end other programs, or set BIOMASSTERS_WORKERS lower"
    ),
    errno.EIO: _Fault(
        "a disk that works", "an input/output error", "look at the system's log (`dmesg`)"
    ),
    errno.ENAMETOOLONG: _Fault("a shorter name", "one that is too long", "shorten it"),
    errno.ELOOP: _Fault("a file or folder", "links in a circle", "mend the link"),
    errno.EBUSY: _Fault("it to be free", "one that is in use", "end what uses it"),
    errno.ETXTBSY: _Fault("it to be free", "a program that runs", "end it"),
    errno.ENOLCK: _Fault(
        "locks on files",
        "none on this file system",
        "work on a local disk, or start its lock service",
    ),
    errno.ESTALE: _Fault(
        "a network disk that answers", "a stale handle", "mount it again, and repeat"
    ),
    errno.ETIMEDOUT: _Fault("a disk that answers", "a time-out", "look at the connection to it"),
}


def describe_fault(error: OSError) -> str | None:
    """Return what happened and what to do, in one line; None of another error.

    Args:
        error: As the system raised it; the path is its `filename`, or `filename2` of a renaming.
    """
    fault = _FAULTS.get(error.errno or 0)
    if fault is None:
        return None
    path = _find_path(error)
    if error.errno == errno.EEXIST and path is not None and os.path.isfile(path):  # noqa: PTH113
        fault = _FAULTS[errno.ENOTDIR]  # of a folder that was to be made
    details = " ".join(str(error.strerror).split())
    if details.startswith("No usable temporary directory"):  # tempfile's
        fault = fault._replace(remedy="set TMPDIR to a folder on a disk with room")
    got = fault.got
    if details != os.strerror(error.errno or 0):  # a library's own words
        got = f"{got} ({details})"
    where = "" if path is None else f", at {_show(path)}"
    return f"expected {fault.expected}, got {got}{where}; {fault.remedy}"


def _find_path(error: OSError) -> str | None:
    """Return the path that is to blame, if the error tells it."""
    name = error.filename if error.errno == errno.ENOENT else error.filename2 or error.filename
    if not isinstance(name, str | bytes | os.PathLike):
        return None
    path = os.fsdecode(name)
    if error.errno == errno.ENOTDIR:
        # The system names the path that was asked for; one of those above it is the file.
        above = (str(parent) for parent in reversed(Path(path).parents))
        return next((p for p in above if os.path.isfile(p)), path)  # noqa: PTH113
    return path


def _show(path: str) -> str:
    return path if path.isprintable() else ascii(path)
