"""Scratch folders: where they are, and that one process at a time may use one."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from biomassters.errors import BusyError


def scratch_folder(stage: str) -> Path:
    """Return the stage's scratch folder, shared by all experiments of this checkout.

    DVC sets DVC_ROOT to the main checkout, in temporary and queued experiments too.
    """
    return Path(os.environ.get("DVC_ROOT", ".")) / "work" / stage


@contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; it is made if absent.

    The lock is a POSIX one: it ends with this process, however that ends, and forked workers,
    which outlive a killed parent by seconds, have no part in it.

    Raises:
        BusyError: Another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                f"expected {folder.resolve()} for this process alone, got another that does the"
                " same work; wait until it ends, or end it"
            ) from None
        yield
