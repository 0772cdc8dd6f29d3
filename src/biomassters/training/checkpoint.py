"""Checkpoints in a scratch folder that one training at a time may use.

The folder's name carries a fingerprint of the stage's inputs, so that a changed learning rate or
changed code never resumes a stale checkpoint. Writing is atomic, and the checkpoint before the
last is kept: whatever happens, one of the two is whole.

Of several processes that train together, the first alone holds the folder, saves and loads; what it
loads it sends to the others, which need not see its disk.
"""

import hashlib
import io
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from biomassters.batches.distributed import ALONE, Processes
from biomassters.processes.scratch import hold_folder

DIGEST_BYTES = hashlib.sha256().digest_size

log = logging.getLogger(__name__)


class Checkpoints:
    """The last two checkpoints of one training, in `folder`."""

    def __init__(self, folder: Path, processes: Processes = ALONE) -> None:
        self.folder = folder
        self.processes = processes
        self.last = folder / "checkpoint.pt"
        self.previous = folder / "checkpoint.previous.pt"
        self.partial = folder / "checkpoint.partial.pt"

    def save(self, state: dict[str, Any]) -> None:
        """Write a checkpoint, if this is the first process.

        Args:
            state: Tensors, numbers, strings and containers of these.

        Raises:
            OSError: It cannot be written, as on a full disk; the one before stays.
        """
        if not self.processes.is_first:
            return
        buffer = io.BytesIO()
        torch.save(state, buffer)
        payload = buffer.getbuffer()
        try:
            with self.partial.open("wb") as file:
                file.write(hashlib.sha256(payload).digest())
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            self.partial.unlink(missing_ok=True)  # it holds what room there was
            error.filename = error.filename or str(self.partial)
            raise
        if self.last.exists():
            self.last.replace(self.previous)
        self.partial.replace(self.last)

    def load(self) -> dict[str, Any] | None:
        """Return the newest whole checkpoint, on the CPU, or None where there is none.

        All processes get the first one's.
        """
        return self.processes.broadcast(self._read() if self.processes.is_first else None)

    def _read(self) -> dict[str, Any] | None:
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
def hold_checkpoints(folder: Path, processes: Processes = ALONE) -> Iterator[Checkpoints]:
    """Hold `folder` for these processes; the first holds it for all.

    Raises:
        BusyError: Others train this already.
    """
    if not processes.is_first:
        yield Checkpoints(folder, processes)
        return
    with hold_folder(folder):
        yield Checkpoints(folder, processes)
