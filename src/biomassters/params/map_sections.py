"""The section `map` of params.yaml, and the scenes that are mapped."""

import re
from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from biomassters.errors import ParamsError
from biomassters.params.sections import CleaningName, PredictParams, Section, ViewsName

_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9_-]*"


def _check_name(name: str) -> str:
    if not re.fullmatch(_NAME, name):
        raise ValueError(
            f"maps: expected names of scenes, of letters, digits, - and _, got {name!r};"
            " write NAME for scenes/NAME.yaml"
        )
    return name


def _check_once(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError(f"maps: expected each scene once, got {', '.join(names)}")
    return names


SceneName = Annotated[str, AfterValidator(_check_name)]
SceneNames = Annotated[
    tuple[SceneName, ...], Field(min_length=1, strict=False), AfterValidator(_check_once)
]
"""At least one: DVC has no matrix of nothing."""


class ChipSize(Section, extra="ignore"):
    """The part of the section `data` that maps depend on.

    Attributes:
        chip_size: Side of a chip, pixels.
    """

    chip_size: int


def parse_scene(arguments: Sequence[str]) -> str:
    """Return the scene that a command line names.

    Raises:
        ParamsError: It names none, or several, or no scene could have that name.
    """
    if len(arguments) != 1 or not re.fullmatch(_NAME, arguments[0]):
        raise ParamsError(
            f"expected the name of a scene, got {' '.join(arguments) or 'nothing'!r}, at the"
            " command line; write NAME for scenes/NAME.yaml"
        )
    return arguments[0]


class MapParams(Section):
    """From a scene of any size to a map; all else is as the section `predict` says.

    Windows are of data.chip_size pixels, the size that the models were trained on.

    Attributes:
        overlap: Share of its side by which a window overlaps the next one; more of it costs time,
            and makes what is left of the windows' borders smoother.
        tta: The views whose predictions are averaged.
    """

    overlap: float = Field(ge=0, le=0.5)
    tta: ViewsName


class MappedParams(Section):
    """What a map depends on of params.yaml, whoever makes it.

    Attributes:
        cleaning: What is done to a window's values before.
        data: The size of its windows.
        predict: How they are predicted.
        map: What maps have beside that.
    """

    cleaning: CleaningName
    data: ChipSize
    predict: PredictParams
    map: MapParams
