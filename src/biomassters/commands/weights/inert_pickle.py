"""Reading a pickle as data: nothing that it names is imported, called or changed.

Knows the pickle format; knows nothing of tensors. Python's own unpickler would call what a file
names, look names up in registries and allocate what it announces; this machine has no way to do so:
it makes plain containers, calls the few makers that it is given, and lets an inert `Placeholder`
stand for every other global and for all that would be made of it.

Why not `torch.load(weights_only=True)` with stand-ins by `safe_globals` (tried with torch 2.11 and
2.15): it calls what its own list allows with a file's arguments, so that a `bytearray` of 64 GB is
allocated; nested tuples as a key of a dictionary crash the process (SIGSEGV); and it refuses a
file for what lies beside sound weights: a name in `os`, a defaultdict, a deque, a protocol from 3
on.
"""

import pickletools
from collections.abc import Callable, Mapping
from types import NoneType
from typing import Any, BinaryIO, Final

from biomassters.errors import ModelError

Maker = Callable[[tuple[Any, ...]], Any]
"""Makes a value of the arguments that a pickle gives to a global."""

PLAIN_KEYS: Final = (str, bytes, int, float, bool, NoneType)
"""What may be a key: a tuple, nested deep enough, could exhaust the stack when hashed."""


class Placeholder:
    """What stands for a global of a pickle, or for an object that was to be made of one.

    Attributes:
        name: Module and name of the global, with a space between; "" where there is none.
        state: Attributes that the pickle gives it.
    """

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.state: dict[str, Any] = {}


def read_pickle(
    data: bytes | BinaryIO,
    *,
    makers: Mapping[str, Maker],
    persistent: Callable[[Any], Any],
    unknown: set[str] | None = None,
) -> Any:
    """Return what a pickle describes.

    Args:
        data: Of any protocol. Of a file, whose memory is the caller's to bound, it is read just to
            the end of the pickle.
        makers: By global (module and name with a space between), beside those of containers.
        persistent: Makes a value of a persistent id.
        unknown: Gets the globals that the pickle names and no maker is for.

    Raises:
        ModelError: It is no pickle, or a damaged one.
    """
    machine = _Machine({**CONTAINERS, **makers}, persistent)
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                if unknown is not None:
                    unknown |= machine.names - machine.makers.keys()
                return machine.stack.pop()
            machine.execute(opcode.name, argument)
    except (ValueError, LookupError) as error:
        raise _refuse(" ".join(str(error).split()) or type(error).__name__) from None
    raise _refuse("none")


def make_dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """Make a dictionary of nothing, or of a list of pairs."""
    pairs = arguments[0] if arguments else []
    made: dict[Any, Any] = {}
    for pair in pairs if isinstance(pairs, (list, tuple)) else []:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise _refuse("a dictionary of other things than pairs")
        made[_as_key(pair[0])] = pair[1]
    return made


def make_set(arguments: tuple[Any, ...]) -> set[Any]:
    """Make a set of nothing, or of a list."""
    items = arguments[0] if arguments else []
    return {_as_key(item) for item in (items if isinstance(items, (list, tuple)) else [])}


CONTAINERS: Final[Mapping[str, Maker]] = {
    "collections OrderedDict": make_dict,
    "builtins set": make_set,
    "__builtin__ set": make_set,
    "builtins frozenset": make_set,
    "__builtin__ frozenset": make_set,
}


