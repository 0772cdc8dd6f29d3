"""Targets of test chips: the catalogue that the official one lacks, made from the files themselves.

The official catalogue names the targets of the test chips in `corresponding_agbm`, without sizes
and checksums; the files are in an archive on the hub.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from tqdm import tqdm

from biomassters.commands.use_catalogue import refuse_data_folder
from biomassters.dataset.catalogue import (
    TARGET_COLUMNS,
    read_catalogue,
    targets_file,
)
from biomassters.dataset.catalogue_files import find_files
from biomassters.dataset.catalogue_rows import format_table, target_row
from biomassters.dataset.files import (
    LARGEST_FILE,
    BadFile,
    ChipRecord,
    FileRecord,
    target_filename,
)
from biomassters.errors import CatalogueError, ChipDataError, SourceError, name_few
from biomassters.packing.bad_files import describe_bad_files
from biomassters.processes.writing import write_whole
from biomassters.sources.archives.archive_source import ArchiveSource
from biomassters.sources.folder_source import FolderSource, list_places
from biomassters.sources.source import MeasuringSource

HUB: Final = "hub"


def add_test_targets(folder: Path, place: str, *, partly: bool = False) -> str:
    """Write `test_agbm_metadata.csv` into a catalogue folder, whole or not at all.

    Each target is read once, in memory, for its size and POSIX cksum.

    Args:
        folder: The catalogue, without such a file.
        place: A folder that has the targets, or archives with them; one archive; or `hub`, whose
            archive is downloaded as `data.source: hub` does, resumably, and kept for it.
        partly: Whether test chips may be left without a target.

    Returns:
        What was done, for people.

    Raises:
        CatalogueError: The catalogue has no test chips, or their targets already; or targets are
            absent from the place.
        SourceError: The place cannot be used at all.
        ChipDataError: A target there is damaged.
    """
    refuse_data_folder(folder)
    chips = read_catalogue(folder).chips("test")
    path = folder / targets_file("test")
    if not chips:
        raise CatalogueError(
            f"expected test chips, got none, at {folder}; add their features to the catalogue"
        )
    if known := find_files(folder).get("test_agbm"):
        raise CatalogueError(
            f"expected a catalogue without targets of test chips, got {known.name}, at {folder};"
            " remove it to describe the targets anew"
        )
    drafts = [_draft(chip.chip_id) for chip in chips]
    source = _open_place(place, drafts)
    source.prepare(drafts)
    found = _measure(source, drafts)
    absent = sorted({chip.chip_id for chip in drafts} - {chip.chip_id for chip in found})
    if absent and (not partly or not found):
        raise _refuse_absent(absent, len(drafts), place)
    rows = sorted(_describe(source, found))
    write_whole(path, format_table(TARGET_COLUMNS, rows))
    return (
        f"{path} describes the targets of {len(rows)} of {len(chips)} test chips; make it data/:"
        f" python -m biomassters use-catalogue {folder}"
    )


def _draft(chip_id: str) -> ChipRecord:
    """Return a chip that is nothing but a target of unknown size."""
    record = FileRecord(target_filename(chip_id), "test_agbm", LARGEST_FILE, None)
    return ChipRecord(chip_id, "test", (), (), record)


def _open_place(place: str, chips: Sequence[ChipRecord]) -> MeasuringSource:
    if place == HUB:
        # Its client takes most of a second to import.
        from biomassters.sources.hub.hub_source import open_hub

        return open_hub()
    path = Path(place)
    if path.is_file():
        return ArchiveSource(path.parent, only=path)
    if not path.is_dir():
        raise SourceError(
            f"expected a folder, a zip or tar, or the word {HUB}, got nothing, at {place};"
            " name the place of the targets"
        )
    files = list_places(path)
    if any(target_filename(chip.chip_id) in files for chip in chips):
        return FolderSource(path, place)
    return ArchiveSource(path)


def _measure(source: MeasuringSource, drafts: Iterable[ChipRecord]) -> list[ChipRecord]:
    """Return the chips whose target is there, with its size."""
    measured = [(chip, chip.agbm and source.measure(chip.agbm)) for chip in drafts]
    return [chip._replace(agbm=record) for chip, record in measured if record is not None]


def _describe(source: MeasuringSource, chips: Sequence[ChipRecord]) -> Iterator[list[str]]:
    """Yield a row of `TARGET_COLUMNS` for each chip.

    Raises:
        ChipDataError: A file is damaged.
    """
    bad_files: list[BadFile] = []
    fetched = source.fetch_chips(chips)
    for chip, files, bad in tqdm(
        fetched, total=len(chips), desc="test targets", unit="chip", disable=None
    ):
        bad_files += bad
        for data in files.values():
            yield target_row(chip.chip_id, data)
    if bad_files:
        raise ChipDataError(f"{describe_bad_files(bad_files)}; mend them and repeat the command")


def _refuse_absent(absent: Sequence[str], n_chips: int, place: str) -> CatalogueError:
    names = name_few([target_filename(chip_id) for chip_id in absent])
    return CatalogueError(
        f"expected a target of each of the {n_chips} test chips, got none for {len(absent)}"
        f" ({names}), at {place}; add them, or say --partly to leave these chips without one"
    )
