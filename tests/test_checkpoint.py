import errno
import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from locked import is_free_within, start_holder

from biomassters.checkpoint import Checkpoints, hold_checkpoints
from biomassters.errors import BusyError


def test_newest_checkpoint_comes_back(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for epoch in range(3):
        checkpoints.save({"epoch": epoch, "model": {"w": torch.full((2,), float(epoch))}})
    state = checkpoints.load()
    assert state is not None
    assert state["epoch"] == 2
    assert torch.equal(state["model"]["w"], torch.full((2,), 2.0))


def test_none_where_nothing_was_saved(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path).load() is None


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_damaged_checkpoint_is_noticed_and_the_one_before_is_used(
    tmp_path: Path, damage: str
) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"epoch": 0})
    checkpoints.save({"epoch": 1})
    data = bytearray(checkpoints.last.read_bytes())
    data[len(data) // 2] ^= 1
    damaged = {"flip": bytes(data), "truncate": bytes(data[:-9]), "empty": b""}[damage]
    checkpoints.last.write_bytes(damaged)
    assert checkpoints.load() == {"epoch": 0}


def test_full_disk_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"epoch": 0})

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save({"epoch": 1})
    assert checkpoints.load() == {"epoch": 0}


def test_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, ("false",)

    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"epoch": Malicious()})
    with pytest.raises(Exception, match="Weights only load failed"):
        checkpoints.load()


HOLD = "biomassters.checkpoint.hold_checkpoints"


def test_second_process_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    with start_holder(tmp_path, hold=HOLD) as child:
        with (
            pytest.raises(BusyError, match="got another that does the same work"),
            hold_checkpoints(tmp_path),
        ):
            pass
        child.kill()
    with hold_checkpoints(tmp_path) as checkpoints:
        assert checkpoints.load() is None


def test_trainer_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    launcher = (sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])")
    with start_holder(tmp_path, hold=HOLD, launcher=launcher) as parent:
        parent.send_signal(signal.SIGKILL)
    assert is_free_within(10, tmp_path), "the trainer outlived its parent"