class _Machine:
    """The stack and the memo of a pickle; one method an opcode, where it needs one."""

    def __init__(self, makers: Mapping[str, Maker], persistent: Callable[[Any], Any]) -> None:
        self.makers = makers
        self.persistent = persistent
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each mark
        self.memo: dict[int, Any] = {}
        self.names: set[str] = set()  # of all globals

    def execute(self, opcode: str, argument: Any) -> None:
        """Execute an opcode."""
        if opcode in _CONSTANTS:
            self.stack.append(argument)
        elif opcode in _NEW:
            self.stack.append(_NEW[opcode]())
        elif opcode in _TUPLES:
            self._pack(_TUPLES[opcode])
        elif opcode in _ALIASES:
            getattr(self, _ALIASES[opcode])(argument)
        else:
            raise _refuse(f"the opcode {opcode}")

    def _ignore(self, _: Any) -> None:
        pass

    def _mark(self, _: Any) -> None:
        self.below.append(self.stack)
        self.stack = []

    def _take_marked(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def _pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._take_marked()

    def _pop_mark(self, _: Any) -> None:
        self._take_marked()

    def _duplicate(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def _put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def _memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def _pack(self, n_items: int) -> None:
        self.stack[-n_items:] = [tuple(self._peek(n_items))]

    def _peek(self, n_items: int) -> list[Any]:
        if len(self.stack) < n_items:
            raise _refuse(f"{len(self.stack)} values where {n_items} were needed")
        return self.stack[-n_items:]

    def _take(self, n_items: int) -> list[Any]:
        items = self._peek(n_items)
        del self.stack[-n_items:]
        return items

    def _tuple(self, _: Any) -> None:
        items = self._take_marked()
        self.stack.append(tuple(items))

    def _list(self, _: Any) -> None:
        items = self._take_marked()
        self.stack.append(items)

    def _dict(self, _: Any) -> None:
        items = self._take_marked()
        self.stack.append({})
        self._set_items_of(items)

    def _frozenset(self, _: Any) -> None:
        items = self._take_marked()
        self.stack.append(make_set((items,)))

    def _append(self, _: Any) -> None:
        self._add_items(self._take(1), list)

    def _appends(self, _: Any) -> None:
        self._add_items(self._take_marked(), list)

    def _add_to_set(self, _: Any) -> None:
        self._add_items([_as_key(item) for item in self._take_marked()], set)

    def _add_items(self, items: list[Any], kind: type) -> None:
        target = self.stack[-1]
        if isinstance(target, list) and kind is list:
            target.extend(items)
        elif isinstance(target, set) and kind is set:
            target.update(items)
        elif not isinstance(target, Placeholder):
            raise _refuse(f"items of a {kind.__name__} for a {type(target).__name__}")

    def _set_item(self, _: Any) -> None:
        self._set_items_of(self._take(2))

    def _set_items(self, _: Any) -> None:
        self._set_items_of(self._take_marked())

    def _set_items_of(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if len(items) % 2:
            raise _refuse("a key without a value")
        if isinstance(target, dict):
            target.update(zip(map(_as_key, items[::2]), items[1::2], strict=True))
        elif not isinstance(target, Placeholder):
            raise _refuse(f"items of a dict for a {type(target).__name__}")

    def _global(self, name: str) -> None:
        self.stack.append(self._name(name))

    def _stack_global(self, _: Any) -> None:
        module, name = self._take(2)
        known = isinstance(module, str) and isinstance(name, str)
        self._global(f"{module} {name}" if known else "? ?")

    def _extension(self, code: int) -> None:
        self._global(f"copyreg extension_{code}")

    def _name(self, name: str) -> Placeholder:
        self.names.add(name)
        return Placeholder(name)

    def _make(self, _: Any) -> None:
        maker, arguments = self._take(2)
        self._make_of(maker, arguments)

    def _make_with_keywords(self, _: Any) -> None:
        maker, _arguments, _keywords = self._take(3)
        self.stack.append(Placeholder(maker.name if isinstance(maker, Placeholder) else ""))

    def _instance(self, name: str) -> None:
        self._make_of(self._name(name), tuple(self._take_marked()))

    def _object(self, _: Any) -> None:
        maker, *arguments = self._take_marked() or [None]
        self._make_of(maker, tuple(arguments))

    def _make_of(self, maker: Any, arguments: Any) -> None:
        if not isinstance(arguments, tuple):
            raise _refuse(f"arguments that are no tuple but a {type(arguments).__name__}")
        name = maker.name if isinstance(maker, Placeholder) else ""
        made = self.makers[name](arguments) if name in self.makers else Placeholder(name)
        self.stack.append(made)

    def _build(self, _: Any) -> None:
        state = self._take(1)[0]
        target = self.stack[-1]
        if isinstance(target, Placeholder):
            for part in state if isinstance(state, tuple) else (state,):
                if isinstance(part, dict):
                    target.state.update(part)

    def _persistent(self, identity: Any) -> None:
        self.stack.append(self.persistent(identity))

    def _stack_persistent(self, _: Any) -> None:
        self.stack.append(self.persistent(self._take(1)[0]))


_CONSTANTS: Final = {
    *("INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "BYTEARRAY8"),
}
_NEW: Final[Mapping[str, Callable[[], Any]]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_TUPLES: Final = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_ALIASES: Final = {
    **dict.fromkeys(("PROTO", "FRAME"), "_ignore"),
    "MARK": "_mark",
    "POP": "_pop",
    "POP_MARK": "_pop_mark",
    "DUP": "_duplicate",
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), "_put"),
    "MEMOIZE": "_memoize",
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), "_get"),
    "TUPLE": "_tuple",
    "LIST": "_list",
    "DICT": "_dict",
    "FROZENSET": "_frozenset",
    "APPEND": "_append",
    "APPENDS": "_appends",
    "ADDITEMS": "_add_to_set",
    "SETITEM": "_set_item",
    "SETITEMS": "_set_items",
    "GLOBAL": "_global",
    "STACK_GLOBAL": "_stack_global",
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), "_extension"),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), "_make"),
    "NEWOBJ_EX": "_make_with_keywords",
    "INST": "_instance",
    "OBJ": "_object",
    "BUILD": "_build",
    "PERSID": "_persistent",
    "BINPERSID": "_stack_persistent",
}


def _as_key(value: Any) -> Any:
    return value if isinstance(value, (*PLAIN_KEYS, Placeholder)) else Placeholder()


def _refuse(got: str) -> ModelError:
    return ModelError(f"expected a whole pickle, got {got}")
