"""The warning, and that what it says of DVC is so: tried in a checkout at such a path."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from workspace import Workspace, copy_repository

from biomassters.processes.cache_path import warn_of_cache_path

WORDS = "expected DVC's cache at a path of ASCII letters, got"


@pytest.fixture
def checkout(tmp_path: Path) -> Workspace:
    """A repository with one stage, `fingerprint`, at a path that is not ASCII, with a space."""
    workspace = copy_repository(tmp_path / "W\u00e4lder \u00e4" / "checkout")
    script = "from biomassters.processes.ending import run_script; run_script(lambda: None)"
    (workspace.folder / "stage.py").write_text(script)
    (workspace.folder / "dvc.yaml").write_text(
        "stages:\n  fingerprint:\n    cmd: python stage.py\n    deps: [stage.py]\n"
    )
    workspace.commit("One stage")
    return workspace


def test_experiments_of_their_own_need_a_cache_at_an_ascii_path(
    checkout: Workspace, tmp_path: Path
) -> None:
    assert WORDS in checkout.run("dvc", "repro").stderr
    checkout.commit("A run")
    failed = checkout.run("dvc", "exp", "run", "--temp", "--force", check=False)
    assert failed.returncode != 0
    assert "'ascii' codec can't encode" in failed.stderr

    checkout.run("dvc", "cache", "dir", "--local", str(tmp_path / "cache"))
    cured = checkout.run("dvc", "exp", "run", "--temp", "--force")
    assert WORDS not in cured.stderr
    assert "Ran experiment(s)" in cured.stdout


@pytest.mark.parametrize(
    ("folder", "stage", "is_told"),
    [
        ("W\u00e4lder", "fetch@train", True),
        ("W\u00e4lder", "train@0", False),
        ("a b", "fingerprint", False),
    ],
)
def test_first_stages_alone_tell_it(
    tmp_path: Path,
    folder: str,
    stage: str,
    is_told: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / folder)
    subprocess.run(["git", "init", "--quiet"], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], check=True)
    monkeypatch.setenv("DVC_STAGE", stage)
    with caplog.at_level(logging.WARNING):
        warn_of_cache_path()
    told = [record.message for record in caplog.records]
    assert [WORDS in line for line in told] == [True] * is_told
    assert not told or f"{os.sep}.dvc{os.sep}cache, with which" in told[0]
