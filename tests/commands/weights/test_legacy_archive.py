"""The format from before torch 1.6: pickles one after the other, then the numbers."""

import contextlib
import io
import pickle
import random
import struct
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from biomassters.commands.weights.inert_pickle import Placeholder
from biomassters.commands.weights.legacy_archive import START, LegacyArchive, open_archive
from biomassters.errors import ModelError

MAGIC = int.from_bytes(START[2:12], "little")


def save(content: Any) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the sources of these classes are not to be had
        torch.save(content, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def write(pickled: bytes, keys: Any, numbers: bytes = b"", **system: Any) -> bytes:
    """Write a file whose pickle and storages are what they are told to be."""
    system = {"little_endian": sys.byteorder == "little", **system}
    parts = [pickle.dumps(part, 2) for part in (MAGIC, system.pop("version", 1001), system)]
    return b"".join([*parts, pickled, pickle.dumps(keys, 2), numbers])


def write_tensor(size: int = 2, kind: str = "FloatStorage") -> bytes:
    storage = f"(S'storage'\nctorch\n{kind}\nS'7'\nS'cpu'\nI{size}\nNtQ"
    return f"ctorch._utils\n_rebuild_tensor_v2\n({storage}I0\n(I2\nt(I1\ntI00\nNtR.".encode()


NUMBERS = struct.pack("<q2f", 2, 1.5, -2.5)


def open_file(data: bytes) -> LegacyArchive:
    archive = open_archive(Path("file.pth"), io.BytesIO(data))
    assert isinstance(archive, LegacyArchive)
    return archive


def test_all_tensors_of_a_file_are_read() -> None:
    content = {f"t{n}": torch.arange(n + 1).to(torch.float32) for n in range(20)}
    content |= {"half": torch.ones(3).half(), "view": content["t9"][2:5], "whole": torch.tensor(7)}
    archive = open_file(save(content))
    stored = archive.read_content()
    assert all(torch.equal(archive.read_tensor(stored[name]), t) for name, t in content.items())


def test_module_is_a_placeholder_with_its_attributes() -> None:
    module = nn.Linear(2, 3)
    archive = open_file(save(module))
    stored = archive.read_content()
    assert isinstance(stored, Placeholder)
    assert stored.name == "torch.nn.modules.linear Linear"
    weight = archive.read_tensor(stored.state["_parameters"]["weight"])
    assert torch.equal(weight, module.weight)


def test_handmade_tensor_is_read() -> None:
    archive = open_file(write(write_tensor(), ["7"], NUMBERS + b"beyond"))
    assert archive.read_tensor(archive.read_content()).tolist() == [1.5, -2.5]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (write(write_tensor(), ["7"], NUMBERS[:-1]), r"2 of 2 numbers of tensor 7"),
        (write(write_tensor(), ["7"], b""), r"0 of 2 numbers of tensor 7"),
        (write(write_tensor(2**40), ["7"], NUMBERS), r"2 of 1099511627776 numbers"),
        (write(write_tensor(), [], NUMBERS), r"without the numbers of 1 tensors"),
        (write(write_tensor(), ["8"], NUMBERS), r"without the numbers of 1 tensors"),
        (write(write_tensor(), {"7": 1}, NUMBERS), r"without the numbers of 1 tensors"),
        (write(write_tensor(1), ["7"], NUMBERS), r"a tensor within the 1 numbers of 7"),
        (
            write(b"(" + write_tensor()[:-1] + write_tensor(kind="IntStorage")[:-1] + b"t.", ["7"]),
            r"one size and type of tensor 7",
        ),
        (write(b"N.", [], version=1000), "another version"),
        (write(b"N.", [], little_endian=sys.byteorder != "little"), "another byte order"),
        (write(b"N.", [])[:40], "expected a whole pickle"),
    ],
)
def test_damaged_or_lying_file_is_refused_in_one_line(data: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        open_file(data).read_content()
    assert "file.pth" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_of_a_file_is_executed(tmp_path: Path) -> None:
    call = f"cos\nsystem\n(S'touch {tmp_path / 'marker'}'\ntR".encode()
    for attack in (call, b"(S'module'\n" + call + b"NNtQ" + call + b"b", call + b"Q"):
        archive = open_file(write(attack + b".", []))
        archive.read_content()
        assert archive.unknown == {"os system"}
    with pytest.raises(ModelError, match="another version"):
        open_file(write(b"N.", []).replace(pickle.dumps(1001, 2), call + b".")).read_content()
    assert not list(tmp_path.iterdir())


def test_damaged_bytes_are_refused_or_read_but_never_an_accident() -> None:
    whole = save({"tensor": torch.arange(50.0), "module": nn.Linear(2, 3)})
    rng = random.Random(0)  # noqa: S311
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(START) + 2, len(data))] = rng.randrange(256)
        with contextlib.suppress(ModelError):
            open_file(bytes(data)).read_content()
