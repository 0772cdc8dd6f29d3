import argparse
import contextlib
import io
import random
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from biomassters.commands.weights.inert_pickle import Placeholder
from biomassters.commands.weights.legacy_archive import open_archive
from biomassters.commands.weights.torch_archive import StoredTensor
from biomassters.errors import ModelError


def read(data: bytes, name: str = "tensor") -> Any:
    """Read a file, and the tensor of that name if it has one."""
    archive = open_archive(Path("file.pth"), io.BytesIO(data))
    content = archive.read_content()
    stored = content.get(name) if isinstance(content, dict) else None
    return archive.read_tensor(stored) if isinstance(stored, StoredTensor) else content


def save(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def write_zip(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, data in entries.items():
            file.writestr(name, data)
    return buffer.getvalue()


def write_tensor(
    *,
    kind: str = "FloatStorage",
    key: str = "0",
    size: int = 6,
    offset: int = 0,
    shape: tuple[int, ...] = (2, 3),
    stride: tuple[int, ...] = (3, 1),
    data: bytes = struct.pack("<6f", *range(6)),
    entry: str = "a/data/0",
) -> bytes:
    """Write a file whose pickle says of its tensor what it is told to."""

    def push(number: int) -> bytes:
        return f"I{number}\n".encode()

    def pack(*items: bytes) -> bytes:
        return b"(" + b"".join(items) + b"t"

    storage = pack(
        b"S'storage'\n", b"ctorch\n" + kind.encode() + b"\n", f"S'{key}'\n".encode(), b"N"
    )[:-1]
    arguments = pack(
        storage + push(size) + b"tQ",
        push(offset),
        pack(*map(push, shape)),
        pack(*map(push, stride)),
        b"I00\n",
        b"N",
    )
    pickled = b"}S'tensor'\nctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"Rs."
    return write_zip({"a/data.pkl": pickled, entry: data})


TENSORS: dict[str, Callable[[], torch.Tensor]] = {
    "float32": lambda: torch.arange(6.0).reshape(2, 3),
    "float16": lambda: torch.arange(6.0).half(),
    "bfloat16": lambda: torch.arange(6.0).bfloat16(),
    "float64": lambda: torch.arange(6.0).double(),
    "int64": lambda: torch.tensor(7),
    "bool": lambda: torch.tensor([True, False]),
    "transposed": lambda: torch.arange(6.0).reshape(2, 3).T,
    "channels_last": lambda: torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "part of another": lambda: torch.arange(12.0).reshape(3, 4)[1:, 2:],
    "empty": lambda: torch.empty(0, 3),
    "parameter": lambda: torch.nn.Parameter(torch.arange(6.0)),
}


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("name", TENSORS)
def test_tensor_is_read_as_torch_reads_it(name: str, is_zip: bool) -> None:
    tensor = TENSORS[name]().detach() if name != "parameter" else TENSORS[name]()
    read_back = read(save({"tensor": tensor}, _use_new_zipfile_serialization=is_zip))
    assert torch.equal(read_back, tensor)
    assert read_back.dtype == tensor.dtype
    assert read_back.is_contiguous()
    assert not read_back.requires_grad


def test_containers_and_attributes_are_read() -> None:
    content = read(
        save(
            {
                "state_dict": OrderedDict(weight=torch.ones(2)),
                "epoch": 3,
                "args": argparse.Namespace(backbone="resnet18"),
            }
        )
    )
    assert content["epoch"] == 3
    assert content["args"].state == {"backbone": "resnet18"}
    assert content["state_dict"]["weight"].shape == (2,)


def test_module_is_a_placeholder() -> None:
    module = read(save(torch.nn.Linear(2, 3)))
    assert isinstance(module, Placeholder)
    assert module.name == "torch.nn.modules.linear Linear"
    assert module.state["_parameters"]["weight"].shape == (3, 2)


def test_handmade_tensor_is_read() -> None:
    assert torch.equal(read(write_tensor()), torch.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize(
    "lie",
    [
        {"shape": (3, 3)},
        {"shape": (2, 3), "stride": (4, 1)},
        {"offset": 1},
        {"offset": -1},
        {"offset": 2**62},
        {"stride": (-3, 1)},
        {"stride": (3,)},
        {"shape": (-2, -3)},
        {"shape": (10**9, 10**9), "stride": (0, 0)},
        {"shape": (2**62, 2**62), "stride": (2**62, 1)},
        {"shape": (10**4000,), "stride": (1,)},
        {"shape": (0, 3), "offset": 7},
    ],
)
def test_view_beyond_its_storage_is_refused(lie: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"at file\.pth"):
        read(write_tensor(**lie))


@pytest.mark.parametrize(
    "lie", [{"size": 7}, {"size": 2**40}, {"data": b""}, {"key": "1"}, {"kind": "DoubleStorage"}]
)
def test_storage_larger_than_its_entry_is_refused(lie: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"bytes of tensor .*, got .* at file\.pth"):
        read(write_tensor(**lie))


@pytest.mark.parametrize("key", ["/etc/passwd", "../data.pkl", "../../etc/passwd", ""])
def test_key_is_only_looked_up_among_the_entries(key: str) -> None:
    with pytest.raises(ModelError, match="got none"):
        read(write_tensor(key=key))


@pytest.mark.parametrize("kind", ["QInt8Storage", "UntypedStorage", "Storage", "load"])
def test_storage_of_another_kind_is_no_tensor(kind: str) -> None:
    assert isinstance(read(write_tensor(kind=kind))["tensor"], Placeholder)


def test_absolute_names_of_entries_write_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    with pytest.raises(ModelError):
        read(write_tensor(entry=str(marker)))
    assert not marker.exists()


def test_zip_bomb_is_refused_unread() -> None:
    bomb = write_zip({"a/data.pkl": b"N" * 10**8}, zipfile.ZIP_DEFLATED)
    assert len(bomb) < 10**6
    with pytest.raises(ModelError, match="compressed or encrypted 'a/data"):
        read(bomb)


def test_entry_that_claims_more_than_the_file_holds_is_refused() -> None:
    data = bytearray(write_tensor())
    directory = data.index(b"PK\x01\x02")
    struct.pack_into("<II", data, directory + 20, 2**31, 2**31)
    with pytest.raises(ModelError, match="larger than it can be"):
        read(bytes(data))


def test_what_lies_before_the_zip_file_is_passed_over_and_what_lies_beyond_is_refused() -> None:
    evil = b"cos\nsystem\n(S'touch marker'\ntR."
    assert torch.equal(read(evil + write_tensor()), torch.arange(6.0).reshape(2, 3))
    with pytest.raises(ModelError, match="without its end"):
        read(write_tensor() + evil * 5000)


def test_maker_is_given_what_no_tensor_is_made_of(tmp_path: Path) -> None:
    """REDUCE of what is known, with a call, with too much, and a call set up as its method."""
    call = f"cos\nsystem\n(S'touch {tmp_path / 'marker'}'\ntR".encode()
    known = b"ctorch._utils\n_rebuild_tensor_v2\n"
    setstate = b"}S'__setstate__'\ncos\nsystem\nsb" + call + b"b."
    for pickled in (
        known + b"(" + call * 6 + b"tR.",
        known + b"(" + call * 60 + b"tR.",
        known + call + b"R.",
        known + setstate,
        known + b"(ctorch\nFloatStorage\nI0\n)" + call + b"tR" + setstate,
        b"ctorch._utils\n_rebuild_parameter\n(" + call + b"tR" + setstate,
        b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n(" + call + b"tR.",
        b"\x80\x04\x8c\x02os\x8c\x0bpath.system\x93(S'touch marker'\ntR.",
    ):
        with contextlib.suppress(ModelError):
            read(write_zip({"a/data.pkl": pickled}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a", "storage", "module"])
def test_persistent_id_of_another_kind_is_inert(name: str, tmp_path: Path) -> None:
    call = f"cos\nsystem\n(S'touch {tmp_path / 'marker'}'\ntR".encode()
    identity = f"(S'{name}'\n".encode() + call * 4 + b"tQ."
    assert isinstance(read(write_zip({"a/data.pkl": identity})), Placeholder)
    assert not list(tmp_path.iterdir())


def test_two_entries_of_one_name_are_refused() -> None:
    buffer = io.BytesIO(write_tensor())
    with zipfile.ZipFile(buffer, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("a/data/0", b"other")
    with pytest.raises(ModelError, match="two entries of one name"):
        read(buffer.getvalue())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "got another format"),
        (b"not a checkpoint", "got another format"),
        (write_zip({}), r"a zip file with 0 data\.pkl"),
        (write_zip({"a/data.pkl": b"N.", "b/data.pkl": b"N."}), r"with 2 data\.pkl"),
        (write_zip({"a/b/data.pkl": b"N."}), r"with 1 data\.pkl"),
        (write_zip({"a/data.pkl": b"N.", "a/constants.pkl": b""}), "a TorchScript program"),
        (write_zip({"a/data.pkl": b"N.", "a/byteorder": b"big"}), "another byte order"),
        (save({"tensor": torch.ones(9)})[:-100], "without its end"),
    ],
)
def test_file_of_another_kind_is_named(data: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        read(data)
    assert "file.pth" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_changed_numbers_are_noticed() -> None:
    data = bytearray(save({"tensor": torch.arange(1000.0)}))
    position = data.index(struct.pack("<f", 500.0))
    data[position] ^= 1
    with pytest.raises(ModelError, match="damaged data"):
        read(bytes(data))


def test_damaged_file_is_refused_or_read_but_never_an_accident() -> None:
    whole = save({"tensor": torch.arange(50.0), "args": argparse.Namespace(a=1)})
    rng = random.Random(0)  # noqa: S311
    for _ in range(500):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        with contextlib.suppress(ModelError):
            read(bytes(data))
