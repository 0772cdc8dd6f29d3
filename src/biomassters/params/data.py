"""Section `data`: where the chips come from."""

from typing import Final, Literal

from pydantic import Field

from biomassters.params.section import Section

CHIP_SIZE_STEP: Final = 32
"""A chip's side is a multiple of it: the encoder halves it five times."""


class DataParams(Section):
    """Where the chips come from, and their size.

    Attributes:
        source: `synthetic` simulates every file of the catalogue; `folder` reads the official
            layout from the directory that the environment variable BIOMASSTERS_FOLDER names.
        chip_size: Side of a chip, pixels; a multiple of 32.
    """

    source: Literal["synthetic", "folder"]
    chip_size: int = Field(gt=0, multiple_of=CHIP_SIZE_STEP)
