"""A real `python src/train.py 0`, killed and repeated, beside another, and with another lr."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from locked import is_free_within
from workspace import Workspace, make_tiny_workspace

N_KILLS = 4
EPOCHS = 10
PATIENCE_S = 90
STDERR = Path("work/stderr.txt")

Process = subprocess.Popen[bytes]


def start(workspace: Workspace, *command: str, workers: int = 0) -> Process:
    """Start a door there, without DVC."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DVC")}
    environment = {
        **kept,
        "BIOMASSTERS_WORKERS": str(workers),
        "CUDA_VISIBLE_DEVICES": "",  # bytes are promised on a CPU only
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "",  # each start would compile torch anew
    }
    (workspace.folder / STDERR).parent.mkdir(exist_ok=True)
    with (workspace.folder / STDERR).open("wb") as stderr:
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=workspace.folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )


def finish(workspace: Workspace, process: Process) -> None:
    code = process.wait(PATIENCE_S)
    assert code == 0, (workspace.folder / STDERR).read_text()


@contextmanager
def training(workspace: Workspace, workers: int = 0) -> Iterator[Process]:
    """Train fold 0; whatever happens, the process has ended afterwards."""
    process = start(workspace, "src/train.py", "0", workers=workers)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_until(condition: Callable[[], bool], process: Process) -> None:
    """Wait while the process runs."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline, "the training does not get on"
        time.sleep(0.002)


def list_scratch(workspace: Workspace) -> list[Path]:
    return sorted((workspace.folder / "work").glob("train-0-*"))


def count_saves(workspace: Workspace) -> int:
    """A number that changes with every checkpoint."""
    return sum(
        path.stat().st_ino + path.stat().st_mtime_ns
        for path in (workspace.folder / "work").glob("train-0-*/checkpoint.pt")
    )


def read_results(workspace: Workspace) -> dict[str, bytes]:
    """The bytes of the models, of the predictions and of the curves but the clock's."""
    folder = workspace.folder
    paths = [
        *folder.glob("models/*/*"),
        *folder.glob("validation/*/*"),
        *folder.glob("metrics/train/0/plots/**/*.tsv"),
    ]
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(paths)
        if path.name != "chips_per_second.tsv"
    }


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with a store and its statistics, where nothing was trained yet."""
    workspace = make_tiny_workspace(tmp_path_factory.mktemp("resume") / "prepared")
    workspace.set_params({"train.epochs": EPOCHS})
    shutil.copytree(workspace.folder / "src/catalogue/synthetic", workspace.folder / "data")
    finish(workspace, start(workspace, "src/fetch.py", "train"))
    finish(workspace, start(workspace, "src/band_statistics.py"))
    return workspace


def copy_workspace(prepared: Workspace, folder: Path) -> Workspace:
    shutil.copytree(prepared.folder, folder)
    return Workspace(folder)


@pytest.fixture(scope="module")
def uninterrupted(
    prepared: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """What a training gives that was stopped for a while, with another started beside it."""
    workspace = copy_workspace(prepared, tmp_path_factory.mktemp("resume") / "uninterrupted")
    with training(workspace) as first:
        wait_until(lambda: count_saves(workspace) > 0, first)
        first.send_signal(signal.SIGSTOP)
        with training(workspace) as second:
            assert second.wait(PATIENCE_S) == 1
        refusal = (workspace.folder / STDERR).read_text()
        first.send_signal(signal.SIGCONT)
        finish(workspace, first)
    return {"refusal": refusal.encode(), **read_results(workspace)}


def test_second_training_beside_the_first_is_refused_in_one_line(
    uninterrupted: dict[str, bytes],
) -> None:
    refusal = uninterrupted["refusal"].decode()
    assert re.match(r"error: expected \S+/work/train-0-\w+ for this process alone, got", refusal)
    assert refusal.count("\n") == 1


def test_training_that_is_killed_again_and_again_ends_with_the_same_bytes(
    prepared: Workspace, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    """The first kill may come while a checkpoint is written, the others anywhere in an epoch."""
    workspace = copy_workspace(prepared, tmp_path / "killed")
    moments = np.random.default_rng(20230)
    n_killed = 0
    for kill in range(N_KILLS):
        with training(workspace, workers=1) as process:
            saved = count_saves(workspace)
            wait_until(lambda saved=saved: count_saves(workspace) != saved, process)
            if kill == 0:
                partial = list_scratch(workspace)[0] / "checkpoint.partial.pt"
                wait_until(partial.exists, process)
            else:
                time.sleep(moments.uniform(0, 0.2))
            n_killed += process.poll() is None
        assert is_free_within(1.0, list_scratch(workspace)[0])
    with training(workspace) as process:
        finish(workspace, process)
    assert "going on after epoch" in (workspace.folder / STDERR).read_text()
    assert n_killed >= 2, "too quick a training to be killed"
    results = read_results(workspace)
    expected = {name: data for name, data in uninterrupted.items() if name != "refusal"}
    assert set(results) == set(expected)
    assert {name for name in results if results[name] != expected[name]} == set()
    assert {"models/folds/fold-0.safetensors", "models/last/fold-0.safetensors"} <= set(results)


def test_changed_lr_starts_anew(prepared: Workspace, tmp_path: Path) -> None:
    workspace = copy_workspace(prepared, tmp_path / "changed")
    for lr in (0.001, 0.002):
        workspace.set_params({"lr": lr})
        saved = count_saves(workspace)
        with training(workspace) as process:
            wait_until(lambda saved=saved: count_saves(workspace) != saved, process)
        assert (workspace.folder / STDERR).read_text() == ""
    assert len(list_scratch(workspace)) == 2
