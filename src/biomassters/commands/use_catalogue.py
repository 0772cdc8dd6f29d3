"""Making another catalogue the pipeline's `data/`."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from biomassters.commands.dvc_calls import DvcError, run_dvc
from biomassters.dataset.catalogue import read_catalogue
from biomassters.dataset.catalogue_files import (
    find_files,
    is_catalogue_file,
    name_file,
    open_table,
)
from biomassters.dataset.files import SPLITS, Split
from biomassters.errors import CatalogueError

DATA = Path("data")
DATA_DVC = Path("data.dvc")
PREVIOUS = ".previous"
"""What the name of an old file or folder ends with, while the new one is made."""

WITHOUT: Mapping[Split, str] = {
    "train": "without train chips nothing is trained: import weights, and set predict.models to"
    " imported (docs/winner.md)",
    "test": "without test chips nothing is predicted",
}
"""What it means that a split has no chips."""


def switch_catalogue(folder: Path) -> str:
    """Check a catalogue, put it in the place of `data/`, and let DVC track it.

    A folder inside the repository that holds nothing but catalogues is imported, so that a fresh
    clone finds it without a remote; of any other the catalogues are copied, decompressed and under
    their official names, and added: they travel with `dvc push`. Should that fail, `data/` and
    data.dvc are as before.

    Args:
        folder: Holds features_metadata.csv, train_agbm_metadata.csv and, where test targets are
            known, test_agbm_metadata.csv, or the same under the names of another home.

    Returns:
        What was done, for people.

    Raises:
        CatalogueError: The folder is no valid catalogue, the current directory is no pipeline, or
            DVC fails.
    """
    root, source = Path.cwd().resolve(), folder.resolve()
    if not Path("dvc.yaml").exists():
        raise CatalogueError(f"expected dvc.yaml in {root}, got none; run in the repository's root")
    refuse_data_folder(folder)
    catalogue = read_catalogue(folder)
    numbers = {split: len(catalogue.chips(split)) for split in SPLITS}
    counts = ", ".join(f"{number} {split}" for split, number in numbers.items())
    with _keep_on_failure(DATA, DATA_DVC):
        if source.is_relative_to(root) and _holds_only_catalogues(source):
            _dvc("import-url", str(source.relative_to(root)), str(DATA))
            _dvc("unfreeze", str(DATA_DVC))
        else:
            DATA.mkdir()
            for table, path in find_files(source).items():
                with open_table(path) as file, (DATA / name_file(table)).open("wb") as copy:
                    shutil.copyfileobj(file, copy)
            _dvc("add", str(DATA))
    return (
        f"data/ is now {folder} ({counts} chips); git add data.dvc, and see `data` in params.yaml"
        + "".join(f"\n{WITHOUT[split]}" for split in SPLITS if not numbers[split])
    )


def refuse_data_folder(folder: Path) -> None:
    """Refuse `data/`, and what lies in it.

    Raises:
        CatalogueError: The folder is such a one.
    """
    if folder.resolve().is_relative_to(DATA.resolve()):
        raise CatalogueError(
            f"expected a folder outside data/, which the pipeline writes itself, got {folder};"
            " copy it elsewhere"
        )


def _holds_only_catalogues(folder: Path) -> bool:
    return all(map(is_catalogue_file, folder.iterdir()))


@contextmanager
def _keep_on_failure(*paths: Path) -> Iterator[None]:
    """Move files and folders aside; put them back if what follows fails, even if it was killed."""
    asides = {path: path.with_name(path.name + PREVIOUS) for path in paths}
    for path, aside in asides.items():
        if aside.exists():  # an earlier switch was killed
            _remove(path)
            aside.rename(path)
        if path.exists():
            path.rename(aside)
    try:
        yield
    except BaseException:
        for path, aside in asides.items():
            _remove(path)
            if aside.exists():
                aside.rename(path)
        raise
    for aside in asides.values():
        _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _dvc(*arguments: str) -> None:
    try:
        run_dvc(*arguments, "--quiet")
    except DvcError as error:
        raise CatalogueError(
            f"expected `dvc {' '.join(arguments)}` to work, got {error.reason};"
            " mend that and repeat the command: data/ is as before"
        ) from None
