"""Files that `torch.save` wrote, read without unpickling: their content as data, their tensors.

Knows the zip format that torch has written since 1.6, and tensors as any of its formats pickles
them; knows nothing of what a file is for. All that a file says of itself (sizes, shapes, strides)
is held against what is really there. Why not by torch: see `inert_pickle`; it does not hold
numbers against their checksums either.
"""

import math
import sys
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import torch
from torch import Tensor

from biomassters.commands.weights.inert_pickle import Maker, Placeholder, read_pickle
from biomassters.errors import ModelError

MAX_PICKLE_BYTES: Final = 2**26
"""Of the pickle beside the tensors; that of the winner's largest file has a few MB."""

DTYPES: Final = {
    "torch FloatStorage": torch.float32,
    "torch DoubleStorage": torch.float64,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch LongStorage": torch.int64,
    "torch IntStorage": torch.int32,
    "torch ShortStorage": torch.int16,
    "torch CharStorage": torch.int8,
    "torch ByteStorage": torch.uint8,
    "torch BoolStorage": torch.bool,
}


@dataclass(frozen=True, kw_only=True)
class Storage:
    """Numbers in a file.

    Attributes:
        key: Their name there.
        dtype: Their type.
        size: How many there are.
    """

    key: str
    dtype: torch.dtype
    size: int

    @property
    def n_bytes(self) -> int:
        """Their size."""
        return self.size * self.dtype.itemsize


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """A tensor that was not read yet; it lies within its storage, and is no larger.

    Attributes:
        storage: Where its numbers are.
        offset: The first of them.
        shape: Its shape.
        stride: Numbers from one to the next along each axis.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class TorchArchive(ABC):
    """A file that `torch.save` wrote, open for reading.

    Law: reading imports, calls and changes nothing that the file names.

    Attributes:
        path: Its name, for errors.
        unknown: Globals (module and name with a space between) that it names and that mean nothing
            here, once its content was read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.unknown: set[str] = set()

    @abstractmethod
    def read_content(self) -> Any:
        """Return what was saved: plain containers, `StoredTensor`s and inert `Placeholder`s.

        Raises:
            ModelError: The file is damaged, or a tensor lies beyond its storage.
        """

    def read_tensor(self, stored: StoredTensor) -> Tensor:
        """Read a tensor into memory of its own.

        Raises:
            ModelError: Its numbers are damaged.
        """
        storage = stored.storage
        data = bytearray(self._read_numbers(storage))
        if math.prod(stored.shape) == 0:
            return torch.empty(stored.shape, dtype=storage.dtype)
        numbers = torch.frombuffer(data, dtype=storage.dtype, count=storage.size)
        return numbers.as_strided(stored.shape, stored.stride, stored.offset).contiguous()

    @abstractmethod
    def _read_numbers(self, storage: Storage) -> bytes: ...

    def _read_pickle(self, data: bytes | BinaryIO, find_storage: Callable[[Any], Any]) -> Any:
        try:
            return read_pickle(data, makers=MAKERS, persistent=find_storage, unknown=self.unknown)
        except ModelError as error:
            raise ModelError(f"{error}, at {self.path}; fetch the file again") from None
        finally:
            self.unknown -= DTYPES.keys()

    def _refuse(self, got: str) -> ModelError:
        return ModelError(
            f"expected a whole file that torch.save wrote, got {got}, at {self.path};"
            " fetch it again, or name another file"
        )


