"""Archives for the tests: honest ones in every layout, and the means to make them lie."""

import io
import re
import struct
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from example_chips import simulate_record

from biomassters.dataset.files import ChipRecord, list_files
from biomassters.simulator.official_files import simulate_files
from biomassters.sources.archives.archive_source import ArchiveSource
from biomassters.sources.source import FetchedChip

CHIP = "5eed0001"
OTHER_CHIP = "5eed0002"
END_MARK = b"PK\5\6"
ENTRY_MARK = b"PK\1\2"
LOCAL_MARK = b"PK\3\4"
SPLIT_MARK = b"PK\7\x08"

END_FIELDS = {
    "disk": (4, "<H"),
    "directory_disk": (6, "<H"),
    "n_here": (8, "<H"),
    "n_entries": (10, "<H"),
    "size": (12, "<L"),
    "offset": (16, "<L"),
}
ENTRY_FIELDS = {
    "flags": (8, "<H"),
    "method": (10, "<H"),
    "crc": (16, "<L"),
    "compressed_size": (20, "<L"),
    "size": (24, "<L"),
    "disk": (34, "<H"),
    "attributes": (38, "<L"),
    "offset": (42, "<L"),
}
LOCAL_FIELDS = {
    "mark": (0, "<L"),
    "flags": (6, "<H"),
    "method": (8, "<H"),
    "crc": (14, "<L"),
    "compressed_size": (18, "<L"),
    "size": (22, "<L"),
    "path_size": (26, "<H"),
    "extra_size": (28, "<H"),
}


class Unseekable(io.RawIOBase):
    """A stream that zipfile cannot go back in: it writes data descriptors."""

    def __init__(self) -> None:
        self.written = bytearray()

    def writable(self) -> bool:
        """Say yes."""
        return True

    def write(self, data) -> int:
        """Take in data."""
        self.written += data
        return len(data)


@cache
def members_of(*chip_ids: str, folders: bool = True) -> Mapping[str, bytes]:
    """Return the files of simulated chips by their path in the official archives."""
    members = {}
    for chip_id in chip_ids:
        files = simulate_files(chip_id, 32)
        for record in list_files(simulate_record(chip_id)):
            path = f"{record.folder}/{record.filename}" if folders else record.filename
            members[path] = files[record.filename]
    return members


def make_zip(
    members: Mapping[str, bytes] | Iterable[tuple[str | zipfile.ZipInfo, bytes]],
    *,
    stored: bool = False,
    zip64: bool = False,
    streamed: bool = False,
    comment: bytes = b"",
) -> bytes:
    """Return a zip."""
    pairs = members.items() if isinstance(members, Mapping) else members
    buffer = Unseekable() if streamed else io.BytesIO()
    method = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(buffer, "w", method, compresslevel=1) as archive:
        for name, data in pairs:
            info = name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name)
            if not isinstance(name, zipfile.ZipInfo):
                info.compress_type = method
            with archive.open(info, "w", force_zip64=zip64) as file:
                file.write(data)
        archive.comment = comment
    return bytes(buffer.written) if streamed else buffer.getvalue()


def make_tar(members: Mapping[str, bytes], tar_format: int = tarfile.GNU_FORMAT) -> bytes:
    """Return a tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as archive:
        for name, data in members.items():
            archive.addfile(tar_header(name, len(data)), io.BytesIO(data))
    return buffer.getvalue()


def tar_header(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    """Return the header of a tar's member."""
    header = tarfile.TarInfo(name)
    header.size, header.type = size, kind
    return header


def raw_tar(*members: tuple[tarfile.TarInfo | bytes, bytes], end: bytes = bytes(1024)) -> bytes:
    """Return a tar with these headers, true or not, and these bytes."""
    pieces = []
    for header, data in members:
        block = header if isinstance(header, bytes) else header.tobuf(tarfile.GNU_FORMAT)
        pieces.append(block + data + bytes(-len(data) % 512))
    return b"".join(pieces) + end


def patch_tar(block: bytes, at: int, field: bytes) -> bytes:
    """Change a field of a tar's header, and its checksum with it."""
    block = block[:at] + field + block[at + len(field) :]
    total = sum(block[:148] + b" " * 8 + block[156:512])
    return block[:148] + b"%06o\0 " % total + block[156:]


def change_end(data: bytes, **fields: int) -> bytes:
    """Change fields of a zip's end record."""
    return _change(data, data.rindex(END_MARK), END_FIELDS, fields)


