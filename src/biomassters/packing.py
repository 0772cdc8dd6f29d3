"""From a source to a chip store: each chip is fetched once, however often the work is killed.

Knows how a store is assembled and put in its place; knows nothing of where files come from.

Each fetched chip is staged in scratch as its chunk files, which are those of the finished store.
When all are there, the store is assembled beside its place from hard links, and renamed into it.
A chip's fingerprint says what it was made from: a chip with the same fingerprint in the old store
or in scratch is taken from there, and its files, which DVC's cache may share, are never written.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from biomassters.bands import MONTHS, S1_BANDS
from biomassters.catalogue import ChipRecord
from biomassters.chips import (
    AGBM,
    FACTS,
    FORMAT_VERSION,
    LABELS,
    ROOT_ATTRIBUTES,
    read_attributes,
    read_facts,
)
from biomassters.errors import StoreError
from biomassters.locks import hold_folder
from biomassters.sources import Source
from biomassters.staging import (
    SavedChip,
    decode_chip,
    find_staged,
    fingerprint_chip,
    image_layouts,
    image_shapes,
    is_complete,
    stage_chip,
)
from biomassters.zarr_files import chunk_file, start_array, write_array, write_chunk, write_group


class PackReport(NamedTuple):
    """What packing did.

    Attributes:
        fetched: Chips that came from the source.
        resumed: Chips that an earlier, unfinished run had fetched.
        reused: Chips that the old store held.
        audit: What the store holds; it depends on the chips alone.
    """

    fetched: int
    resumed: int
    reused: int
    audit: dict[str, Any]


def pack_split(
    chips: Sequence[ChipRecord], source: Source, store: Path, scratch: Path, *, chip_size: int
) -> PackReport:
    """Bring a store up to date with a catalogue, fetching only what it lacks.

    Law: the store's bytes depend on `chips` and their files alone, not on the order in which the
    source yields them, nor on what was reused, nor on how often packing was killed.

    Args:
        chips: The chips of a split, in the order of the store.
        source: Has their files.
        store: The store's folder; replaced as a whole, when all is there.
        scratch: Folder for fetched chips, emptied in the end; best on the store's file system.
        chip_size: Side of a chip, pixels.

    Raises:
        ChipDataError: A file cannot be had or is not what the catalogue says.
        BusyError: Another process packs with the same scratch.
    """
    with hold_folder(scratch):
        _recover(store)
        prints = {chip.chip_id: fingerprint_chip(chip, source.kind, chip_size) for chip in chips}
        reused = _find_in_store(store, chips, prints, chip_size)
        rest = [chip for chip in chips if chip.chip_id not in reused]
        resumed = _find_in_scratch(scratch, rest, prints, chip_size)
        missing = [chip for chip in rest if chip.chip_id not in resumed]
        saved = {**reused, **resumed}
        with tqdm(total=len(chips), initial=len(saved), unit="chip", disable=None) as progress:
            for chip, files, _ in source.fetch_chips(missing):
                decoded = decode_chip(chip, files, chip_size)
                saved[chip.chip_id] = stage_chip(decoded, prints[chip.chip_id], scratch)
                progress.update()
        in_order = [saved[chip.chip_id] for chip in chips]
        _assemble(_beside(store, "new"), in_order, chip_size, any(chip.agbm for chip in chips))
        _put_in_place(store)
        _empty(scratch)
    return PackReport(len(missing), len(resumed), len(reused), audit_chips(in_order, chip_size))


def audit_chips(chips: Sequence[SavedChip], chip_size: int) -> dict[str, Any]:
    """Count what a store holds: chips, targets, months by sensor, nodata; shares are 0...1."""
    pixels = chip_size**2
    s1_nodata = np.array([chip.facts["s1_nodata"] for chip in chips])
    s2_nodata = np.array([chip.facts["s2_nodata"] for chip in chips])
    s2_present = np.array([chip.facts["s2_present"] for chip in chips])
    agbm_mean = np.array([chip.facts["agbm_mean"] for chip in chips])
    ascending, descending = s1_nodata[..., :2].min(axis=-1), s1_nodata[..., 2:].min(axis=-1)
    with_clp = 1 - s2_nodata[s2_present] / pixels
    return {
        "chips": len(chips),
        "targets": int((~np.isnan(agbm_mean)).sum()),
        "chip_size": chip_size,
        "s1_ascending_present": _by_month(ascending < pixels),
        "s1_descending_present": _by_month(descending < pixels),
        "s2_present": _by_month(s2_present),
        "s1_nodata": {
            band: _share(s1_nodata[..., index] / pixels) for index, band in enumerate(S1_BANDS)
        },
        "s2_nodata": _share(1 - with_clp) if with_clp.size else None,
    }


def _find_in_store(
    store: Path, chips: Sequence[ChipRecord], prints: Mapping[str, str], chip_size: int
) -> dict[str, SavedChip]:
    try:
        read_attributes(store)  # of our format
        facts = read_facts(store)
    except StoreError:  # none yet, or one of an older format: nothing to reuse
        return {}
    indices = {fingerprint: index for index, fingerprint in enumerate(facts["fingerprint"])}
    found = {}
    for chip in chips:
        index = indices.get(prints[chip.chip_id])
        if index is None:
            continue
        saved = SavedChip(
            {name: values[index] for name, values in facts.items()},
            {layout.name: chunk_file(store, layout, index) for layout in image_layouts(chip)},
        )
        if is_complete(saved, chip, chip_size):
            found[chip.chip_id] = saved
    return found


def _find_in_scratch(
    scratch: Path, chips: Sequence[ChipRecord], prints: Mapping[str, str], chip_size: int
) -> dict[str, SavedChip]:
    found = {}
    for chip in chips:
        saved = find_staged(chip, prints[chip.chip_id], scratch)
        if saved is not None and is_complete(saved, chip, chip_size):
            found[chip.chip_id] = saved
    return found


def _assemble(store: Path, chips: Sequence[SavedChip], chip_size: int, has_targets: bool) -> None:
    shutil.rmtree(store, ignore_errors=True)
    store.mkdir(parents=True)
    try:
        for layout, shape in image_shapes(chip_size).items():
            if layout is AGBM and not has_targets:
                continue
            start_array(store, layout, (len(chips), *shape), (1, *shape))
            for index, chip in enumerate(chips):
                target = chunk_file(store, layout, index)
                if layout.name in chip.chunks:
                    _link(chip.chunks[layout.name], target)
                else:
                    write_chunk(target, np.full(shape, np.nan, layout.dtype))
        for layout in FACTS:
            write_array(store, layout, np.array([chip.facts[layout.name] for chip in chips]))
        for layout, names in LABELS:
            write_array(store, layout, np.array(names))
        write_group(store, _root_attributes(chips, chip_size, has_targets))
    except BaseException:
        shutil.rmtree(store, ignore_errors=True)
        raise


def _root_attributes(
    chips: Sequence[SavedChip], chip_size: int, has_targets: bool
) -> dict[str, Any]:
    digest = hashlib.sha256(f"{FORMAT_VERSION} {chip_size} {has_targets}\n".encode())
    for chip in chips:
        digest.update(f"{chip.facts['chip_id']} {chip.facts['content']}\n".encode())
    return {
        **ROOT_ATTRIBUTES,
        "chip_size": chip_size,
        "has_targets": has_targets,
        "content_id": digest.hexdigest(),
    }


def _link(source: Path, target: Path) -> None:
    try:
        # Resolved, because DVC may have put a symbolic link in the old store.
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without links; copying tells of a full disk
        shutil.copyfile(source, target)


def _put_in_place(store: Path) -> None:
    if store.exists():
        store.rename(_beside(store, "old"))
    _beside(store, "new").rename(store)
    shutil.rmtree(_beside(store, "old"), ignore_errors=True)


def _recover(store: Path) -> None:
    """Undo a replacement that was killed between its two renames."""
    old = _beside(store, "old")
    if old.exists() and not store.exists():
        old.rename(store)
    shutil.rmtree(old, ignore_errors=True)


def _beside(store: Path, word: str) -> Path:
    return store.with_name(f".{store.name}.{word}")


def _empty(scratch: Path) -> None:
    for path in scratch.iterdir():
        if path.is_dir():
            shutil.rmtree(path)


def _by_month(present: NDArray[np.bool_]) -> dict[str, float]:
    return {month: _share(present[:, index]) for index, month in enumerate(MONTHS)}


def _share(values: NDArray[Any]) -> float:
    return round(float(values.mean()), 6)