class ZipArchive(TorchArchive):
    """Such a file of torch since 1.6."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        """Open an archive.

        Args:
            path: Its name, for errors.
            file: The same, opened by the caller.

        Raises:
            ModelError: It is another kind of file, or a damaged one.
        """
        super().__init__(path)
        self.size = file.seek(0, 2)
        file.seek(0)
        start = file.read(2)
        try:
            self.zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            is_cut = start == b"PK"
            kind = f"a zip file without its end ({error})" if is_cut else "another format"
            raise self._refuse(kind) from None
        self.entries = self._list_entries()
        names = [name for name in self.entries if name.endswith("/data.pkl")]
        if len(names) != 1 or names[0].count("/") != 1:
            raise self._refuse(f"a zip file with {len(names)} data.pkl")
        self.root = names[0].partition("/")[0]
        if f"{self.root}/constants.pkl" in self.entries:
            raise self._refuse("a TorchScript program")
        order = f"{self.root}/byteorder"
        if order in self.entries and self._read_entry(order, limit=16) != sys.byteorder.encode():
            raise self._refuse(f"numbers in another byte order than {sys.byteorder}-endian")

    def read_content(self) -> Any:
        """Return what was saved; see `TorchArchive`."""
        data = self._read_entry(f"{self.root}/data.pkl", limit=MAX_PICKLE_BYTES)
        return self._read_pickle(data, self._find_storage)

    def _read_numbers(self, storage: Storage) -> bytes:
        return self._read_entry(self._entry_of(storage.key))

    def _list_entries(self) -> dict[str, zipfile.ZipInfo]:
        entries = {entry.filename: entry for entry in self.zip.infolist()}
        if len(entries) < len(self.zip.infolist()):
            raise self._refuse("a zip file with two entries of one name")
        for entry in entries.values():
            # torch stores as is: a compressed entry could be larger than any memory.
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                raise self._refuse(f"a compressed or encrypted {entry.filename!r}")
            if entry.file_size != entry.compress_size or entry.file_size > self.size:
                raise self._refuse(f"an {entry.filename!r} that is larger than it can be")
        return entries

    def _read_entry(self, name: str, limit: int | None = None) -> bytes:
        entry = self.entries[name]
        if limit is not None and entry.file_size > limit:
            raise self._refuse(f"{entry.file_size} bytes in {name!r} where {limit} are plenty")
        try:
            return self.zip.read(entry)
        except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
            raise self._refuse(f"damaged data ({error})") from None

    def _entry_of(self, key: str) -> str:
        return f"{self.root}/data/{key}"

    def _find_storage(self, identity: Any) -> Storage | Placeholder:
        storage = make_storage(identity)
        if isinstance(storage, Storage):
            entry = self.entries.get(self._entry_of(storage.key))
            if entry is None or entry.file_size < storage.n_bytes:
                got = "none" if entry is None else f"{entry.file_size} bytes"
                raise ModelError(
                    f"expected {storage.n_bytes} bytes of tensor {storage.key}, got {got}"
                )
        return storage


def make_storage(identity: Any) -> Storage | Placeholder:
    """Make a storage of its persistent id: "storage", class, key, location, size (and no view)."""
    if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage":
        return Placeholder()
    _, kind, key, _, size, *view = identity
    dtype = DTYPES.get(kind.name) if isinstance(kind, Placeholder) else None
    if dtype is None or not isinstance(key, str) or not _is_count(size) or view not in ([], [None]):
        return Placeholder()
    return Storage(key=key, dtype=dtype, size=size)


def make_tensor(arguments: tuple[Any, ...]) -> StoredTensor | Placeholder:
    """Make a tensor of storage, offset, shape and stride, and what else there is.

    Raises:
        ModelError: It does not lie within its storage.
    """
    if len(arguments) < 4:
        return Placeholder()
    storage, offset, shape, stride = arguments[:4]
    if not isinstance(storage, Storage):
        return Placeholder()
    are_counts = (
        isinstance(shape, tuple)
        and isinstance(stride, tuple)
        and all(map(_is_count, (offset, *shape, *stride)))
    )
    if not are_counts or len(shape) != len(stride) or not _fits(storage, offset, shape, stride):
        raise ModelError(
            f"expected a tensor within the {storage.size} numbers of {storage.key},"
            f" got offset {_brief(offset)}, shape {_brief(shape)}, stride {_brief(stride)}"
        )
    return StoredTensor(storage=storage, offset=offset, shape=shape, stride=stride)


def make_parameter(arguments: tuple[Any, ...]) -> StoredTensor | Placeholder:
    """Make a parameter: the tensor that it is of."""
    tensor = arguments[0] if arguments else None
    return tensor if isinstance(tensor, StoredTensor) else Placeholder()


MAKERS: Final[Mapping[str, Maker]] = {
    "torch._utils _rebuild_tensor_v2": make_tensor,
    "torch._utils _rebuild_parameter": make_parameter,
}


def _fits(storage: Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    size = math.prod(shape)
    if size == 0:
        return offset <= storage.size
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    # Not larger than its storage: repeated by a stride of 0, it could be larger than any memory.
    return last < storage.size and size <= storage.size


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _brief(value: Any) -> str:
    if isinstance(value, tuple) and all(type(item) is int for item in value):
        return str(value)[:80]
    return str(value)[:80] if type(value) is int else f"a {type(value).__name__}"
