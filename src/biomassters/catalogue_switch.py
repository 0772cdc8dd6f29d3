"""Making another catalogue the pipeline's `data/`."""

import shutil
import subprocess
from pathlib import Path

from biomassters.catalogue import read_catalogue
from biomassters.errors import CatalogueError

DATA = Path("data")
DATA_DVC = Path("data.dvc")


def switch_catalogue(folder: Path) -> str:
    """Check a catalogue, put it in the place of `data/`, and let DVC track it.

    A folder inside the repository is imported, so that a fresh clone finds it without a remote;
    any other is copied and added, and travels with `dvc push`.

    Args:
        folder: Holds features_metadata.csv, train_agbm_metadata.csv and, where test targets are
            known, test_agbm_metadata.csv.

    Returns:
        What was done, for people.

    Raises:
        CatalogueError: The folder is no valid catalogue, or the current directory is no pipeline.
    """
    if not Path("dvc.yaml").exists():
        raise CatalogueError(f"expected dvc.yaml in {Path.cwd()}, got none; run in the repository")
    catalogue = read_catalogue(folder)
    source = folder.resolve()
    inside = source.is_relative_to(Path.cwd().resolve())
    if source == DATA.resolve():
        raise CatalogueError("expected a folder other than data/, which the pipeline writes itself")
    shutil.rmtree(DATA, ignore_errors=True)
    DATA_DVC.unlink(missing_ok=True)
    if inside:
        _dvc("import-url", str(source.relative_to(Path.cwd().resolve())), str(DATA))
        _dvc("unfreeze", str(DATA_DVC))
    else:
        DATA.mkdir()
        for path in sorted(source.glob("*_metadata.csv")):
            shutil.copyfile(path, DATA / path.name)
        _dvc("add", str(DATA))
    counts = ", ".join(f"{len(catalogue.chips(split))} {split}" for split in ("train", "test"))
    return (
        f"data/ is now {folder} ({counts} chips); git add data.dvc, and see `data` in params.yaml"
    )


def _dvc(*arguments: str) -> None:
    subprocess.run(["dvc", *arguments, "--quiet"], check=True)  # noqa: S603, S607
