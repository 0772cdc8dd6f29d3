"""Which chips of a catalogue are used: the three rules of `data.subset` of params.yaml."""

import hashlib
from collections.abc import Sequence

from biomassters.dataset.catalogue import Catalogue
from biomassters.dataset.files import SPLITS, ChipRecord, Split
from biomassters.errors import ParamsError, name_few
from biomassters.params.sections import SubsetParams


def select_subset(catalogue: Catalogue, split: Split, subset: SubsetParams) -> list[ChipRecord]:
    """Return the chips of a split that are used, sorted by chip id.

    Law: with the same seed, a larger fraction has all chips of a smaller one; and chips added to
    the catalogue change nothing in the order in which the others are drawn.

    Returns:
        None of a split that the catalogue, or `data.subset.chip_ids`, has no chip of.

    Raises:
        ParamsError: A chip of `data.subset.chip_ids` is in neither split.
    """
    chips = catalogue.chips(split)
    if subset.chip_ids:
        return _select_by_id(catalogue, split, frozenset(subset.chip_ids))
    if subset.fraction < 1:
        return _draw(chips, subset.fraction, subset.seed)
    return chips[: subset.first]


def _select_by_id(catalogue: Catalogue, split: Split, wanted: frozenset[str]) -> list[ChipRecord]:
    chips = [chip for split in SPLITS for chip in catalogue.chips(split)]
    unknown = sorted(wanted - {chip.chip_id for chip in chips})
    if unknown:
        raise ParamsError(
            f"expected chips of the catalogue, got {name_few(unknown)}, at"
            f" params.yaml: data.subset.chip_ids; write ids of {catalogue.folder}, in quotes"
        )
    return [chip for chip in catalogue.chips(split) if chip.chip_id in wanted]


def _draw(chips: Sequence[ChipRecord], fraction: float, seed: int) -> list[ChipRecord]:
    """Return the chips with the lowest hashes, at least one of any."""

    def draw(chip: ChipRecord) -> bytes:
        return hashlib.sha256(f"{seed} {chip.chip_id}".encode()).digest()

    drawn = sorted(chips, key=draw)[: max(1, round(fraction * len(chips)))]
    return sorted(drawn, key=lambda chip: chip.chip_id)
