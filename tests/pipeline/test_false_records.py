"""What is edited while a training runs is not recorded as what was trained.

DVC records a stage's inputs after its command has ended; the stage itself refuses before that.
"""

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
import psutil
import pytest
from waiting import PATIENCE_S
from workspace import TINY, Workspace, find_trainers, list_checkpoints

from biomassters.store.layout import S2, image_shapes
from biomassters.store.zarr_files import read_chunk, write_chunk

EPOCHS = 4
OUTPUT = Path("work/output.txt")
NUMBERS = count()
CHUNK = "chips/train.zarr/s2/c.0.0.0.0.0"


def edit_params(folder: Path) -> str:
    path = folder / "params.yaml"
    path.write_text(re.sub(r"^seed: \d+", "seed: 7", path.read_text(), flags=re.MULTILINE))
    return "params.yaml: seed (0 → 7)"


def edit_module(folder: Path) -> str:
    path = folder / "src/biomassters/training/losses.py"
    path.write_text(path.read_text().replace("1e-8", "1e-7"))
    return "the module biomassters.training.losses"


def edit_statistics(folder: Path) -> str:
    path = folder / "statistics.json"
    data = path.read_bytes()
    path.unlink()  # it may be a link into DVC's cache
    path.write_bytes(data + b" ")
    return "statistics.json"


def edit_chips(folder: Path) -> str:
    """Make the first chip another that can be read as well."""
    pixels = np.empty(image_shapes(int(TINY["data.chip_size"]))[S2], np.uint16)
    read_chunk(folder / CHUNK, pixels)
    (folder / CHUNK).unlink()
    write_chunk(folder / CHUNK, pixels + np.uint16(1))
    return CHUNK


EDITS = (edit_params, edit_module, edit_statistics, edit_chips)


def comment(folder: Path) -> str:
    for path in (folder / "params.yaml", folder / "src/biomassters/training/losses.py"):
        path.write_text(f"# A comment.\n{path.read_text()}")
    return ""


@pytest.fixture
def workspace(pipeline: Workspace) -> Iterator[Workspace]:
    """A finished pipeline in which the next training is one that DVC has not seen in any test."""
    pipeline.set_params({"train.epochs": EPOCHS, "lr": 0.002 + next(NUMBERS) / 1e4})
    pipeline.commit("Another training")
    forget_checkpoints(pipeline)
    yield pipeline
    pipeline.run("git", "reset", "--quiet", "--hard", "HEAD~1")
    pipeline.run("git", "clean", "--quiet", "--force")
    pipeline.run("dvc", "checkout", "--quiet", "--force")
    forget_checkpoints(pipeline)


def forget_checkpoints(workspace: Workspace) -> None:
    for scratch in workspace.folder.glob("work/train-0-*"):
        shutil.rmtree(scratch)


