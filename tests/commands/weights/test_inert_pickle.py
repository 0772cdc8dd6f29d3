import collections
import contextlib
import copyreg
import io
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from biomassters.commands.weights.inert_pickle import Placeholder, read_pickle
from biomassters.errors import ModelError

MARKER = "executed"
COMMAND = f"touch {MARKER}"
CALL = f"cos\nsystem\n(S'{COMMAND}'\ntR.".encode()
CODE = f"__import__('os').system({COMMAND!r})"


class Evil:
    """Says that it is made by a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.parts = (function, arguments)

    def __reduce__(self) -> Any:
        return self.parts


def read(data: bytes) -> Any:
    return read_pickle(data, makers={}, persistent=lambda _: Placeholder("persistent"))


ATTACKS = {
    "REDUCE of os.system": pickle.dumps(Evil(os.system, COMMAND), 2),
    "STACK_GLOBAL": pickle.dumps(Evil(os.system, COMMAND), 4),
    "eval": pickle.dumps(Evil(eval, CODE), 2),
    "GLOBAL of text": CALL,
    "INST": f"(S'{COMMAND}'\nios\nsystem\n.".encode(),
    "OBJ": f"(cos\nsystem\nS'{COMMAND}'\no.".encode(),
    "NEWOBJ": b"\x80\x02cos\nsystem\n(S'" + COMMAND.encode() + b"'\nt\x81.",
    "NEWOBJ_EX": b"\x80\x04cos\nsystem\n(S'" + COMMAND.encode() + b"'\nt}\x92.",
    "__setstate__": b"\x80\x02}cos\nsystem\n(S'" + COMMAND.encode() + b"'\ntRb.",
    "BUILD of __setstate__": (
        b"ccollections\nOrderedDict\n)R}(S'__setstate__'\ncos\nsystem\nsbS'"
        + COMMAND.encode()
        + b"'\nb."
    ),
    "BUILD of a class": (
        b"\x80\x02ccollections\nOrderedDict\n}(S'__init__'\ncos\nsystem\nsbS'"
        + COMMAND.encode()
        + b"'\n\x85R."
    ),
    "nested in a module": pickle.dumps(
        collections.OrderedDict(_modules={"encoder": [Evil(os.system, COMMAND)]}), 2
    ),
    "getattr": f"cbuiltins\ngetattr\n(cos\nS'system'\ntR(S'{COMMAND}'\ntR.".encode(),
    "a call of a call": b"cbuiltins\n__import__\n(S'os'\ntR(S'system'\ntR(S'ls'\ntR.",
    "BINPERSID of a call": CALL[:-1] + b"Q.",
    "PERSID": f"Pcos system {COMMAND}\n.".encode(),
    "APPENDS to a call": CALL[:-1] + b"(I1\nI2\ne.",
    "SETITEMS of a call": CALL[:-1] + b"(I1\nI2\nu.",
    "a call as a key": b"}" + CALL[:-1] + b"I1\ns.",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_of_a_pickle_is_executed(attack: str, folder: Path) -> None:
    with contextlib.suppress(ModelError):
        read(ATTACKS[attack])
    assert not list(folder.iterdir())


@pytest.mark.parametrize("attack", ["REDUCE of os.system", "eval", "GLOBAL of text", "OBJ"])
def test_pythons_own_unpickler_does_execute_these_attacks(attack: str, folder: Path) -> None:
    pickle.loads(ATTACKS[attack])  # noqa: S301
    assert (folder / MARKER).exists()


def test_module_that_a_pickle_names_is_not_imported() -> None:
    assert read(b"cantigravity\nfly\n.").name == "antigravity fly"
    assert "antigravity" not in __import__("sys").modules


def test_globals_without_a_maker_are_named() -> None:
    unknown: set[str] = set()
    data = b"(cos\nsystem\n(S'a'\niposix\nfork\nccollections\nOrderedDict\n\x82\xf0t."
    read_pickle(data, makers={}, persistent=lambda _: None, unknown=unknown)
    assert unknown == {"os system", "posix fork", "copyreg extension_240"}


def test_pickles_of_a_file_are_read_one_after_the_other() -> None:
    file = io.BytesIO(pickle.dumps([1]) + pickle.dumps("two") + b"numbers")
    both = [read_pickle(file, makers={}, persistent=lambda _: None) for _ in range(2)]
    assert (both, file.read()) == ([[1], "two"], b"numbers")


def test_extension_registry_is_not_asked(folder: Path) -> None:
    copyreg.add_extension("os", "system", 0xF0)
    try:
        assert isinstance(read(b"\x80\x02\x82\xf0X\x01\x00\x00\x00a\x85R."), Placeholder)
        assert isinstance(read(b"\x80\x02\x84\xf0\x00\x00\x00."), Placeholder)
    finally:
        copyreg.remove_extension("os", "system", 0xF0)
    assert not list(folder.iterdir())


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_containers_are_read_in_every_protocol(protocol: int) -> None:
    plain = {
        "numbers": [0, -1, 255, 256, 2**31, -(2**70), 1.5, True, False, None],
        "text": ("a", "é", "\U0001f332", "a\nb", "x" * 300),
        "nested": {1: [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)], "set": {1, 2}},
        "empty": [[], {}, set()],
        "ordered": collections.OrderedDict(a=1, b=2),
    }
    assert read(pickle.dumps(plain, protocol)) == plain


def test_what_a_pickle_holds_twice_is_one_object() -> None:
    shared = [1]
    first, second = read(pickle.dumps([shared, shared]))
    assert first is second


def test_object_is_a_placeholder_with_its_attributes() -> None:
    made = read(pickle.dumps(Path("a"), 2))
    assert isinstance(made, Placeholder)
    made = read(b"cargparse\nNamespace\n)\x81}(S'backbone'\nS'resnet18'\nub.")
    assert (made.name, made.state) == ("argparse Namespace", {"backbone": "resnet18"})


def test_attributes_of_a_dictionary_are_dropped() -> None:
    assert read(b"ccollections\nOrderedDict\n)R}(S'_metadata'\nI1\nubI1\nI2\ns.") == {1: 2}


BOMBS = {
    "memo index": b"\x80\x02Nr\xff\xff\xff\xff.",
    "announced text": b"\x80\x04\x8d" + (2**62).to_bytes(8, "little") + b"a.",
    "announced bytes": b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b"a.",
    "announced frame": b"\x80\x04\x95" + (2**62).to_bytes(8, "little") + b"N.",
    "nested tuples as a key": b"}" + b")" + b"\x85" * 200_000 + b"Ns.",
    "nested tuples in a set": b"\x80\x04\x8f()" + b"\x85" * 200_000 + b"\x90.",
    "doubling": b"]" + b"2\x86" * 200 + b".",
    "nested marks": b"(" * 200_000 + b".",
    "digits": b"I" + b"9" * 100_000 + b"\n.",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bomb_takes_no_more_than_its_own_size(bomb: str) -> None:
    with contextlib.suppress(ModelError):
        read(BOMBS[bomb])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no pickle",
        b"\x80\x02",
        b"\x80\x02.",
        b"N",
        b"0.",
        b"\x85.",
        b"\x86.",
        b"t.",
        b"R.",
        b"NR.",
        b"NNR.",
        b"Nb.",
        b"g7\n.",
        b"h\x01.",
        b"](I1\nu.",
        b"}(I1\nu.",
        b"}(I1\ne.",
        b"\x93.",
        b"Fx\n.",
        b"\x98.",
        b"ccollections\nOrderedDict\n((I1\ntltR.",
    ],
)
def test_damaged_pickle_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(ModelError, match="expected a whole pickle") as caught:
        read(data)
    assert "\n" not in str(caught.value)


def test_every_opcode_is_known_or_refused() -> None:
    import pickletools

    from biomassters.commands.weights.inert_pickle import (
        _ALIASES,
        _CONSTANTS,
        _NEW,
        _TUPLES,
        _Machine,
    )

    known = {*_ALIASES, *_CONSTANTS, *_NEW, *_TUPLES, "STOP"}
    assert {opcode.name for opcode in pickletools.opcodes} - known == {
        "NEXT_BUFFER",
        "READONLY_BUFFER",
    }
    assert all(hasattr(_Machine, method) for method in _ALIASES.values())
