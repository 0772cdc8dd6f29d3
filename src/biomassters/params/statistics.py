"""Section `statistics`: which band statistics normalise the inputs."""

from typing import Literal

from biomassters.params.section import Section


class StatisticsParams(Section):
    """Which band statistics normalise the inputs.

    Attributes:
        source: `computed` from the train chips; `published` are the winner's constants.
    """

    source: Literal["computed", "published"]
