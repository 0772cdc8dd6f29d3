"""Section `data`: where the chips come from, and which of them."""

from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from biomassters.params.section import Section

CHIP_SIZE_STEP: Final = 32
"""A chip's side is a multiple of it: the encoder halves it five times."""


class SubsetParams(Section):
    """Which chips of the catalogue are used, to try the real thing in an hour; all by default.

    At most one of `first`, `fraction` and `chip_ids` may say so; each split is cut by itself.

    Attributes:
        first: This many of each split, by chip id; null = all.
        fraction: This share of each split, drawn at random, at least one chip; 1.0 = all.
        seed: Seed of that draw.
        chip_ids: These alone; empty = all.
    """

    first: Annotated[int, Field(ge=1)] | None
    fraction: float = Field(gt=0, le=1)
    seed: int = Field(ge=0, lt=2**32)
    chip_ids: tuple[str, ...]

    @model_validator(mode="after")
    def _check_one_rule(self) -> "SubsetParams":
        rules = (self.first is not None, self.fraction < 1, bool(self.chip_ids))
        if sum(rules) > 1:
            raise ValueError(
                "data.subset: expected at most one of first, fraction and chip_ids, got"
                f" first = {self.first}, fraction = {self.fraction:g} and"
                f" {len(self.chip_ids)} chip_ids"
            )
        return self


ALL_CHIPS: Final = SubsetParams(first=None, fraction=1.0, seed=0, chip_ids=())


class DataParams(Section):
    """Where the chips come from, and their size.

    Attributes:
        source: `synthetic` simulates every file of the catalogue; `folder` reads the official
            layout, and `archives` the official zips and tars, from the directory that the
            environment variable BIOMASSTERS_FOLDER names; `s3` reads the public buckets, or a
            mirror; `hub` downloads the archives from the Hugging Face hub.
        chip_size: Side of a chip, pixels; a multiple of 32.
        on_bad_chip: What to do when a chip's file cannot be had or fails its verification:
            `fail` fetches the others and then ends with an error, `skip` leaves the chip out.
        subset: Which chips of the catalogue are used.
    """

    source: Literal["synthetic", "folder", "archives", "s3", "hub"]
    chip_size: int = Field(gt=0, multiple_of=CHIP_SIZE_STEP)
    on_bad_chip: Literal["fail", "skip"]
    subset: SubsetParams
