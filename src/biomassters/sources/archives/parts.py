"""Archives as they lie in a folder: one file each, or cut into parts.

Knows which files belong together and reads any span of bytes across them; knows nothing of what
the bytes mean. To zips and tars the parts are one archive, in which every place is counted from the
start of the first part.

There are two ways to cut. `zip -s` writes x.z01, x.z02, ... and last x.zip, and its records count
places from the start of a part, which they name (`zip_directory`). A plain cut, as 7-Zip's, makes
x.zip.001, x.zip.002, ... or x.tar.001, x.tar.002, ..., and what is in them does not know of it.
"""

import os
import re
import stat
from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate, pairwise
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, NamedTuple

from biomassters.errors import SourceError, name_few

ArchiveFormat = Literal["zip", "tar"]

_SPLIT_ZIP: Final = re.compile(r"(?P<stem>.+)\.z(?P<number>[0-9]{2,4})", re.IGNORECASE)
_WHOLE: Final = re.compile(r"(?P<stem>.+)\.(?P<format>zip|tar)", re.IGNORECASE)
_NUMBERED: Final = re.compile(
    r"(?P<stem>.+\.(?P<format>zip|tar))\.(?P<number>[0-9]{3,4})", re.IGNORECASE
)
_NAMES_SHOWN: Final = 30


class EndOfArchiveError(Exception):
    """Bytes were asked for that lie beyond the last part."""


class Archive(NamedTuple):
    """An archive, all its parts in order.

    Attributes:
        path: Where it lies, or would lie in one piece; for errors.
        format: What its name says it is.
        parts: Its files.
        starts: Where each part starts in the whole, bytes, and the whole's size at the end.
        first_number: Of the first of numbered parts (`.001`); None = one file, or `.z01` parts.
    """

    path: Path
    format: ArchiveFormat
    parts: tuple[Path, ...]
    starts: tuple[int, ...]
    first_number: int | None

    @property
    def size(self) -> int:
        """Bytes of all parts together."""
        return self.starts[-1]


class FoundParts:
    """The files of one archive as found in a folder, perhaps not all.

    Attributes:
        path: Where the archive would lie in one piece.
        format: What its name says it is.
    """

    def __init__(self, path: Path, archive_format: ArchiveFormat) -> None:
        self.path = path
        self.format = archive_format
        self._whole: list[Path] = []
        self._split: list[tuple[int, Path]] = []
        self._numbered: list[tuple[int, Path]] = []

    def add(self, path: Path, kind: Literal["whole", "split", "numbered"], number: int) -> None:
        """Take in a part, by the number in its name."""
        if kind == "split":
            self._split.append((number, path))
        elif kind == "numbered":
            self._numbered.append((number, path))
        else:
            self._whole.append(path)

    def has(self, path: Path) -> bool:
        """Tell whether a file is one of its parts."""
        return path in (*self._whole, *(part for _, part in (*self._split, *self._numbered)))

    def assemble(self) -> Archive:
        """Return the archive.

        Raises:
            SourceError: A part is absent, there twice, or no regular file.
        """
        if self._numbered:
            # Some programs count from 000, others from 001.
            first = min(1, min(number for number, _ in self._numbered))
            parts = self._in_order(self._numbered, first)
        else:
            first = None
            parts = self._in_order(self._split, 1)
            if not self._whole:
                raise refuse_parts(self.path, [self.path.name], parts)
            if len(self._whole) > 1:
                raise _refuse_twice(self.path, self._whole)
            parts += self._whole
        sizes = [measure_part(part) for part in parts]
        starts = tuple(accumulate(sizes, initial=0))
        return Archive(self.path, self.format, tuple(parts), starts, first)

    def _in_order(self, found: list[tuple[int, Path]], first: int) -> list[Path]:
        parts = [path for _, path in sorted(found)]
        numbers = sorted(number for number, _ in found)
        if numbers and numbers[0] < first:
            raise refuse(self.path, f"parts from {first:02d}", parts[0].name, "remove it")
        if len(set(numbers)) < len(numbers):
            twice = next(a for a, b in pairwise(numbers) if a == b)
            raise _refuse_twice(self.path, [path for number, path in found if number == twice])
        if numbers != list(range(first, first + len(numbers))):
            style = first if self._numbered else None
            absent = sorted(set(range(first, numbers[-1])) - set(numbers))
            names = [part_name(self.path, style, number, last=False) for number in absent]
            raise refuse_parts(self.path, names, [*parts, *self._whole])
        return parts


