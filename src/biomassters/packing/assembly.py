"""From a source to a chip store: each chip is fetched once, however often the work is killed.

Each fetched chip is staged in scratch as its chunk files, which are those of the finished store.
When all are there, the store is assembled beside its place from hard links, and renamed into it.
A chip's fingerprint says what it was made from: a chip with the same fingerprint in the old store
or in scratch is taken from there, and its files, which DVC's cache may share, are never written.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from tqdm import tqdm

from biomassters.dataset.files import BadFile, ChipRecord
from biomassters.errors import ChipDataError, StoreError
from biomassters.packing.bad_files import describe_bad_files, write_bad_files
from biomassters.packing.staging import (
    SavedChip,
    discard_incomplete,
    discard_staged,
    find_staged,
    fingerprint_chip,
    image_layouts,
    is_complete,
)
from biomassters.packing.workers import choose_workers, stage_chips
from biomassters.processes.scratch import hold_folder
from biomassters.sources.source import Source
from biomassters.store.chips import read_attributes, read_facts
from biomassters.store.layout import (
    AGBM,
    FACTS,
    FORMAT_VERSION,
    LABELS,
    ROOT_ATTRIBUTES,
    fact_shape,
    image_shapes,
)
from biomassters.store.zarr_files import (
    chunk_file,
    start_array,
    write_array,
    write_chunk,
    write_group,
)


class PackReport(NamedTuple):
    """What packing did.

    Attributes:
        fetched: Chips that came from the source.
        resumed: Chips that an earlier, unfinished run had fetched.
        reused: Chips that the old store held.
        skipped: Names of the chips that the store lacks, because files of theirs are bad.
        bad_files: These files.
    """

    fetched: int
    resumed: int
    reused: int
    skipped: tuple[str, ...]
    bad_files: tuple[BadFile, ...]

    def __str__(self) -> str:
        text = (
            f"{self.fetched} chips fetched, {self.resumed} taken from an unfinished run,"
            f" {self.reused} unchanged"
        )
        if self.skipped:
            text += f", {len(self.skipped)} left out ({len(self.bad_files)} bad files)"
        return text


def pack_split(
    chips: Sequence[ChipRecord],
    source: Source,
    store: Path,
    scratch: Path,
    *,
    chip_size: int,
    n_workers: int = 0,
    on_bad_chip: Literal["fail", "skip"] = "fail",
) -> PackReport:
    """Bring a store up to date with a catalogue, fetching only what it lacks.

    Law: the store's bytes depend on `chips` and their files alone, not on the order in which the
    source yields them, nor on the number of workers, nor on what was reused, nor on how often
    packing was killed.

    Bad files end nothing until all other chips are there. They are listed beside the scratch.

    Args:
        chips: The chips of a split, in the order of the store.
        source: Has their files.
        store: The store's folder; replaced as a whole, when all is there.
        scratch: Folder for fetched chips, emptied in the end; best on the store's file system.
        chip_size: Side of a chip, pixels.
        n_workers: Processes that fetch and decode; 0 = this one. It changes no result.
        on_bad_chip: Whether a store without the chips that have bad files will do.

    Raises:
        ChipDataError: A file cannot be had or is not what the catalogue says.
        SourceError: The place that the files come from cannot be used at all.
        BusyError: Another process packs with the same scratch.
        BiomasstersError: A worker was killed.
    """
    with hold_folder(scratch):
        _recover(store)
        discard_incomplete(scratch)
        prints = {chip.chip_id: fingerprint_chip(chip, source.kind, chip_size) for chip in chips}
        reused = _find_in_store(store, chips, prints, chip_size)
        rest = [chip for chip in chips if chip.chip_id not in reused]
        resumed = _find_in_scratch(scratch, rest, prints, chip_size)
        missing = [chip for chip in rest if chip.chip_id not in resumed]
        saved = {**reused, **resumed}
        bad_files = _fetch(missing, source, scratch, saved, chip_size, n_workers)
        listed = scratch.with_name(f"{scratch.name}_bad_files.csv")
        write_bad_files(listed, bad_files)
        skipped = {bad.chip_id for bad in bad_files}
        kept = [chip for chip in chips if chip.chip_id not in skipped]
        if skipped and (on_bad_chip == "fail" or not kept):
            raise _refuse(bad_files, listed, n_chips=len(skipped), n_kept=len(kept))
        in_order = [saved[chip.chip_id] for chip in kept]
        _assemble(_beside(store, "new"), in_order, chip_size, any(chip.agbm for chip in kept))
        _put_in_place(store)
        _empty(scratch)
    n_fetched = len(missing) - len(skipped)
    return PackReport(n_fetched, len(resumed), len(reused), tuple(sorted(skipped)), bad_files)


def _fetch(
    missing: Sequence[ChipRecord],
    source: Source,
    scratch: Path,
    saved: dict[str, SavedChip],
    chip_size: int,
    n_workers: int,
) -> tuple[BadFile, ...]:
    """Add the missing chips to `saved`, but those with bad files, which are returned in order."""
    if not missing:
        return ()
    source.prepare(missing)
    n_workers = choose_workers(n_workers, len(missing))
    bad_files: list[BadFile] = []
    n_bytes = 0
    with (
        tqdm(
            total=len(saved) + len(missing), initial=len(saved), unit="chip", disable=None
        ) as progress,
        closing(
            stage_chips(source, missing, scratch, chip_size=chip_size, n_workers=n_workers)
        ) as arrivals,
    ):
        for staged in arrivals:
            bad_files += staged.bad_files
            if staged.saved is not None:
                saved[staged.chip_id] = staged.saved
            n_bytes += staged.n_bytes
            progress.set_postfix_str(_describe_bytes(n_bytes, progress), refresh=False)
            progress.update()
    return tuple(sorted(bad_files))


def _describe_bytes(n_bytes: int, progress: "tqdm[Any]") -> str:
    seconds = max(progress.format_dict["elapsed"], 1e-3)
    return f"{n_bytes / 1e9:.2f} GB, {n_bytes / 1e6 / seconds:.0f} MB/s"


def _refuse(
    bad_files: Sequence[BadFile], listed: Path, *, n_chips: int, n_kept: int
) -> ChipDataError:
    skip = ", or set data.on_bad_chip to skip to go on without them" if n_kept else ""
    return ChipDataError(
        f"{describe_bad_files(bad_files)}; {listed} lists all {len(bad_files)} bad files of"
        f" {n_chips} chips: mend them, or data.chip_size, and run the same command again, which"
        f" fetches only these{skip}"
    )


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
        else:
            discard_staged(chip, prints[chip.chip_id], scratch)
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
            values = np.array([chip.facts[layout.name] for chip in chips])
            write_array(store, layout, values.reshape(len(chips), *fact_shape(layout)))
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
