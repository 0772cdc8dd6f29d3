"""Checkpoints in a scratch folder that one process at a time may use.

The folder's name carries a fingerprint of the stage's inputs, so that a changed learning rate or
changed code never resumes a stale checkpoint. Writing is atomic, and the checkpoint before the
last is kept: whatever happens, one of the two is whole.
"""

import ctypes
import hashlib
import io
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from biomassters.locks import hold_folder

DIGEST_BYTES = hashlib.sha256().digest_size
PR_SET_PDEATHSIG = 1
"""Source: linux/prctl.h."""

log = logging.getLogger(__name__)


class Checkpoints:
    """The last two checkpoints of one training, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.last = folder / "checkpoint.pt"
        self.previous = folder / "checkpoint.previous.pt"

    def save(self, state: dict[str, Any]) -> None:
        """Write a checkpoint: tensors, numbers, strings and containers of these."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        payload = buffer.getbuffer()
        temporary = self.folder / "checkpoint.partial.pt"
        with temporary.open("wb") as file:
            file.write(hashlib.sha256(payload).digest())
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        if self.last.exists():
            self.last.replace(self.previous)
        temporary.replace(self.last)

    def load(self) -> dict[str, Any] | None:
        """Return the newest whole checkpoint, on the CPU, or None where there is none."""
        for path in (self.last, self.previous):
            if not path.exists():
                continue
            data = path.read_bytes()
            if hashlib.sha256(data[DIGEST_BYTES:]).digest() == data[:DIGEST_BYTES]:
                state: dict[str, Any] = torch.load(
                    io.BytesIO(data[DIGEST_BYTES:]), map_location="cpu", weights_only=True
                )
                return state
            log.warning("%s is damaged (its digest differs); trying the one before", path)
        return None


@contextmanager
def hold_checkpoints(folder: Path) -> Iterator[Checkpoints]:
    """Hold `folder` for this process, which ends when its parent (DVC) does.

    Raises:
        BusyError: Another process trains this already.
    """
    _end_with_parent()
    with hold_folder(folder):
        yield Checkpoints(folder)


def _end_with_parent() -> None:
    # Without it, a killed `dvc repro` leaves its trainer alive, and the next one starts another.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        log.warning("prctl refused: should DVC be killed, end this process by hand")
