"""Section `split`: how the train chips are divided into folds."""

from typing import Literal

from pydantic import Field

from biomassters.params.section import Section


class SplitParams(Section):
    """How the train chips are divided into folds.

    Attributes:
        method: `random` is the winner's; `stratified` balances the chips' mean biomass.
        n_folds: Number of folds.
        seed: Seed of the division.
    """

    method: Literal["random", "stratified"]
    n_folds: int = Field(ge=2)
    seed: int = Field(ge=0, lt=2**32)
