"""The errors that a user can cause.

Each message is one line: *expected X, got Y, at WHERE; do Z*, where WHERE is a chip id, a path or
a key of params.yaml. A script prints it without a traceback and exits with code 1.
"""

from collections.abc import Collection


def name_few(names: Collection[str], most: int = 5) -> str:
    """Return the first names of many, for a message, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


class BiomasstersError(Exception):
    """Any condition that the user, not the programmer, can mend."""


class ParamsError(BiomasstersError):
    """params.yaml does not follow its schema."""


class CatalogueError(BiomasstersError):
    """A catalogue contradicts itself or the official layout."""


class SourceError(BiomasstersError):
    """The place that chips come from cannot be used at all."""


class ChipDataError(BiomasstersError):
    """A chip's file is missing, fails its verification or is not what its name says."""


class StoreError(BiomasstersError):
    """A chip store is missing, incomplete or of another format."""


class SceneError(BiomasstersError):
    """A scene is not described as it must be, or is no scene that a model can map."""


class UnreadableRasterError(SceneError):
    """A raster of a scene cannot be read: now, or at all."""


class ModelError(BiomasstersError):
    """Weights or a backbone cannot be used as asked."""


class TrainingError(BiomasstersError):
    """Training cannot go on."""


class SourceCodeError(BiomasstersError):
    """A source of this project is not Python, or imports one that is not there."""


class ChangedInputsError(BiomasstersError):
    """What a stage read is not what DVC would record that it read."""


class BusyError(BiomasstersError):
    """Another process does the same work already."""
