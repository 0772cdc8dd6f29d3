import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from locked import held_by_another_process

from biomassters.commands import prune_checkpoints as checkpoint_pruning
from biomassters.commands.prune_checkpoints import prune_checkpoints
from biomassters.errors import ParamsError
from biomassters.fingerprint.stage_inputs import read_inputs
from repository_copy import ROOT

STAGES = """
stages:
  train:
    deps: [code.py]
    params: [lr]
  finetune:
    deps: ["models/folds/fold-${finetune.fold}.safetensors"]
    params: [finetune]
"""


class Finished:
    """What `dvc status` says."""

    def __init__(self) -> None:
        self.stdout = json.dumps({"train@0": ["changed"], "finetune": ["changed"]})
        self.returncode = 0
        self.asked: list[str] = []

    def run(self, command: list[str], **_: object) -> SimpleNamespace:
        """Take the place of `subprocess.run`."""
        self.asked = command[command.index("status") + 1 : -1]
        return SimpleNamespace(stdout=self.stdout, stderr="", returncode=self.returncode)


@pytest.fixture
def status(monkeypatch: pytest.MonkeyPatch) -> Finished:
    finished = Finished()
    monkeypatch.setattr(subprocess, "run", finished.run)
    return finished


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The scratch of a small pipeline, with checkpoints of the present and of other inputs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (tmp_path / "dvc.yaml").write_text(STAGES)
    (tmp_path / "code.py").write_text("a = 1")
    (tmp_path / "models/folds").mkdir(parents=True)
    (tmp_path / "models/folds/fold-0.safetensors").write_text("weights")
    folder = tmp_path / "work"
    for name in (
        f"train-0-{read_inputs(Path('src/train.py'), fold=0).digest}",
        f"finetune-{read_inputs(Path('src/finetune.py')).digest}",
        "train-0-0123456789abcdef",
        "train-7-0123456789abcdef",
        "finetune-0123456789abcdef",
        "fetch/train/5eed0001-0123456789abcdef",
        "real-chips/pipeline",
        "train-mine",
        "train-0-0123456789abcdef.copy",
    ):
        (folder / name).mkdir(parents=True)
        (folder / name / "checkpoint.pt").write_bytes(bytes(1_000_000))
    return folder


def names(work: Path) -> set[str]:
    return {path.name for path in work.iterdir()}


def present(work: Path) -> set[str]:
    return {
        f"train-0-{read_inputs(Path('src/train.py'), fold=0).digest}",
        f"finetune-{read_inputs(Path('src/finetune.py')).digest}",
    } & names(work)


OTHERS = {"fetch", "real-chips", "train-mine", "train-0-0123456789abcdef.copy"}
STALE = {"train-0-0123456789abcdef", "train-7-0123456789abcdef", "finetune-0123456789abcdef"}


def test_checkpoints_of_other_inputs_are_deleted_and_nothing_else(
    work: Path, status: Finished
) -> None:
    before = names(work)
    said = prune_checkpoints()
    assert names(work) == before - STALE
    assert len(present(work)) == 2
    assert (work / "fetch/train/5eed0001-0123456789abcdef/checkpoint.pt").exists()
    assert set(status.asked) == {"train@0", "finetune"}
    assert "deleted 3.0 MB" in said
    assert "kept  work/fetch  1.0 MB: no checkpoints" in said
    assert "train@0 can go on from it" in said


def test_dry_run_deletes_nothing_and_says_what_it_would(work: Path, status: Finished) -> None:
    before = names(work)
    said = prune_checkpoints(dry_run=True)
    assert names(work) == before
    assert "would delete  work/train-7-0123456789abcdef  1.0 MB: of other params" in said
    assert "would delete 3.0 MB" in said
    assert status.asked


def test_finished_training_is_deleted(work: Path, status: Finished) -> None:
    status.stdout = json.dumps({"finetune": ["changed"]})
    assert "train@0 is finished" in prune_checkpoints()
    assert {name.split("-")[0] for name in present(work)} == {"finetune"}


@pytest.mark.parametrize(("stdout", "returncode"), [("", 1), ("{}", 255), ("no json", 0)])
def test_training_is_kept_where_dvc_cannot_tell(
    stdout: str, returncode: int, work: Path, status: Finished
) -> None:
    status.stdout, status.returncode = stdout, returncode
    prune_checkpoints()
    assert len(present(work)) == 2


def test_training_whose_inputs_are_not_here_is_kept(work: Path, status: Finished) -> None:
    Path("models/folds/fold-0.safetensors").unlink()
    said = prune_checkpoints()
    assert sum(name.startswith("finetune") for name in names(work)) == 2
    assert "inputs of its stage are not here" in said
    assert status.asked == ["train@0"]


@pytest.mark.usefixtures("status")
def test_all_deletes_all_checkpoints_and_nothing_else(work: Path) -> None:
    said = prune_checkpoints(everything=True)
    assert names(work) == OTHERS
    assert "as asked for by --all" in said


@pytest.mark.parametrize("everything", [False, True])
def test_checkpoints_that_a_process_holds_are_kept(
    everything: bool, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_pruning, "_list_unfinished", set)
    held = work / "train-0-0123456789abcdef"
    with held_by_another_process(held):
        said = prune_checkpoints(everything=everything)
        assert (held / "checkpoint.pt").exists()
        assert not (work / "train-7-0123456789abcdef").exists()
    assert f"kept  {held.relative_to(work.parent)}  1.0 MB: a process is training there" in said
    prune_checkpoints(everything=everything)
    assert not held.exists()


def test_scratch_of_the_main_checkout_is_pruned(
    work: Path, tmp_path: Path, status: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    work.rename(tmp_path / "elsewhere/work")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "elsewhere"))
    prune_checkpoints()
    assert not STALE & names(tmp_path / "elsewhere/work")
    assert status.asked


def test_no_scratch_is_nothing_to_delete(work: Path, tmp_path: Path, status: Finished) -> None:
    work.rename(tmp_path / "other")
    assert prune_checkpoints() == "deleted 0.0 MB"
    assert not status.asked


def test_folder_without_pipeline_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParamsError, match=r"expected the file params\.yaml"):
        prune_checkpoints()


@pytest.mark.parametrize("stage", ["train", "finetune"])
def test_scripts_name_their_folders_as_expected_here(stage: str) -> None:
    fold = "-{fold}" if stage == "train" else ""
    expected = f"{stage}{fold}-{{inputs.digest}}"
    assert f'scratch_folder(f"{expected}")' in (ROOT / f"src/{stage}.py").read_text()
