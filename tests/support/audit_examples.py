"""Chips for the tests of the audit: sound ones, in which a test plants its defects."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from example_chips import read_real_files, read_real_record

from biomassters.packing.decoding import decode_chip
from biomassters.packing.staging import gather_facts
from biomassters.store.bands import CLP, N_MONTHS, N_S1, N_S2
from biomassters.store.chips import Chip, ChipStore
from biomassters.store.layout import FACTS, ROOT_ATTRIBUTES
from biomassters.store.zarr_files import write_array, write_group

SIDE = 32
PIXELS = SIDE**2


def make_chip(chip_id: str = "0003d2eb", *, target: bool = True) -> Chip:
    """Return a chip of 32 pixels without any defect."""
    random = np.random.default_rng(list(chip_id.encode()))
    side = (SIDE, SIDE)
    s2 = random.integers(100, 3000, (N_MONTHS, N_S2, *side)).astype(np.uint16)
    s2[:, CLP] = random.integers(0, 51, (N_MONTHS, *side))
    return Chip(
        chip_id,
        random.integers(-2500, -500, (N_MONTHS, N_S1, *side)).astype(np.int16),
        s2,
        np.ones(N_MONTHS, bool),
        random.uniform(0, 399, side).astype(np.float32) if target else None,
    )


@cache
def decode_real_chip(shared_folder: Path, chip_id: str) -> Chip:
    """Return a real chip, which is not to be modified."""
    files = read_real_files(shared_folder, chip_id)
    chip = decode_chip(read_real_record(shared_folder, chip_id), files, 256)
    assert isinstance(chip, Chip), "it has bad files"
    return chip


def remove_s2(chip: Chip, *months: int) -> None:
    """Make months of S2 absent."""
    chip.s2_present[list(months)] = False
    chip.s2[list(months)] = 0


def write_facts(path: Path, chips: Sequence[Chip], *, chip_size: int = SIDE) -> ChipStore:
    """Write a store that has the facts of chips, which is all that the audit reads of one."""
    path.mkdir(parents=True)
    facts = [{**gather_facts(chip), "fingerprint": ""} for chip in chips]
    for layout in FACTS:
        write_array(path, layout, np.array([fact[layout.name] for fact in facts]))
    has_targets = any(chip.agbm is not None for chip in chips)
    attributes = {"chip_size": chip_size, "has_targets": has_targets, "content_id": ""}
    write_group(path, {**ROOT_ATTRIBUTES, **attributes})
    return ChipStore.open(path)
