"""Damage archives at random and see what is read from them.

    PYTHONPATH=src:tests/support python tests/fuzzing/fuzz_archives.py 100000

Whatever the damage, each file comes out right, or is named as bad, or the archive is refused;
nothing else may be raised, and no byte may be wrong.
"""

import random
import resource
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from archive_examples import (
    cut,
    fetch,
    make_tar,
    make_zip,
    patch_tar,
    split_zip,
    write_numbered,
    write_split,
)

from biomassters.dataset.files import (
    ChipRecord,
    FileError,
    FileRecord,
    feature_filename,
    posix_cksum,
    target_filename,
    verify,
)
from biomassters.errors import SourceError
from biomassters.store.bands import N_MONTHS

KINDS = ("flip", "set", "number", "cut off", "cut out", "copy", "swap", "insert")
NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**32 - 1, 2**63, 2**64 - 1)


class Damage(NamedTuple):
    """One change of an archive's bytes.

    Attributes:
        kind: One of `KINDS`.
        place: Where, 0 to 1.
        other: Where else, 0 to 1.
        value: With what.
    """

    kind: str
    place: float
    other: float
    value: int


class Example(NamedTuple):
    """An honest archive.

    Attributes:
        name: What it is.
        parts: Its bytes, in parts.
    """

    name: str
    parts: list[bytes]


def make_files() -> dict[str, bytes]:
    """Return the files of a chip, so small that an archive is for the most part headers."""
    rng = random.Random(0)  # noqa: S311
    names = [feature_filename("c", sensor, month) for sensor in ("S1", "S2") for month in range(12)]
    return {
        name: rng.randbytes(rng.randrange(1, 60)) * rng.randrange(1, 9)
        for name in [*names, target_filename("c")]
    }


FILES = make_files()


def make_chip() -> ChipRecord:
    """Return the record of these files."""
    records = [
        FileRecord(
            name,
            "train_agbm" if "agbm" in name else "train_features",
            len(data),
            posix_cksum(data),
        )
        for name, data in FILES.items()
    ]
    months = (tuple(records[:N_MONTHS]), tuple(records[N_MONTHS:-1]))
    return ChipRecord("c", "train", *months, records[-1])


CHIP = make_chip()


