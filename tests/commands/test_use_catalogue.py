import gzip
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from example_chips import hash_folder
from workspace import Workspace, copy_repository

from biomassters.commands import use_catalogue as catalogue_switch
from biomassters.commands.use_catalogue import switch_catalogue
from biomassters.dataset.catalogue import read_catalogue
from biomassters.errors import CatalogueError
from biomassters.params.reading import read_document
from biomassters.simulator.official_files import write_catalogue, write_dataset
from repository_copy import SRC

INSIDE = Path("src/catalogue/synthetic")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A copy of the repository as the current directory, with its data/."""
    workspace = copy_repository(tmp_path / "repository")
    monkeypatch.chdir(workspace.folder)
    # Elsewhere it is not set, and DVC starts in a second rather than in four.
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    shutil.copytree(INSIDE, "data")
    return workspace


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A catalogue outside the repository."""
    write_catalogue(tmp_path / "other", n_train=3, n_test=1, chip_size=32)
    return tmp_path / "other"


def read_state() -> tuple[str, str, list[str]]:
    """What a failed switch must not change."""
    names = sorted(path.name for path in Path().iterdir())
    return hash_folder(Path("data")), Path("data.dvc").read_text(), names


def fail_at(call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let DVC write as it does, until a call fails."""
    calls = []

    def run_dvc(*arguments: str) -> None:
        calls.append(arguments)
        Path("data").mkdir(exist_ok=True)
        Path("data.dvc").write_text("outs: []\n")
        if len(calls) == call:
            raise CatalogueError("expected DVC to work, got no space")

    monkeypatch.setattr(catalogue_switch, "_dvc", run_dvc)


def test_switching_away_and_back_gives_the_committed_data_dvc(
    workspace: Workspace, other: Path
) -> None:
    committed = Path("data.dvc").read_text()
    data = hash_folder(Path("data"))
    assert "3 train, 1 test" in switch_catalogue(other)
    assert hash_folder(Path("data")) == hash_folder(other)
    added = read_document(Path("data.dvc"))
    assert set(added) == {"outs"}
    switch_catalogue(INSIDE)
    assert hash_folder(Path("data")) == data
    imported = read_document(Path("data.dvc"))
    assert imported["deps"][0]["path"] == str(INSIDE)
    assert "frozen" not in imported
    assert Path("data.dvc").read_text() == committed
    assert workspace.run("git", "status", "--porcelain", "data.dvc.previous").stdout == ""


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize("call", [1, 2])
def test_failing_dvc_leaves_the_old_catalogue(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    before = read_state()
    fail_at(call, monkeypatch)
    with pytest.raises(CatalogueError, match="no space"):
        switch_catalogue(INSIDE)
    assert read_state() == before


@pytest.mark.usefixtures("workspace")
def test_killed_switch_is_mended_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_state()
    Path("data").rename("data.previous")
    Path("data.dvc").rename("data.dvc.previous")
    Path("data").mkdir()
    fail_at(1, monkeypatch)
    with pytest.raises(CatalogueError, match="no space"):
        switch_catalogue(INSIDE)
    assert read_state() == before


@pytest.mark.usefixtures("workspace")
def test_message_of_dvc_is_one_line(other: Path) -> None:
    before = read_state()
    shutil.rmtree(".dvc")
    with pytest.raises(CatalogueError, match=r"`dvc add data` to work, got .*; mend") as caught:
        switch_catalogue(other)
    assert "\n" not in str(caught.value)
    assert read_state() == (*before[:2], [name for name in before[2] if name != ".dvc"])


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize(
    ("drop", "message"),
    [("_S1_03.tif", "expected an S1 file of chip"), (".tif", "expected at least one row")],
)
def test_invalid_catalogue_leaves_data_untouched(other: Path, drop: str, message: str) -> None:
    before = read_state()
    (other / "test_agbm_metadata.csv").unlink()
    table = other / "features_metadata.csv"
    rows = table.read_text().splitlines(keepends=True)
    table.write_text("".join(row for row in rows if drop not in row))
    with pytest.raises(CatalogueError, match=message):
        switch_catalogue(other)
    assert read_state() == before


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize("folder", ["data", "data/mine"])
def test_folder_in_data_is_refused(folder: str) -> None:
    shutil.copytree(INSIDE, folder, dirs_exist_ok=True)
    before = read_state()
    with pytest.raises(CatalogueError, match="expected a folder outside data/"):
        switch_catalogue(Path(folder))
    assert read_state() == before


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize(
    ("split", "left", "consequence"),
    [
        ("train", "1 train, 0 test", "without test chips nothing is predicted"),
        ("test", "0 train, 1 test", r"nothing is trained: .*predict\.models to imported"),
    ],
)
def test_catalogue_of_one_split_is_taken_and_its_consequence_said(
    split: str, left: str, consequence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    counts = {"n_train": 0, "n_test": 0, f"n_{split}": 1}
    write_catalogue(other, **counts, chip_size=32)
    monkeypatch.setattr(catalogue_switch, "_dvc", lambda *_: None)
    said = switch_catalogue(other)
    assert left in said
    assert re.search(consequence, said)
    assert hash_folder(Path("data")) == hash_folder(other)


@pytest.mark.usefixtures("workspace")
def test_catalogue_of_another_home_gets_the_official_names(
    other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = {path.name: path.read_bytes() for path in other.iterdir()}
    (other / "features_metadata.csv").rename(other / "biomassters_features_metadata.csv")
    targets = other / "train_agbm_metadata.csv"
    (other / "The_BioMassters_-_train_agbm_metadata.csv.csv.gz").write_bytes(
        gzip.compress(targets.read_bytes())
    )
    targets.unlink()
    monkeypatch.setattr(catalogue_switch, "_dvc", lambda *_: None)
    assert "3 train, 1 test" in switch_catalogue(other)
    assert {path.name: path.read_bytes() for path in Path("data").iterdir()} == sound


@pytest.mark.usefixtures("workspace")
def test_of_a_folder_with_chips_only_the_catalogue_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_dataset(Path("work/simulated"), n_train=1, n_test=1, chip_size=32)
    monkeypatch.setattr(catalogue_switch, "_dvc", lambda *_: None)
    switch_catalogue(Path("work/simulated"))
    assert sorted(path.name for path in Path("data").iterdir()) == [
        "features_metadata.csv",
        "test_agbm_metadata.csv",
        "train_agbm_metadata.csv",
    ]


def test_only_a_pipeline_is_switched(other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(other)
    with pytest.raises(CatalogueError, match=r"expected dvc\.yaml in .*run in the repository"):
        switch_catalogue(other)


def run_command(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "biomassters", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_command_simulate_writes_official_files(tmp_path: Path) -> None:
    arguments = ("--chips", "2", "--test-chips", "1", "--chip-size", "32")
    done = run_command(tmp_path, "simulate", "made", *arguments)
    assert done.returncode == 0, done.stderr
    catalogue = read_catalogue(tmp_path / "made")
    assert [len(catalogue.chips(split)) for split in ("train", "test")] == [2, 1]
    for split in ("train", "test"):
        for chip in catalogue.chips(split):
            for record in filter(None, (*chip.s1, *chip.s2, chip.agbm)):
                path = tmp_path / "made" / record.folder / record.filename
                assert path.stat().st_size == record.size
    again = run_command(tmp_path, "simulate", "made", *arguments)
    assert again.returncode == 1
    assert again.stderr.startswith("error: expected a new or empty folder")
    assert again.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("simulate", "x", "--chips=0", "--test-chips=0"), "error: expected train or test chips"),
        (("simulate", "x", "--chips=-1"), "error: expected train or test chips, one at least"),
        (("simulate", "x", "--chip-size=40"), "error: expected train or test chips, one at least"),
        (("summary",), "error: expected metrics/evaluation.json, got none"),
        (("use-catalogue", "made"), "error: expected dvc.yaml"),
    ],
)
def test_command_that_cannot_work_says_so_in_one_line(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = run_command(tmp_path, *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
