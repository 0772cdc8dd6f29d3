"""Commands as users run them: on the wrong path, a full disk, in another encoding, into `head`."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from waiting import PATIENCE_S

SCORES = {"chip_rmse": 30.0, "pooled_rmse": 33.0, "mae": 20.0, "bias": -1.5, "r2": 0.5}
CLOSED_PIPE = 141
"""As shells tell of a program that SIGPIPE ended."""


def run(folder: Path, *command: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run a command in a folder."""
    # Unbuffered, argparse passes over what its printing meets.
    environment = {**os.environ, "PYTHONUNBUFFERED": "", **options.pop("environment", {})}
    return subprocess.run(
        [sys.executable, "-m", "biomassters", *command],
        cwd=folder,
        env=environment,
        stdout=options.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        timeout=PATIENCE_S,
        check=False,
    )


def write_evaluation(folder: Path, text: str | None = None) -> Path:
    scores = {"fold_0": {"model": SCORES, "baseline": {**SCORES, "chip_rmse": 40.0}}}
    path = folder / "metrics/evaluation.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"validation": scores}) if text is None else text)
    return path


@pytest.mark.parametrize(
    ("environment", "unit"),
    [
        ({"PYTHONIOENCODING": "ascii"}, "R2"),
        ({"PYTHONIOENCODING": "utf-8"}, "R²"),
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "R2"),
    ],
)
def test_summary_is_printed_in_any_encoding(
    environment: dict[str, str], unit: str, tmp_path: Path
) -> None:
    write_evaluation(tmp_path)
    unset = {"PYTHONIOENCODING": "", "PYTHONUTF8": ""}
    done = run(tmp_path, "summary", environment={**unset, **environment})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"t/ha ({unit} has no unit)")


def test_output_that_nobody_reads_ends_a_command_without_a_word(tmp_path: Path) -> None:
    write_evaluation(tmp_path)
    for command in (["summary"], ["--help"]):
        reader, writer = os.pipe()
        os.close(reader)
        done = run(tmp_path, *command, stdout=writer)
        os.close(writer)
        assert (done.returncode, done.stderr) == (CLOSED_PIPE, "")


def test_full_disk_is_told_in_one_line(tmp_path: Path) -> None:
    write_evaluation(tmp_path)
    with Path("/dev/full").open("w") as full:
        done = run(tmp_path, "summary", stdout=full)
    assert done.returncode == 1
    assert done.stderr.startswith("error: expected room on the disk, got none left")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "where"),
    [
        (["summary"], "metrics/evaluation.json"),
        (["import-weights", "folder", "a.safetensors"], "folder"),
        (["import-weights", "file", "file/a.safetensors"], "file"),
        (["audit-catalogue", "file"], "file"),
        (["use-catalogue", "file"], "file"),
        (["simulate", "file", "--chips", "1"], "file"),
        (["simulate", "file/new", "--chips", "1"], "file"),
    ],
)
def test_folder_for_a_file_or_a_file_for_a_folder_is_told_in_one_line(
    command: list[str], where: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "folder").mkdir()
    (tmp_path / "dvc.yaml").write_text("stages: {}")
    (tmp_path / "metrics/evaluation.json").mkdir(parents=True)
    done = run(tmp_path, *command)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: expected ")
    assert where in done.stderr
    assert done.stderr.count("\n") == 1
    assert (tmp_path / "file").read_text() == "text"


def test_what_may_not_be_read_or_written_is_told_in_one_line(tmp_path: Path) -> None:
    evaluation = write_evaluation(tmp_path)
    evaluation.chmod(0)
    (tmp_path / "locked").mkdir(mode=0o500)
    if os.access(evaluation, os.R_OK):
        pytest.skip("this user, such as root, may read and write everything")
    for command in (["summary"], ["simulate", "locked/new", "--chips", "1"]):
        done = run(tmp_path, *command)
        assert done.returncode == 1
        assert done.stderr.startswith("error: expected ")
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"validation": {"fold_0": {"model": {}}}}'])
def test_damaged_evaluation_is_told_in_one_line(text: str, tmp_path: Path) -> None:
    from biomassters.commands.summary import summarise
    from biomassters.errors import BiomasstersError

    path = write_evaluation(tmp_path, text)
    with pytest.raises(BiomasstersError, match=r"got others \(.*run `dvc repro` again") as caught:
        summarise(path.parent)
    assert "\n" not in str(caught.value)