@contextmanager
def running(
    workspace: Workspace, *command: str, anew: bool = False
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a command there; whatever happens, it has ended afterwards. `OUTPUT` has what it said.

    Args:
        workspace: Where.
        command: What.
        anew: Whether DVC and what it runs are started by Python itself, and so end with each other.
    """
    with (workspace.folder / OUTPUT).open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=workspace.folder,
            env=workspace.environment if anew else workspace.forked_environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
        process.wait()


def edit_while_training(
    workspace: Workspace, dvc: "subprocess.Popen[bytes]", *edits: Callable[[Path], str]
) -> list[str]:
    """Wait for the first checkpoint, stop the trainer, edit where it works, and let it go on.

    Returns:
        The names of what was edited.
    """
    deadline = time.monotonic() + PATIENCE_S
    while dvc.poll() is None and time.monotonic() < deadline:
        if list_checkpoints(workspace) and (trainers := find_trainers(workspace)):
            trainers[0].suspend()
            names = [edit(Path(trainers[0].cwd())) for edit in edits]
            trainers[0].resume()
            return names
        time.sleep(0.01)
    raise AssertionError(f"no training: {(workspace.folder / OUTPUT).read_text()}")


def run_and_edit(
    workspace: Workspace, *command: str, edits: tuple[Callable[[Path], str], ...]
) -> tuple[int, str, list[str]]:
    """Return the exit status of a command, what it printed, and what was edited meanwhile."""
    with running(workspace, *command) as process:
        names = edit_while_training(workspace, process, *edits)
        process.wait(PATIENCE_S)
    return process.returncode, (workspace.folder / OUTPUT).read_text(), names


def read_lock(workspace: Workspace) -> str:
    return (workspace.folder / "dvc.lock").read_text()


def assert_refused(output: str, names: list[str]) -> None:
    lines = [line for line in output.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, output
    assert "expected what train@0 read at its start, got a change of" in lines[0]
    for name in names:
        assert name in lines[0]
    assert "Traceback" not in output


def test_edits_during_a_repro_fail_the_stage_by_name(workspace: Workspace) -> None:
    """Each is found by itself: that one is enough, `fingerprint/test_stage_inputs` has."""
    before = read_lock(workspace)
    status, output, names = run_and_edit(workspace, "dvc", "repro", "train@0", edits=EDITS)
    assert status != 0
    assert_refused(output, names)
    assert read_lock(workspace) == before


def test_edit_that_is_put_back_costs_seconds_and_one_that_stays_trains_anew(
    workspace: Workspace,
) -> None:
    losses = workspace.folder / "src/biomassters/training/losses.py"
    text = losses.read_text()
    run_and_edit(workspace, "dvc", "repro", "train@0", edits=(edit_module,))
    edited = losses.read_text()
    losses.write_text(text)
    result = workspace.run("dvc", "repro", "train@0")
    assert f"going on after epoch {EPOCHS - 1} of {EPOCHS}" in result.stderr
    assert "is up to date" in workspace.run("python", "-m", "biomassters", "why", "train").stdout
    losses.write_text(edited)
    result = workspace.run("dvc", "repro", "train@0")
    assert "going on" not in result.stderr
    assert len(list_checkpoints(workspace)) == 2


def test_comment_during_a_training_changes_nothing_and_keeps_what_is_half_trained(
    workspace: Workspace,
) -> None:
    with running(workspace, "dvc", "repro", "train@0", anew=True) as process:
        edit_while_training(workspace, process, comment)
        process.kill()  # and its trainer goes with it
    status, output, _ = run_and_edit(workspace, "dvc", "repro", "train@0", edits=(comment,))
    assert status == 0, output
    assert re.search(rf"going on after epoch \d of {EPOCHS}", output)


def test_edits_during_an_experiment_fail_it(workspace: Workspace) -> None:
    command = ("dvc", "exp", "run", "train@0")
    status, output, names = run_and_edit(workspace, *command, edits=EDITS)
    assert status != 0
    assert_refused(output, names)
    assert workspace.run("dvc", "exp", "list", "--name-only").stdout == ""


def test_edits_in_a_temporary_experiments_folder_fail_it_and_others_do_not(
    workspace: Workspace,
) -> None:
    command = ("dvc", "exp", "run", "--temp", "--name", "temporary", "train@0")
    status, output, names = run_and_edit(workspace, *command, edits=EDITS)
    assert status != 0
    assert_refused(output, names)

    def edit_here(_: Path) -> str:
        return " ".join(edit(workspace.folder) for edit in EDITS)

    status, output, _ = run_and_edit(workspace, *command, edits=(edit_here,))
    assert status == 0, output
    assert "temporary" in workspace.run("dvc", "exp", "list", "--name-only").stdout
    workspace.run("dvc", "exp", "remove", "temporary")


def test_edits_during_a_queued_experiment_fail_it(workspace: Workspace) -> None:
    workspace.run("dvc", "exp", "run", "--queue", "--name", "queued", "train@0")
    _, _, names = run_and_edit(workspace, "dvc", "exp", "run", "--run-all", edits=EDITS)
    assert_refused(workspace.run("dvc", "queue", "logs", "queued").stdout, names)
    assert "queued" not in workspace.run("dvc", "exp", "list", "--name-only").stdout
    assert "Failed" in workspace.run("dvc", "queue", "status").stdout
