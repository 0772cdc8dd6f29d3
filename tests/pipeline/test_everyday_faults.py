"""What the system refuses to a stage: one line with the place, and nothing half-written."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from forked_scripts import run_script
from workspace import Workspace


def put_file(path: Path) -> None:
    path.write_text("a file")


def put_folder(path: Path) -> None:
    path.mkdir()
    put_file(path / "in it")


def put_utf16(path: Path) -> None:
    path.write_text("lr: 0.001", encoding="utf-16")


def put_nothing(_: Path) -> None:
    pass


@contextmanager
def replaced(path: Path, put: Callable[[Path], None]) -> Iterator[None]:
    """Put something else in a path's place."""
    aside = path.with_name(f"{path.name}.aside")
    path.rename(aside)
    put(path)
    try:
        yield
    finally:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        aside.rename(path)


FOLDER = "expected a folder, got a file, at {}; move the file away"
FILE = "expected a file, got a folder, at {}; move the folder away"


@pytest.mark.parametrize(
    ("command", "place", "put", "told"),
    [
        ("fingerprint", "fingerprints", put_file, FOLDER),
        ("fingerprint", "dvc.yaml", put_folder, FILE),
        ("fetch train", "params.yaml", put_folder, FILE),
        ("fetch train", "params.yaml", put_utf16, "expected UTF-8 in {}, got another encoding"),
        ("fetch train", "data", put_file, "expected a folder that holds features_metadata.csv,"),
        ("fetch train", "chips", put_file, FOLDER),
        ("fetch train", "metrics/fetch", put_file, FOLDER),
        ("band_statistics", "statistics.json", put_folder, FILE),
        ("band_statistics", "metrics/band_statistics", put_file, FOLDER),
        ("train 0", "work", put_file, FOLDER),
        ("train 0", "models/folds", put_file, FOLDER),
        ("finetune", "models/final", put_file, FOLDER),
        ("predict", "predictions", put_file, FOLDER),
        ("evaluate", "metrics/evaluation", put_file, FOLDER),
        ("evaluate", "metrics/evaluation.json", put_folder, FILE),
        ("evaluate", "validation", put_nothing, "got none, at {}/fold-0; run `dvc repro`"),
    ],
)
def test_stage_says_what_is_in_its_way(
    pipeline: Workspace, command: str, place: str, put: Callable[[Path], None], told: str
) -> None:
    stage, *item = command.split()
    with replaced(pipeline.folder / place, put):
        result = run_script(
            pipeline.folder, f"src/{stage}.py", *item, environment=pipeline.environment
        )
        unfinished = list(pipeline.folder.rglob(".*.partial"))
    assert result.returncode == 1, result.stderr
    [line] = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert told.format(place) in line
    assert "Traceback" not in result.stderr
    assert unfinished == []