def make_examples() -> list[Example]:
    """Return honest archives of every layout."""
    members = {f"train_features/{name}": data for name, data in FILES.items()}
    long = {f"{'d' * 120}/{path}": data for path, data in members.items()}
    zips = {
        "zip": make_zip(members),
        "stored zip": make_zip(members, stored=True),
        "zip64": make_zip(members, zip64=True, comment=b"comment"),
        "streamed zip": make_zip(members, streamed=True),
    }
    examples = [Example(name, [data]) for name, data in zips.items()]
    examples += [Example(f"split {name}", split_zip(data, 3)) for name, data in zips.items()]
    examples += [Example(f"cut {name}", cut(data, 3)) for name, data in zips.items()]
    for name, tar_format in (("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT)):
        examples.append(Example(f"{name} tar", [make_tar(members, tar_format)]))
        examples.append(Example(f"{name} tar of long paths", [make_tar(long, tar_format)]))
        examples.append(Example(f"cut {name} tar", cut(make_tar(members, tar_format), 3)))
    return examples


EXAMPLES = make_examples()


def inflict(data: bytes, damage: Damage) -> bytes:
    """Return bytes with the damage done."""
    if not data:
        return data
    at, other = (int(share * (len(data) - 1)) for share in (damage.place, damage.other))
    low, high = sorted((at, other))
    value = damage.value
    if damage.kind == "flip":
        return data[:at] + bytes([data[at] ^ (1 << value % 8)]) + data[at + 1 :]
    if damage.kind == "set":
        return data[:at] + bytes([value % 256]) + data[at + 1 :]
    if damage.kind == "number":
        size = (2, 4, 8)[value % 3]
        number = NUMBERS[value % len(NUMBERS)] % 2 ** (8 * size)
        return data[:at] + number.to_bytes(size, "little") + data[at + size :]
    if damage.kind == "cut off":
        return data[:at]
    if damage.kind == "cut out":
        return data[:low] + data[min(high, low + value) :]
    span = data[at : at + value]
    if damage.kind == "copy":
        return data[:other] + span + data[other + len(span) :]
    if damage.kind == "swap":
        span = data[low : min(low + value, high)]
        end = high + len(span)
        return data[:low] + data[high:end] + data[low + len(span) : high] + span + data[end:]
    return data[:other] + span + data[other:]


def mend_checksums(data: bytes) -> bytes:
    """Return a tar whose damaged headers have checksums that are right."""
    blocks = [data[at : at + 512] for at in range(0, len(data), 512)]
    return b"".join(
        patch_tar(block, 0, b"") if block[257:262] == b"ustar" and len(block) == 512 else block
        for block in blocks
    )


def run(folder: Path, example: Example, damages: Sequence[tuple[int, Damage]]) -> Counter[str]:
    """Read a damaged archive, and count what came of each file.

    Args:
        folder: An empty one.
        example: The archive before.
        damages: What to do to it; the number picks the part.
    """
    parts = list(example.parts)
    for number, damage in damages:
        parts[number % len(parts)] = inflict(parts[number % len(parts)], damage)
    if len(parts) == 1 and "tar" in example.name and sum(d.value for _, d in damages) % 2:
        parts = [mend_checksums(parts[0])]
    if "split" in example.name or example.name == "cut zip":
        write_split(folder, "a", parts)
    elif len(parts) > 1:
        write_numbered(folder, "a.tar" if "tar" in example.name else "a.zip", parts)
    else:
        (folder / ("a.tar" if "tar" in example.name else "a.zip")).write_bytes(parts[0])
    try:
        [fetched] = fetch(folder, CHIP)
    except SourceError as error:
        message = str(error)
        assert message.startswith("expected ")
        assert "\n" not in message
        return Counter(refused=1)
    finally:
        for path in folder.iterdir():
            path.unlink()
    assert len(fetched.files) + len(fetched.bad_files) == len(FILES)
    counts = Counter(read=1, named=len(fetched.bad_files))
    for record in filter(None, (*CHIP.s1, *CHIP.s2, CHIP.agbm)):
        if record.filename in fetched.files:
            counts[judge(example, record, fetched.files[record.filename])] += 1
    return counts


def judge(example: Example, record: FileRecord, data: bytes) -> str:
    """Tell whether a file is right; a tar has no checksums, so the catalogue's must tell."""
    if data == FILES[record.filename]:
        return "right"
    if "tar" not in example.name:
        return "WRONG"
    try:
        verify(record, data)
    except FileError:
        return "named by cksum"
    return "WRONG"


def draw_damage(rng: random.Random) -> tuple[int, Damage]:
    """Draw one change; half of them near the end, where a zip has its directory."""
    place = rng.random() if rng.random() < 0.5 else 1 - rng.random() * 0.3
    part = 2 if rng.random() < 0.5 else rng.randrange(3)
    # One bit or byte more often: what changes a length moves all that follows it.
    kind = rng.choice((*KINDS, "flip", "flip", "set", "set", "number", "number"))
    return part, Damage(kind, place, rng.random(), rng.randrange(200))


def main() -> None:
    """Damage as many archives as the command line says."""
    n_archives, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    rng = random.Random(seed)  # noqa: S311
    totals: Counter[str] = Counter()
    slowest, start = 0.0, time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        for _ in range(n_archives):
            example = rng.choice(EXAMPLES)
            damages = [draw_damage(rng) for _ in range(rng.choice((1, 1, 1, 2, 3, 5)))]
            before = time.perf_counter()
            counts = run(Path(name), example, damages)
            slowest = max(slowest, time.perf_counter() - before)
            totals += counts
            if counts["WRONG"]:
                print(f"wrong bytes: {example.name}, {damages}")  # noqa: T201
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(  # noqa: T201
        f"{n_archives} archives in {seconds:.0f} s: {dict(totals)};"
        f" slowest {slowest:.3f} s, most memory {peak:.0f} MiB"
    )
    sys.exit(bool(totals["WRONG"]))


if __name__ == "__main__":
    main()
