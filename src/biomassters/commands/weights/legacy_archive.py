"""Files that `torch.save` wrote before torch 1.6, or since with its old format asked for.

They are pickles one after the other (what file it is, what was saved, the keys of its storages),
then the storages: each the number of its numbers, and these.

Source: torch/serialization.py, _legacy_save.
"""

import io
import sys
from pathlib import Path
from typing import Any, BinaryIO, Final

from biomassters.commands.weights.inert_pickle import Placeholder
from biomassters.commands.weights.torch_archive import (
    MAX_PICKLE_BYTES,
    Storage,
    TorchArchive,
    ZipArchive,
    make_storage,
)
from biomassters.errors import ModelError

START: Final = bytes.fromhex("8a0a6cfc9c46f9206aa850192e")
"""How such a file starts, after two bytes. Source: torch/serialization.py, MAGIC_NUMBER."""
VERSION: Final = 1001
"""Source: torch/serialization.py, PROTOCOL_VERSION."""
COUNT_BYTES: Final = 8


def open_archive(path: Path, file: BinaryIO) -> TorchArchive:
    """Open a file that `torch.save` wrote, of either format.

    Args:
        path: Its name, for errors.
        file: The same, opened by the caller.

    Raises:
        ModelError: It is another kind of file, or a damaged one.
    """
    is_legacy = file.read(2 + len(START))[2:] == START
    file.seek(0)
    return LegacyArchive(path, file) if is_legacy else ZipArchive(path, file)


class LegacyArchive(TorchArchive):
    """Such a file; it has no checksums, so that changed numbers are not noticed."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        super().__init__(path)
        self.file = file
        self.storages: dict[str, Storage] = {}
        self.places: dict[str, int] = {}  # where in the file their numbers begin

    def read_content(self) -> Any:
        """Return what was saved; see `TorchArchive`."""
        start = io.BytesIO(self.file.read(MAX_PICKLE_BYTES))
        _magic, version, system = (self._read_plain(start) for _ in range(3))
        if version != VERSION or not isinstance(system, dict):
            raise self._refuse("another version of torch's old format")
        if system.get("little_endian") is not (sys.byteorder == "little"):
            raise self._refuse(f"numbers in another byte order than {sys.byteorder}-endian")
        content = self._read_pickle(start, self._find_storage)
        self._locate(self._read_plain(start), start.tell())
        return content

    def _read_numbers(self, storage: Storage) -> bytes:
        self.file.seek(self.places[storage.key])
        return self.file.read(storage.n_bytes)

    def _read_plain(self, file: BinaryIO) -> Any:
        return self._read_pickle(file, lambda _: Placeholder())

    def _find_storage(self, identity: Any) -> Any:
        """Make a storage, or the class of a module, which is named beside its source text."""
        if isinstance(identity, tuple) and identity[:1] == ("module",) and len(identity) > 1:
            return identity[1]
        storage = make_storage(identity)
        if (
            isinstance(storage, Storage)
            and self.storages.setdefault(storage.key, storage) != storage
        ):
            raise ModelError(f"expected one size and type of tensor {storage.key}, got two")
        return storage

    def _locate(self, keys: Any, position: int) -> None:
        """Find where the numbers of each storage begin."""
        size = self.file.seek(0, io.SEEK_END)
        for key in keys if isinstance(keys, list) else []:
            storage = self.storages.get(key) if isinstance(key, str) else None
            if storage is None:
                break
            self.file.seek(position)
            count = int.from_bytes(self.file.read(COUNT_BYTES), "little")
            position += COUNT_BYTES
            self.places[key] = position
            position += storage.n_bytes
            if count != storage.size or position > size:
                raise self._refuse(f"{count} of {storage.size} numbers of tensor {key}")
        absent = len(self.storages) - len(self.places)
        if absent:
            raise self._refuse(f"one without the numbers of {absent} tensors")
