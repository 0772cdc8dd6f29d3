"""A run that left nothing but its stores, as the report reads it."""

from pathlib import Path
from typing import Any

from biomassters.params.reading import read_document, read_params
from biomassters.params.whole import Params
from biomassters.report.page import Run
from biomassters.store.chips import ChipStore
from repository_copy import ROOT


def make_run(folder: Path, store: ChipStore, **changes: Any) -> Run:
    """Return it, with changes."""
    defaults = {
        "params": read_params(Params, ROOT / "params.yaml"),
        "winner": read_document(ROOT / "presets/winner.yaml"),
        "metrics": folder,
        "predictions": folder,
        "validation": folder,
        "stores": {"train": store, "test": store},
    }
    return Run(**{**defaults, **changes})
