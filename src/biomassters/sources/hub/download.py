"""Large files over HTTP, each byte once: resumed after a lost connection, or a killed process.

huggingface_hub's own ways lose bytes, so that its session and its addresses are used here, with
ranges. `hf_hub_download` starts a file anew when its process was killed. `http_get(resume_size=…)`
writes what came by 10 MiB: a connection that is lost before that brings nothing, however often,
and a kill or a stop loses it. It takes a range other than the one asked for, which only the
checksum of the whole file finds, and files over 50 GB it refuses.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import IO, Final, NamedTuple

from huggingface_hub import get_session, hf_raise_for_status
from huggingface_hub.constants import HF_HUB_DOWNLOAD_TIMEOUT
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from biomassters.errors import SourceError
from biomassters.processes.writing import write_whole
from biomassters.sources.hub.faults import BY_HAND, PassingError, StoppedError, name_faults, retry

STATE_FOLDER: Final = ".download"
"""Beside the files: what is unfinished, and the checksums of what is verified."""

_SEGMENT_BYTES: Final = 10**10
"""Asked for at a time: content networks do not serve 50 GB in one answer."""

_BLOCK_BYTES: Final = 2**20
_OK: Final = 200


class RemoteFile(NamedTuple):
    """A file that a hub offers.

    Attributes:
        name: Its name, without a folder.
        size: Bytes.
        sha256: Its checksum, where the hub gives one.
        url: Its address.
    """

    name: str
    size: int
    sha256: str | None
    url: str


def measure_room(file: RemoteFile, folder: Path) -> int:
    """Return the bytes of a file that must still be written to the folder."""
    if _size(folder / file.name) == file.size:
        return 0
    return max(0, file.size - _size(_part_path(file, folder)))


def download(file: RemoteFile, folder: Path, report: Callable[[int], object], stop: Event) -> None:
    """Put a file into a folder: whole and verified or, whatever happens, not at all.

    A file that is there already and has the hub's size and checksum is left as it is; that
    checksum is computed once, and noted in `STATE_FOLDER` as `sha256sum` would. What an earlier
    process received is not asked for again.

    Args:
        file: Which one.
        folder: Where to put it; one process at a time.
        report: Called with the numbers of bytes that are done.
        stop: Ends the download with what it has so far.

    Raises:
        SourceError: It cannot be had, there is no room for it, or a folder has its name.
        OSError: The disk refuses something else.
        StoppedError: `stop` was set.
    """
    if _is_there(file, folder, report, stop):
        return
    _part_path(file, folder).parent.mkdir(parents=True, exist_ok=True)
    for _ in range(2):
        with _Part(file, folder, report, stop) as part:
            _complete(part)
            if part.is_right():
                part.put_in_place(folder)
                return
            part.restart()
    raise SourceError(
        f"expected {file.name} with the sha256 {file.sha256}, got another twice, at {file.url};"
        f" try again later, {BY_HAND}"
    )


class _Part:
    """The first bytes of a file, on disk, with their checksum."""

    def __init__(
        self, file: RemoteFile, folder: Path, report: Callable[[int], object], stop: Event
    ) -> None:
        self.file = file
        self.stop = stop
        self.size = 0
        self._path = _part_path(file, folder)
        self._report = report
        self._digest = hashlib.sha256()
        # Unbuffered: a killed process loses nothing that it was sent.
        self._file = self._path.open("ab+", buffering=0)

    def __enter__(self) -> "_Part":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def resume(self) -> None:
        """Take in what an earlier process left.

        Raises:
            StoppedError: It was told to stop.
        """
        size = os.fstat(self._file.fileno()).st_size
        if size > self.file.size:
            self._file.truncate(0)
        elif size:
            self._file.seek(0)
            for block in _read_blocks(self._file, self.stop):
                self._count(block)

    def _count(self, block: bytes | memoryview) -> None:
        self._digest.update(block)
        self.size += len(block)
        self._report(len(block))

    def append(self, block: bytes) -> None:
        """Write what came, and no byte more than the file has.

        Raises:
            SourceError: There is no room.
            StoppedError: It was told to stop.
        """
        if self.stop.is_set():
            raise StoppedError
        rest = memoryview(block)[: self.file.size - self.size]
        while rest:
            try:
                n_written = self._file.write(rest)
            except OSError as error:
                raise SourceError(
                    f"expected room for {self.file.size} bytes, got {error.strerror!r} after"
                    f" {self.size}, at {self._path}; free some space and run the same command"
                    " again: what is downloaded is kept"
                ) from None
            self._count(rest[:n_written])
            rest = rest[n_written:]

    def restart(self) -> None:
        """Forget all bytes."""
        self._file.truncate(0)
        self._report(-self.size)
        self.size = 0
        self._digest = hashlib.sha256()

    def is_right(self) -> bool:
        """Tell whether the whole file has the hub's checksum, where the hub gives one."""
        return self.file.sha256 in (None, self._digest.hexdigest())

    def put_in_place(self, folder: Path) -> None:
        """Give the whole file its name, and note its checksum."""
        os.fsync(self._file.fileno())
        self._path.replace(folder / self.file.name)
        _note_checksum(self.file, folder)


