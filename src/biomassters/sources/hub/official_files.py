"""What the published archives of the BioMassters data are called, and what each holds.

Knows names alone; knows nothing of where the archives are and how they are read.
"""

import re
from collections.abc import Mapping
from typing import Final

HUB_REPOSITORY: Final = "nascetti-a/BioMassters"
"""The dataset repository on the Hugging Face hub; its owner is the first author of the data."""

ARCHIVE_STEMS: Final[Mapping[str, str]] = {
    "train_features": "train_features",
    "test_features": "test_features_splits",
    "train_agbm": "train_agbm",
    "test_agbm": "test_agbm",
}
"""How the archives that hold each official folder begin.

Source: the files of `HUB_REPOSITORY`.
"""

_STEM_FOLDERS: Final = {stem: folder for folder, stem in ARCHIVE_STEMS.items()}
_ARCHIVE: Final = re.compile(r"(\w+)\.(?:zip|z\d{2,}|tar)", re.ASCII)


def find_held_folder(filename: str) -> str | None:
    """Return the official folder whose files an archive, or a part of one, holds.

    Args:
        filename: Its name without a folder, such as `test_features_splits.z01`.

    Returns:
        Such as `test_features`; None for any other file.
    """
    match = _ARCHIVE.fullmatch(filename)
    return _STEM_FOLDERS.get(match[1]) if match else None
