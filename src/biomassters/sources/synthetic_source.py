"""The source `synthetic`: every file is simulated when it is asked for; nothing is downloaded."""

from collections.abc import Iterable, Iterator, Sequence

from biomassters.dataset.files import ChipFiles, ChipRecord, FileError, FileRecord
from biomassters.simulator.official_files import simulate_files
from biomassters.sources.source import FetchedChip, gather_files


class SyntheticSource:
    """Simulates every file."""

    kind = "synthetic"

    def __init__(self, chip_size: int) -> None:
        self.chip_size = chip_size

    def prepare(self, chips: Sequence[ChipRecord]) -> None:
        """Do nothing."""

    def fetch_chips(self, chips: Iterable[ChipRecord]) -> Iterator[FetchedChip]:
        """Yield the chips in the order given."""
        for chip in chips:
            files = simulate_files(chip.chip_id, self.chip_size)
            yield gather_files(chip, lambda record: _pick(files, record))  # noqa: B023


def _pick(files: ChipFiles, record: FileRecord) -> bytes:
    if record.filename not in files:
        raise FileError("an absent month, as this simulated chip has", "its row in the catalogue")
    return files[record.filename]
