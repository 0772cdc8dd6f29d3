"""What `python -m biomassters why` tells of a real pipeline."""

import shutil
from pathlib import Path

from reruns import FINGERPRINT
from workspace import Workspace


def test_why_names_modules_params_and_inputs(workspace: Workspace) -> None:
    folder = workspace.folder
    losses = folder / "src/biomassters/training/losses.py"
    losses.write_text(losses.read_text().replace("1e-8", "1e-7"))
    shutil.copyfile(losses, folder / "src/biomassters/training/more_losses.py")
    engine = folder / "src/biomassters/training/engine.py"
    engine.write_text(f"import biomassters.training.more_losses\n{engine.read_text()}")
    counting = folder / "src/biomassters/statistics/counting.py"
    counting.write_text(counting.read_text() + "\nX = 1\n")
    workspace.set_params({"lr": 0.01, "train.epochs": 3})
    (folder / "models/last/fold-0.safetensors").unlink()
    lines = workspace.run("python", "-m", "biomassters", "why", "train").stdout.splitlines()
    assert lines == [
        "band_statistics is out of date:",
        "  code    biomassters.statistics.counting changed",
        "train@0 is out of date:",
        "  code    biomassters.training.engine changed",
        "  code    biomassters.training.losses changed",
        "  code    biomassters.training.more_losses added",
        "  param   lr: 0.001 → 0.01",
        "  param   train.epochs: 2 → 3",
        "  output  models/last/fold-0.safetensors deleted",
        "  input   of band_statistics, which is out of date itself",
    ]
    # It is still told after another fingerprint was made, and the training has not ended.
    workspace.run("dvc", "repro", FINGERPRINT)
    again = workspace.run("python", "-m", "biomassters", "why", "train").stdout
    assert "biomassters.training.losses changed" in again


def test_why_tells_that_packages_differ_and_that_nothing_reruns_for_it(
    workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "torch-9.9.dist-info").mkdir()
    (tmp_path / "torch-9.9.dist-info/METADATA").write_text("Name: torch\nVersion: 9.9\n")
    result = workspace.run(
        *("env", f"PYTHONPATH={tmp_path}:{workspace.folder / 'src'}"),
        *("python", "-m", "biomassters", "why", "finetune"),
    )
    lines = result.stdout.splitlines()
    assert lines[0] == "finetune is up to date"
    assert any(
        line.startswith("models/final/final.safetensors was made by other packages, which reruns")
        and "torch 2." in line
        and "→ 9.9" in line
        for line in lines
    )


def test_why_of_no_stage_names_those_there_are(workspace: Workspace) -> None:
    result = workspace.run("python", "-m", "biomassters", "why", "trian", check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("error: expected a stage (fetch@test, fetch@train, band_stat")
    assert result.stderr.count("\n") == 1