class PartReader:
    """Reads an archive across its parts; opens each when first needed, closes all at the end.

    It reads at given places only, so forked processes and threads may share it.
    """

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self._files: dict[int, int] = {}

    def __enter__(self) -> "PartReader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the parts; a later read opens them again."""
        while self._files:
            os.close(self._files.popitem()[1])

    def read(self, offset: int, size: int) -> bytes:
        """Read exactly `size` bytes from `offset` of the whole.

        Raises:
            EndOfArchiveError: There are not as many.
            SourceError: A part is not what it was.
            OSError: The disk cannot read them.
        """
        starts = self.archive.starts
        if offset < 0 or size < 0 or offset + size > starts[-1]:
            raise EndOfArchiveError
        # A span may lie across parts: of each it takes what lies in it.
        pieces = []
        while size > 0:
            part = bisect_right(starts, offset) - 1
            wanted = min(size, starts[part + 1] - offset)
            piece = os.pread(self._open(part), wanted, offset - starts[part])
            if not piece:
                raise EndOfArchiveError
            pieces.append(piece)
            offset += len(piece)
            size -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _open(self, part: int) -> int:
        if part not in self._files:
            path = self.archive.parts[part]
            expected = self.archive.starts[part + 1] - self.archive.starts[part]
            if (size := measure_part(path)) != expected:
                raise refuse(
                    path, f"{expected} bytes as at the start", str(size), "run again when it rests"
                )
            try:
                self._files[part] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise refuse(
                    path, "a readable file", describe_error(error), "give permission to read it"
                ) from None
        return self._files[part]


def find_archives(folder: Path) -> list[FoundParts]:
    """Return the zips and tars that lie directly in a folder, by name.

    Raises:
        SourceError: The folder cannot be read, or has none.
    """
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise SourceError(
            f"expected a folder of archives, got {describe_error(error)}, at {folder};"
            " name the folder with the downloaded zips and tars"
        ) from None
    found: dict[Path, FoundParts] = {}
    for name in names:
        _sort_in(found, folder, name)
    if not found:
        raise SourceError(
            f"expected .zip, .z01, .zip.001 or .tar files, got none, at {folder};"
            " put the downloaded archives there (decompress .tar.gz and the like first)"
        )
    return list(found.values())


def measure_part(path: Path) -> int:
    """Return the size of a part, bytes.

    Raises:
        SourceError: It is gone, or no regular file.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise refuse(path, "a readable file", describe_error(error), "put it back") from None
    # Opening a named pipe would wait for ever, and a device has no end.
    if not stat.S_ISREG(status.st_mode):
        got = "a folder" if stat.S_ISDIR(status.st_mode) else "something else"
        raise refuse(path, "a regular file", got, "remove it")
    return status.st_size


def part_name(path: Path, first_number: int | None, number: int, *, last: bool) -> str:
    """Return the name of a part: `x.zip.003` in numbered style, else `x.z03`, the last `x.zip`."""
    if first_number is not None:
        return f"{path.name}.{number:03d}"
    return path.name if last else f"{path.stem}.z{number:02d}"


def list_part_names(archive: Archive, n_parts: int) -> list[str]:
    """Return how the parts of an archive would be named if there were `n_parts`."""
    first = 1 if archive.first_number is None else archive.first_number
    return [
        part_name(archive.path, archive.first_number, first + index, last=index == n_parts - 1)
        for index in range(n_parts)
    ]


def refuse_parts(path: Path, absent: list[str], found: Iterable[Path]) -> SourceError:
    """Make the error for parts that are absent: it names them, and those that are there."""
    names = [part.name for part in found]
    return refuse(
        path,
        f"all parts, also {name_few(absent, _NAMES_SHOWN)}",
        f"only {name_few(names, _NAMES_SHOWN)}" if names else "none",
        "download what is absent",
    )


def refuse(path: Path, expected: str, got: str, remedy: str = "download it again") -> SourceError:
    """Make the error for an archive that cannot be used."""
    return SourceError(f"expected {expected}, got {got}, at {path}; {remedy}")


def describe_error(error: OSError) -> str:
    """Return what the system says of an error."""
    return (error.strerror or "an error of the disk").lower()


def _refuse_twice(path: Path, parts: list[Path]) -> SourceError:
    names = " and ".join(part.name for part in parts)
    return refuse(path, "each part once", names, "remove one of the two")


def _sort_in(found: dict[Path, FoundParts], folder: Path, name: str) -> None:
    kind: Literal["whole", "split", "numbered"]
    if match := _SPLIT_ZIP.fullmatch(name):
        kind, number, whole, suffix = "split", int(match["number"]), f"{match['stem']}.zip", "zip"
    elif match := _NUMBERED.fullmatch(name):
        kind, number, whole, suffix = "numbered", int(match["number"]), match["stem"], "parts"
    elif match := _WHOLE.fullmatch(name):
        suffix = match["format"].lower()
        kind, number, whole = "whole", 0, f"{match['stem']}.{suffix}"
    else:
        return
    archive_format: ArchiveFormat = "tar" if whole.lower().endswith(".tar") else "zip"
    # `x.zip` beside `x.zip.001` is another archive, `x.zip` beside `x.z01` the same.
    key = folder / f"{whole}/{suffix}" if kind == "numbered" else folder / whole
    parts = found.setdefault(key, FoundParts(folder / whole, archive_format))
    parts.add(folder / name, kind, number)