def _complete(part: _Part) -> None:
    part.resume()
    while part.size < part.file.size:
        retry(lambda: _receive(part), part.file.url, part.stop)


def _receive(part: _Part) -> None:
    """Receive the next bytes, at most a segment; a fault after many is none yet."""
    start = part.size
    try:
        with name_faults(part.file.url):
            _receive_segment(part, min(part.file.size, start + _SEGMENT_BYTES))
    except PassingError:
        if part.size < start + _BLOCK_BYTES:
            raise


def _receive_segment(part: _Part, end: int) -> None:
    start = part.size
    headers = {
        **build_hf_headers(),
        "Range": f"bytes={start}-{end - 1}",
        "Accept-Encoding": "identity",
    }
    with get_session().stream(
        "GET", part.file.url, headers=headers, timeout=HF_HUB_DOWNLOAD_TIMEOUT
    ) as response:
        hf_raise_for_status(response)
        if response.status_code == _OK:  # the whole file: the range was not heeded
            part.restart()
            end = part.file.size
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise PassingError(f"another range than {headers['Range']}")
        for block in response.iter_raw():
            part.append(block)
            if part.size >= end:
                return
    raise PassingError(f"an answer that ends after {part.size - start} of {end - start} bytes")


def _is_there(file: RemoteFile, folder: Path, report: Callable[[int], object], stop: Event) -> bool:
    """Tell whether the file is in its place already, verified."""
    path = folder / file.name
    if path.is_dir():  # found now, not when the whole file shall have its place
        raise SourceError(f"expected a file or none, got a folder, at {path}; remove or rename it")
    if _size(path) != file.size:
        return False
    if file.sha256 is None or _has_noted_checksum(file, folder):
        report(file.size)
        return True
    digest = hashlib.sha256()
    with path.open("rb") as opened:
        for block in _read_blocks(opened, stop):
            digest.update(block)
            report(len(block))
    if digest.hexdigest() == file.sha256:
        _note_checksum(file, folder)
        return True
    report(-file.size)
    return False


def _read_blocks(opened: IO[bytes], stop: Event) -> Iterator[bytes]:
    while block := opened.read(_BLOCK_BYTES):
        if stop.is_set():
            raise StoppedError
        yield block


def _has_noted_checksum(file: RemoteFile, folder: Path) -> bool:
    """Tell whether the file in its place is the one that was verified: no byte newer than that."""
    try:
        noted = _note_path(file, folder)
        is_newer = (folder / file.name).stat().st_mtime_ns > noted.stat().st_mtime_ns
        return not is_newer and noted.read_text(encoding="utf-8") == _note(file)
    except (OSError, UnicodeDecodeError):
        return False


def _note_checksum(file: RemoteFile, folder: Path) -> None:
    write_whole(_note_path(file, folder), _note(file).encode())


def _note(file: RemoteFile) -> str:
    return f"{file.sha256}  {file.name}\n"


def _note_path(file: RemoteFile, folder: Path) -> Path:
    return folder / STATE_FOLDER / f"{file.name}.sha256"


def _part_path(file: RemoteFile, folder: Path) -> Path:
    return folder / STATE_FOLDER / f"{file.name}.part"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
