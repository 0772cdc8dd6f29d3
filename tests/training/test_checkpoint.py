import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from locked import start_holder
from together import make_environment, run_together

from biomassters.batches.distributed import join_processes
from biomassters.errors import BusyError
from biomassters.processes.ending import run_script
from biomassters.training.checkpoint import Checkpoints, hold_checkpoints


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


def test_full_disk_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    """The kernel itself refuses: /dev/full is a disk without room."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"epoch": 0})
    checkpoints.partial.symlink_to("/dev/full")
    with pytest.raises(
        SystemExit, match=r"^error: expected room on the disk, .*checkpoint\.partial\.pt; free some"
    ):
        run_script(lambda: checkpoints.save({"epoch": 1}))
    assert checkpoints.load() == {"epoch": 0}
    checkpoints.save({"epoch": 1})
    assert checkpoints.load() == {"epoch": 1}


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare, of util-linux")
def test_full_file_system_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    """On a real file system of 1 MiB, in which the second checkpoint begins but does not fit."""
    code = """
import sys, torch
from pathlib import Path
from biomassters.training.checkpoint import Checkpoints
checkpoints = Checkpoints(Path(sys.argv[1]))
checkpoints.save({"epoch": 0, "model": torch.zeros(150_000)})
try:
    checkpoints.save({"epoch": 1, "model": torch.zeros(150_000)})
except OSError as error:
    assert not checkpoints.partial.exists(), "it holds what room there was"
    print(error.strerror, checkpoints.load()["epoch"])
"""
    mount = 'mount -t tmpfs -o size=1m tmpfs "$1" || exit 77; exec "$2" -c "$3" "$1"'
    result = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", mount, "sh", tmp_path, sys.executable, code],
        env=make_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode == 77 or "unshare failed" in result.stderr:
        pytest.skip("mounting is not allowed here")
    assert result.stdout == "No space left on device 0\n", result.stderr


def test_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, ("false",)

    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"epoch": Malicious()})
    with pytest.raises(Exception, match="Weights only load failed"):
        checkpoints.load()


HOLD = "biomassters.training.checkpoint.hold_checkpoints"


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


def save_and_load(folders: str) -> list[Any]:
    """Each process has a folder of its own, as on machines without a shared disk."""
    with join_processes() as processes:
        folder = Path(folders) / str(processes.rank)
        found = []
        for epoch in range(2):
            with hold_checkpoints(folder, processes) as checkpoints:
                state = checkpoints.load()
                found.append(None if state is None else [state["rank"], state["w"].tolist()])
                checkpoints.save({"rank": processes.rank, "w": torch.full((2,), float(epoch))})
                processes.wait()
    return found


def test_first_of_several_processes_saves_and_loads_for_all(tmp_path: Path) -> None:
    first, second = run_together(__name__, "save_and_load", str(tmp_path))
    assert first == second == [None, [0, [0.0, 0.0]]]
    assert {path.name for path in tmp_path.iterdir()} == {"0"}
