"""Time and memory of reading a catalogue: python benchmarks/sources/catalogue.py FOLDER."""

import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))

from biomassters.dataset.catalogue import read_catalogue
from biomassters.dataset.files import SPLITS


def peak_mib() -> float:
    """Return the most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Read the catalogue once and print what it took."""
    before, start = peak_mib(), time.perf_counter()
    catalogue = read_catalogue(Path(sys.argv[1]))
    seconds = time.perf_counter() - start
    counts = ", ".join(f"{len(catalogue.chips(split)):,} {split}" for split in SPLITS)
    print(f"{counts} chips: {seconds:.2f} s, {peak_mib() - before:.0f} MiB")


if __name__ == "__main__":
    main()
