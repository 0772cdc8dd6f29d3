"""The bands that params.yaml may name for a model, and which it may leave out for a trial."""

from collections import Counter
from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import BeforeValidator, Field

BandName: TypeAlias = Literal[
    "VV ascending",
    "VH ascending",
    "VV descending",
    "VH descending",
    "B2",
    "B3",
    "B4",
    "B5",
    "B6",
    "B7",
    "B8",
    "B8A",
    "B11",
    "B12",
    "CLP",
]
"""The bands of a chip, as `store.bands` names and orders them."""


ConditionName: TypeAlias = Literal[
    "no_s1", "no_s2", "no_ascending", "no_descending", "no_clp", "no_swir", "rgb_only"
]
"""What chips may be predicted without: a sensor, an orbit, the cloud probability, short-wave
infrared (B11, B12), or all but B4, B3 and B2."""


def _check_bands(value: object) -> object:
    """Refuse what is no choice of bands, in one line; a union's own complaints would be many."""
    if value == "all":
        return value
    if isinstance(value, list | tuple):
        known = get_args(BandName)
        unknown = [str(name) for name in value if name not in known]
        repeated = [str(name) for name, count in Counter(map(str, value)).items() if count > 1]
        if value and not unknown and not repeated:
            return tuple(value)
        got = (
            ", ".join(unknown)
            or ", ".join(f"{name} more than once" for name in repeated)
            or "an empty list"
        )
    else:
        got = repr(value)
    raise ValueError(
        "model.bands: expected all, or a list of some of these, each once:"
        f" {', '.join(get_args(BandName))}; got {got}"
    )


Bands: TypeAlias = Annotated[
    Literal["all"] | Annotated[tuple[BandName, ...], Field(strict=False)],
    BeforeValidator(_check_bands),
]
"""`all`, or some of the bands, in whatever order."""