def change_entry(data: bytes, path: str, **fields: int) -> bytes:
    """Change fields of a member in the directory of a zip."""
    return _change(data, find_entry(data, path), ENTRY_FIELDS, fields)


def change_local(data: bytes, path: str, **fields: int) -> bytes:
    """Change fields of a member's local header."""
    return _change(data, find_local(data, path), LOCAL_FIELDS, fields)


def find_entry(data: bytes, path: str) -> int:
    """Return where a member's entry in the directory starts."""
    return data.rindex(path.encode()) - 46


def find_local(data: bytes, path: str) -> int:
    """Return where a member's local header starts."""
    return data.index(path.encode()) - 30


def _change(data: bytes, at: int, layout, fields: Mapping[str, int]) -> bytes:
    changed = bytearray(data)
    for name, value in fields.items():
        offset, code = layout[name]
        struct.pack_into(code, changed, at + offset, value)
    return bytes(changed)


def cut(data: bytes, n_parts: int) -> list[bytes]:
    """Cut bytes into parts of about the same size."""
    step = -(-len(data) // n_parts)
    return [data[at : at + step] for at in range(0, len(data), step)]


def split_zip(data: bytes, n_parts: int) -> list[bytes]:
    """Split a zip as Info-ZIP does: a mark in front, places counted by disk, the end in the last.

    Headers and directory may span disks here, which Info-ZIP avoids and APPNOTE allows.
    """
    end_at = data.rindex(END_MARK)
    *head, n_entries, directory_size, directory_at, comment_size = struct.unpack(
        "<4s4H2LH", data[end_at : end_at + 22]
    )
    step = -(-(end_at + len(SPLIT_MARK)) // n_parts)

    def place(at: int) -> tuple[int, int]:
        return divmod(at + len(SPLIT_MARK), step)

    body = bytearray(SPLIT_MARK + data[:end_at])
    at = directory_at + len(SPLIT_MARK)
    for _ in range(n_entries):
        (offset,) = struct.unpack_from("<L", body, at + 42)
        disk, offset = place(offset)
        struct.pack_into("<H", body, at + 34, disk)
        struct.pack_into("<L", body, at + 42, offset)
        at += 46 + sum(struct.unpack_from("<3H", body, at + 28))
    disk, offset = place(directory_at)
    parts = cut(bytes(body), n_parts)
    end = (head[0], n_parts - 1, disk, n_entries, n_entries, directory_size, offset, comment_size)
    parts[-1] += struct.pack("<4s4H2LH", *end) + data[end_at + 22 :]
    return parts


def write_split(folder: Path, stem: str, parts: list[bytes]) -> None:
    """Write parts as `x.z01`, `x.z02`, `x.zip`."""
    for number, part in enumerate(parts[:-1], 1):
        (folder / f"{stem}.z{number:02d}").write_bytes(part)
    (folder / f"{stem}.zip").write_bytes(parts[-1])


def write_numbered(folder: Path, name: str, parts: list[bytes], first: int = 1) -> None:
    """Write parts as `x.zip.001`, `x.zip.002`."""
    for number, part in enumerate(parts, first):
        (folder / f"{name}.{number:03d}").write_bytes(part)


def fetch(folder: Path, *chips: ChipRecord) -> list[FetchedChip]:
    """Return chips as the archives of a folder have them."""
    source = ArchiveSource(folder)
    source.prepare(chips)
    return list(source.fetch_chips(chips))


def fetch_one(folder: Path, chip_id: str = CHIP) -> FetchedChip:
    """Return a simulated chip as the archives of a folder have it."""
    [fetched] = fetch(folder, simulate_record(chip_id))
    return fetched


def is_whole(fetched: FetchedChip) -> bool:
    """Tell whether a chip is there, byte for byte."""
    files = simulate_files(fetched.chip.chip_id, 32)
    return not fetched.bad_files and fetched.files == files


def flip(data: bytes, at: int) -> bytes:
    """Flip a bit of the byte at a place."""
    return data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :]


def check_one_bad_file(fetched: FetchedChip, name: str, expected: str, got: str) -> None:
    """Hold that one file is bad, as these patterns say, and that all others came."""
    [bad] = fetched.bad_files
    assert (bad.chip_id, bad.filename) == (CHIP, name)
    assert re.fullmatch(expected, bad.expected)
    assert re.fullmatch(got, bad.got)
    files = simulate_files(CHIP, 32)
    assert fetched.files == {key: files[key] for key in files if key != name}
