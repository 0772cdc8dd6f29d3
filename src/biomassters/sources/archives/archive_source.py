"""Chips out of the official archives, read in place: zips, split or whole, and tars.

Nothing is ever extracted to disk, and of each member no more is read than its record allows.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from biomassters.dataset.files import LARGEST_FILE, ChipRecord, FileError, FileRecord, list_files
from biomassters.errors import SourceError
from biomassters.sources.archives.index import (
    FAULTS,
    Fault,
    IndexBuilder,
    Member,
    MemberIndex,
    Method,
)
from biomassters.sources.archives.parts import (
    Archive,
    EndOfArchiveError,
    FoundParts,
    PartReader,
    describe_error,
    find_archives,
    refuse,
)
from biomassters.sources.archives.tar_members import iterate_tar_entries
from biomassters.sources.archives.zip_directory import find_directory, iterate_entries
from biomassters.sources.archives.zip_members import read_zip_member
from biomassters.sources.source import FetchedChip, sort_files


class ArchiveSource:
    """Reads the archives that lie in a folder; a file is found by its name, in any of them.

    Where a name is there several times, the member counts whose path has the record's folder.

    Attributes:
        folder: Where they lie.
        only: One of its files, or a part of one: no other archive is looked into; None = all are.
    """

    kind = "archives"

    def __init__(self, folder: Path, only: Path | None = None) -> None:
        self.folder = folder
        self.only = only
        self._archives: list[Archive] = []
        self._index: MemberIndex | None = None

    def prepare(self, chips: Sequence[ChipRecord]) -> None:
        """Find the members of these chips, by the lists of contents of all archives.

        An archive that cannot be used is passed over as long as the others have all files.

        Raises:
            SourceError: Files are absent and an archive cannot be used, or is there in part; or
                files are there twice.
        """
        builder = IndexBuilder(record for chip in chips for record in list_files(chip))
        self._archives = []
        faults = []
        for found in self._find_archives() if chips else ():
            saved = builder.save()
            try:
                archive = found.assemble()
                _take_in(builder, len(self._archives), archive)
                self._archives.append(archive)
            except SourceError as error:
                builder.restore(saved)
                faults.append(error)
        if faults and builder.count_absent():
            raise faults[0]
        self._index = builder.finish([archive.path.name for archive in self._archives])

    def measure(self, record: FileRecord) -> FileRecord | None:
        """Return a record with the size that its archive gives; None = no archive has the file.

        Args:
            record: Of a chip that `prepare` was given.
        """
        if self._index is None:
            raise AssertionError("prepare comes first")
        member = self._index.find(record.filename)
        return member and record._replace(size=member.size)

    def fetch_chips(self, chips: Iterable[ChipRecord]) -> Iterator[FetchedChip]:
        """Yield the chips in the order given."""
        if self._index is None:
            raise AssertionError("prepare comes first")
        readers = [PartReader(archive) for archive in self._archives]
        try:
            for chip in chips:
                yield self._fetch_chip(readers, self._index, chip)
        finally:
            for reader in readers:
                reader.close()

    def _find_archives(self) -> list[FoundParts]:
        if self.only is None:
            return find_archives(self.folder)
        found = [parts for parts in find_archives(self.folder) if parts.has(self.only)]
        if not found:
            remedy = "name an archive (decompress .tar.gz and the like first)"
            raise refuse(self.only, "a .zip, .z01, .zip.001 or .tar file", "another", remedy)
        return found

    def _fetch_chip(
        self, readers: list[PartReader], index: MemberIndex, chip: ChipRecord
    ) -> FetchedChip:
        members = {record: index.find(record.filename) for record in list_files(chip)}
        results: dict[str, bytes | FileError] = {}
        # In the order of the archive, so that a disk reads forward.
        for record, member in sorted(members.items(), key=_place):
            try:
                results[record.filename] = self._read(readers, record, member)
            except FileError as fault:
                results[record.filename] = fault
        return sort_files(chip, results)

    def _read(self, readers: list[PartReader], record: FileRecord, member: Member | None) -> bytes:
        if member is None:
            raise FileError("a member of the archives", "none")
        reader = readers[member.archive]
        name = reader.archive.path.name
        if member.fault:
            expected, got = FAULTS[Fault(member.fault)]
            raise FileError(f"{expected} in {name}", got)
        if member.size != record.size:
            raise FileError(f"{record.size} bytes in {name}", str(member.size))
        if member.size > LARGEST_FILE:
            raise FileError(f"at most {LARGEST_FILE} bytes", str(member.size))
        try:
            if member.method == Method.TAR:
                return reader.read(member.offset, member.size)
            return read_zip_member(reader, member)
        except EndOfArchiveError:
            raise FileError(f"{record.size} bytes in {name}", "the archive's end") from None
        except OSError as error:
            raise FileError(f"readable bytes in {name}", describe_error(error)) from None


def _take_in(builder: IndexBuilder, number: int, archive: Archive) -> None:
    """Index one archive."""
    with PartReader(archive) as reader:
        try:
            if archive.format == "tar":
                for entry in iterate_tar_entries(reader, builder.positions):
                    builder.add(number, entry)
                return
            directory = find_directory(reader)
            for entry in iterate_entries(reader, directory, builder.positions):
                builder.add(number, entry)
            builder.limit(number, directory.start)
        except EndOfArchiveError:
            raise refuse(archive.path, "a whole archive", "its end too early") from None
        except OSError as error:
            expected, got = "an archive that can be read", describe_error(error)
            raise refuse(archive.path, expected, got, "check the disk") from None


def _place(item: tuple[FileRecord, Member | None]) -> tuple[int, int]:
    member = item[1]
    return (-1, 0) if member is None else (member.archive, member.offset)
