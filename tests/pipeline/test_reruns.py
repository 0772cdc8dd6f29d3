"""What reruns for which change, as DVC sees it: of sources, params and data; and why, by name.

docs/reruns.md tells users of it.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from reruns import (
    AFTER_FETCHING,
    AFTER_STATISTICS,
    AFTER_TRAINING,
    ALL,
    FINGERPRINT,
    MAPS,
    NOTHING,
    TRAINING,
    kept,
    list_stages_run,
    list_stages_to_run,
    write_fingerprints,
)
from source_edits import COSMETIC, MEANING
from workspace import Workspace


@pytest.mark.parametrize(
    ("kind", "what"), [*(("cosmetic", k) for k in COSMETIC), *(("meaning", k) for k in MEANING)]
)
def test_changed_source_reruns_exactly(pipeline: Workspace, kind: str, what: str) -> None:
    edit = (COSMETIC if kind == "cosmetic" else MEANING)[what]
    path = pipeline.folder / "src" / edit.file
    with kept(path, *(pipeline.folder / "fingerprints").iterdir()):
        text = path.read_text()
        assert edit.old in text
        path.write_text(text.replace(edit.old, edit.new, 1 if edit.old in ("", "\n\n") else -1))
        write_fingerprints(pipeline)
        assert list_stages_to_run(pipeline) == {FINGERPRINT, *edit.stages.split()}


NEW_FILES = [
    "src/biomassters/training/unused.py",
    "src/notes.py",
    "src/biomassters/training/losses_old.py",
    "src/biomassters/extras/__init__.py",
]
LITTER = [
    "src/biomassters/training/.losses.py.swp",
    "src/biomassters/training/losses.py~",
    "src/biomassters/training/#losses.py#",
    "src/biomassters/.ipynb_checkpoints/losses-checkpoint.py",
    "src/biomassters/training/__pycache__/losses.cpython-311.pyc",
    "README.md",
    "tests/pipeline/test_new.py",
    "docs/new.md",
]


@pytest.mark.parametrize("name", NEW_FILES)
def test_new_file_that_nobody_imports_runs_the_fingerprint_alone(
    pipeline: Workspace, name: str
) -> None:
    path = pipeline.folder / name
    with kept(path, *(pipeline.folder / "fingerprints").iterdir()):
        path.parent.mkdir(exist_ok=True)
        path.write_text("x = 1\n")
        write_fingerprints(pipeline)
        assert list_stages_to_run(pipeline) == {FINGERPRINT}


def test_deleted_file_that_no_stage_imports_runs_the_fingerprint_alone(pipeline: Workspace) -> None:
    path = pipeline.folder / "src/biomassters/commands/compare.py"
    with kept(path, *(pipeline.folder / "fingerprints").iterdir()):
        path.unlink()
        write_fingerprints(pipeline)
        assert list_stages_to_run(pipeline) == {FINGERPRINT}


@pytest.mark.parametrize("name", LITTER)
def test_litter_and_what_is_no_source_run_nothing(pipeline: Workspace, name: str) -> None:
    path = pipeline.folder / name
    with kept(path):
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("x = 1\n")
        assert list_stages_to_run(pipeline) == set()


PARAMS: list[tuple[dict[str, Any], str]] = [
    ({"lr": 1e-5}, TRAINING),
    ({"seed": 1}, TRAINING),
    ({"folds": [0, 1]}, f"train@1 calibrate baselines {MAPS}"),
    ({"data.chip_size": 64}, ALL),
    ({"cleaning": "winner"}, AFTER_FETCHING),
    ({"split.seed": 1}, f"{TRAINING} baselines"),
    ({"split.method": "stratified"}, f"{TRAINING} baselines"),
    ({"statistics.source": "published", "model.normalisation": "minmax"}, AFTER_STATISTICS),
    ({"model.backbone": "mobilenetv3_small_075"}, TRAINING),
    ({"augmentation.rotation_p": 0.7}, TRAINING),
    ({"optimisation.batch_size": 3}, TRAINING),
    ({"train.epochs": 3}, TRAINING),
    ({"finetune.lr": 1e-5}, AFTER_TRAINING),
    ({"calibration.level": 0.6}, f"calibrate {MAPS}"),
    ({"predict.calibration": "presets/uncalibrated.json"}, f"{MAPS} robustness"),
    ({"predict.tta": "none"}, f"{MAPS} robustness"),
    ({"predict.clamp": False}, f"{MAPS} robustness"),
    ({"predict.models": "folds"}, f"{MAPS} robustness"),
    ({"map.overlap": 0.5}, "map@lakeland report"),
    ({"baselines.max_iter": 5}, "baselines evaluate report"),
    ({"robustness.conditions": ["no_clp"]}, "robustness report"),
]


@pytest.mark.parametrize(("change", "stages"), PARAMS, ids=str)
def test_changed_param_reruns_exactly(
    pipeline: Workspace, change: dict[str, Any], stages: str
) -> None:
    with kept(pipeline.folder / "params.yaml"):
        pipeline.set_params(change)
        assert list_stages_to_run(pipeline) == set(stages.split())


def rewrite_with_comments(path: Path) -> None:
    path.write_text("# All that an experiment may change.\n" + path.read_text())


def reverse_sections(path: Path) -> None:
    path.write_text("\n\n".join(reversed(path.read_text().split("\n\n"))))


def touch(path: Path) -> None:
    os.utime(path)


def copy_in_place(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)


def add_a_space(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data + b" ")


STORE = "chips/train.zarr"


DATA: list[tuple[str, Callable[[Path], None], str]] = [
    ("params.yaml", rewrite_with_comments, NOTHING),
    ("params.yaml", reverse_sections, NOTHING),
    ("statistics.json", touch, NOTHING),
    ("statistics.json", copy_in_place, NOTHING),
    (f"{STORE}/zarr.json", touch, NOTHING),
    (f"{STORE}/zarr.json", copy_in_place, NOTHING),
    ("statistics.json", add_a_space, AFTER_STATISTICS),
    (f"{STORE}/zarr.json", add_a_space, f"fetch@train {AFTER_FETCHING}"),
    (
        "chips/test.zarr/zarr.json",
        add_a_space,
        "fetch@test predict baselines robustness evaluate report",
    ),
    ("models/folds/fold-0.safetensors", add_a_space, TRAINING),
    ("scenes/lakeland.yaml", rewrite_with_comments, "map@lakeland report"),
    ("models/final/final.safetensors", add_a_space, AFTER_TRAINING),
]


@pytest.mark.parametrize(
    ("file", "edit", "stages"), DATA, ids=lambda value: getattr(value, "__name__", str(value))
)
def test_changed_data_reruns_exactly(
    pipeline: Workspace, file: str, edit: Callable[[Path], None], stages: str
) -> None:
    path = pipeline.folder / file
    with kept(path):
        edit(path)
        assert list_stages_to_run(pipeline) == set(stages.split())


def test_table_has_as_many_cosmetic_changes_as_changes_of_meaning() -> None:
    effects = [stages for _, _, stages in DATA]
    cosmetic = len(COSMETIC) + len(NEW_FILES) + len(LITTER) + effects.count(NOTHING)
    meaning = len(MEANING) + len(PARAMS) + len(effects) - effects.count(NOTHING)
    assert min(cosmetic, meaning) >= 35


def test_comment_runs_the_fingerprint_alone_and_then_nothing(workspace: Workspace) -> None:
    losses = workspace.folder / "src/biomassters/training/losses.py"
    losses.write_text(f"# A comment.\n{losses.read_text()}")
    assert list_stages_run(workspace.run("dvc", "repro").stdout) == {FINGERPRINT}
    assert "Data and pipelines are up to date." in workspace.run("dvc", "repro").stdout
    assert "train@0 is up to date" in workspace.run("python", "-m", "biomassters", "why").stdout


def test_experiment_runs_exactly_what_a_changed_meaning_needs(workspace: Workspace) -> None:
    """In a folder of its own, with the sources as they are here."""
    script = workspace.folder / "src/predict.py"
    script.write_text(script.read_text().replace("np.maximum(prediction, 0)", "prediction + 1"))
    why = workspace.run("python", "-m", "biomassters", "why", "predict").stdout
    assert "predict is out of date:\n  code    predict changed" in why
    result = workspace.run("dvc", "exp", "run", "--temp", "predict")
    assert list_stages_run(result.stdout) == {FINGERPRINT, "predict"}


def test_what_new_code_would_make_again_may_be_kept(workspace: Workspace) -> None:
    """As docs/reruns.md says."""
    script = workspace.folder / "src/biomassters/training/replicas.py"
    script.write_text(f"{script.read_text()}\nX = 1\n")
    workspace.run("dvc", "repro", FINGERPRINT)
    assert list_stages_to_run(workspace) == set(TRAINING.split())
    workspace.run("dvc", "commit", "--force", "train", "finetune")
    assert list_stages_to_run(workspace) == set()


def test_missing_module_ends_the_fingerprint_in_one_line(workspace: Workspace) -> None:
    (workspace.folder / "src/biomassters/training/losses.py").unlink()
    result = workspace.run("dvc", "repro", check=False)
    assert result.returncode != 0
    assert list_stages_run(result.stdout) == {FINGERPRINT}
    assert "error: expected the module biomassters.training.losses, which is imported" in (
        result.stderr
    )
    assert "Traceback" not in result.stderr


def test_passing_over_the_fingerprint_is_refused(workspace: Workspace) -> None:
    """`-s` looks at one stage alone: the fingerprint would be the one of other code."""
    script = workspace.folder / "src/predict.py"
    script.write_text(script.read_text().replace("np.maximum(prediction, 0)", "prediction + 0"))
    result = workspace.run("dvc", "repro", "-s", "--force", "predict", check=False)
    assert result.returncode != 0
    assert "got another meaning of the module predict; run `dvc repro predict`" in result.stderr
