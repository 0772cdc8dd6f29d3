"""Real scripts `train` and `finetune`, killed again and again, beside another, and with another lr.

Twenty kills -9: of one process alone, and of either of two or of what launched them.
"""

import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import numpy as np
import pytest
from forked_scripts import fork_script, list_children
from locked import is_free
from waiting import PATIENCE_S, happens
from workspace import Workspace, make_tiny_workspace

KILLS = {1: {"train": 9, "finetune": 9}, 2: {"train": 2}}
"""Of each stage, by the number of processes; both stages train by the same engine."""
EPOCHS = {1: 20, 2: 10}
"""Of each stage: more than are trained between the kills."""
STAGES = {"train": ("src/train.py", "0"), "finetune": ("src/finetune.py",)}
STDERR = Path("work/stderr.txt")

EVERYTHING = {
    f"{stage}.{key}": value
    for stage in ("train", "finetune")
    for key, value in {
        "warmup_epochs": 2,
        "frozen_encoder_epochs": 2,
        "plain_epochs": 2,
    }.items()
} | {"optimisation.ema_decay": 0.9}


@contextmanager
def running(
    workspace: Workspace, *command: str, workers: int = 0, processes: int = 1
) -> Iterator[ForkServerProcess]:
    """Run a script there, without DVC; whatever happens, it has ended afterwards."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DVC")}
    environment = {
        **kept,
        "BIOMASSTERS_WORKERS": str(workers),
        "BIOMASSTERS_PROCESSES": str(processes),
        "CUDA_VISIBLE_DEVICES": "",  # bytes are promised on a CPU only
        "OMP_NUM_THREADS": "1",
    }
    stderr = workspace.folder / STDERR
    stderr.parent.mkdir(exist_ok=True)
    process = fork_script(workspace.folder, *command, stderr=stderr, environment=environment)
    try:
        yield process
    finally:
        process.kill()
        process.join()


def finish(workspace: Workspace, process: ForkServerProcess) -> None:
    process.join(PATIENCE_S)
    assert process.exitcode == 0, read_errors(workspace)


def run(workspace: Workspace, *command: str, processes: int = 1) -> None:
    with running(workspace, *command, processes=processes) as process:
        finish(workspace, process)


def read_errors(workspace: Workspace) -> str:
    return (workspace.folder / STDERR).read_text()


def wait_until(
    condition: Callable[[], bool], process: ForkServerProcess, workspace: Workspace
) -> None:
    """Wait while the process runs."""
    assert happens(lambda: condition() or not process.is_alive(), 0.002), read_errors(workspace)


def list_scratch(workspace: Workspace, stage: str) -> list[Path]:
    return sorted((workspace.folder / "work").glob(f"{stage}-*"))


def count_saves(workspace: Workspace) -> int:
    """A number that changes with every checkpoint."""
    total = 0
    for path in (workspace.folder / "work").glob("*/checkpoint.pt"):
        try:
            status = path.stat()
        except FileNotFoundError:  # moved aside: the next one takes its place now
            continue
        total += status.st_ino + status.st_mtime_ns
    return total


def wait_for_a_save(workspace: Workspace, process: ForkServerProcess) -> None:
    before = count_saves(workspace)
    wait_until(lambda: count_saves(workspace) != before, process, workspace)


def read_results(workspace: Workspace) -> dict[str, bytes]:
    """The bytes of the models, of the predictions and of the curves but the clock's."""
    folder = workspace.folder
    paths = [
        *folder.glob("models/*/*"),
        *folder.glob("validation/*/*"),
        *folder.glob("metrics/train/0/plots/**/*.tsv"),
        *folder.glob("metrics/finetune/plots/**/*.tsv"),
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
    workspace.set_params({**EVERYTHING, "train.epochs": max(EPOCHS.values())})
    shutil.copytree(workspace.folder / "src/catalogue/synthetic", workspace.folder / "data")
    run(workspace, "src/fetch.py", "train")
    run(workspace, "src/band_statistics.py")
    return workspace


def copy_workspace(prepared: Workspace, folder: Path) -> Workspace:
    shutil.copytree(prepared.folder, folder)
    return Workspace(folder)


def test_second_training_beside_the_first_is_refused_in_one_line(
    prepared: Workspace, tmp_path: Path
) -> None:
    workspace = copy_workspace(prepared, tmp_path / "beside")
    with running(workspace, *STAGES["train"]) as first:
        wait_for_a_save(workspace, first)
        assert first.pid is not None
        os.kill(first.pid, signal.SIGSTOP)
        with running(workspace, *STAGES["train"]) as second:
            second.join(PATIENCE_S)
            assert second.exitcode == 1
    refusal = read_errors(workspace)
    assert re.match(r"error: expected \S+/work/train-0-\w+ for this process alone, got", refusal)
    assert refusal.count("\n") == 1


@pytest.mark.parametrize("processes", KILLS)
def test_stages_that_are_killed_again_and_again_end_with_the_same_bytes(
    prepared: Workspace, tmp_path: Path, processes: int
) -> None:
    """The first kill may come while a checkpoint is written, the others anywhere in an epoch."""
    uninterrupted, killed = (
        copy_workspace(prepared, tmp_path / name) for name in ("uninterrupted", "killed")
    )
    for workspace in (uninterrupted, killed):
        workspace.set_params({f"{stage}.epochs": EPOCHS[processes] for stage in STAGES})
    random = np.random.default_rng(20230 + processes)
    for stage, n_kills in KILLS[processes].items():
        run(uninterrupted, *STAGES[stage], processes=processes)
        assert read_errors(uninterrupted) == ""
        for kill in range(n_kills):
            kill_at_random(killed, stage, random, processes=processes, while_saving=kill == 0)
        run(killed, *STAGES[stage], processes=processes)
        assert "going on after epoch" in read_errors(killed)
    results, expected = read_results(killed), read_results(uninterrupted)
    assert set(results) == set(expected)
    assert {name for name in results if results[name] != expected[name]} == set()
    trained = {"train": "folds/fold-0", "finetune": "final/final"}
    models = {f"models/{trained[stage]}.safetensors" for stage in KILLS[processes]}
    assert models <= set(results)


def kill_at_random(
    workspace: Workspace,
    stage: str,
    random: np.random.Generator,
    *,
    processes: int,
    while_saving: bool,
) -> None:
    """Start a stage and kill it: its process, or one of two, or the launcher of these."""
    workers = int(random.integers(2))
    with running(workspace, *STAGES[stage], workers=workers, processes=processes) as script:
        wait_for_a_save(workspace, script)
        scratch = list_scratch(workspace, stage)[0]
        if while_saving:
            wait_until((scratch / "checkpoint.partial.pt").exists, script, workspace)
        else:
            time.sleep(random.uniform(0, 0.1))
        assert script.is_alive(), "too quick a training to be killed"
        assert script.pid is not None
        ranks = list_children(script.pid) if processes > 1 else []
        os.kill(int(random.choice([script.pid, *ranks])), signal.SIGKILL)
        script.join(PATIENCE_S)
        assert script.exitcode != 0
    assert happens(lambda: is_free(scratch))


def test_changed_lr_starts_anew(prepared: Workspace, tmp_path: Path) -> None:
    workspace = copy_workspace(prepared, tmp_path / "changed")
    for lr in (0.001, 0.002):
        workspace.set_params({"lr": lr})
        with running(workspace, *STAGES["train"]) as process:
            wait_for_a_save(workspace, process)
        assert read_errors(workspace) == ""
    assert len(list_scratch(workspace, "train-0")) == 2
