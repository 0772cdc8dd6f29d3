"""A hash of what a module's source means, whatever its comments, docstrings and formatting.

Knows Python's syntax trees; knows nothing of files, stages and DVC.

Two sources have the same meaning if their syntax trees do, without what no running program sees:

- comments, layout, brackets, quotes and the notation of numbers, which no tree holds;
- strings that stand alone as a statement: docstrings, and those behind constants and attributes;
- what only a type checker sees, under `if TYPE_CHECKING:`.

Everything else counts, annotations too: pydantic and dataclasses evaluate theirs. So a renamed
local variable and another order of imports are other meanings, though they change no result.
"""

import ast
import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

from biomassters.fingerprint.digest import DIGITS

Canonical: TypeAlias = "str | list[Canonical]"

_UNSEEN: Final = frozenset({"ctx", "kind", "type_comment", "type_ignores"})
"""Fields that follow from the others, or that only a type checker reads."""

_FIELDS: Final = {
    kind: sorted(set(kind._fields) - _UNSEEN)
    for kind in vars(ast).values()
    if isinstance(kind, type) and issubclass(kind, ast.AST)
}
"""The others, by kind of node."""

_BLOCKS: Final = ("body", "orelse", "finalbody", "handlers", "cases")
"""Fields with statements, or with what holds statements; of expressions they are no lists."""


def hash_meaning(source: str) -> str:
    """Return the hash of a module's meaning, the same on Python 3.11 to 3.13.

    Args:
        source: The module's text.

    Raises:
        SyntaxError: It is not Python.
    """
    return hash_tree(parse(source))


def hash_tree(tree: ast.Module) -> str:
    """Return the hash of a module's meaning, of the tree that `parse` gives."""
    text = json.dumps(_canonicalise(tree), separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def parse(source: str) -> ast.Module:
    """Return a module's syntax tree, without what no running program sees.

    Raises:
        SyntaxError: It is not Python.
    """
    tree = ast.parse(source)
    tree.body = _drop_unseen(tree.body)
    return tree


def walk_statements(statements: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """Yield statements and those in them, in the order of the source."""
    for node in statements:
        yield node
        for name in _BLOCKS:
            block = getattr(node, name, None)
            if isinstance(block, list):
                yield from walk_statements(block)


def _drop_unseen(statements: Sequence[ast.stmt]) -> list[ast.stmt]:
    """Take away strings that are statements, and blocks for type checkers."""
    kept: list[ast.stmt] = []
    for node in statements:
        for name in _BLOCKS:
            block = getattr(node, name, None)
            if isinstance(block, list):
                setattr(node, name, _drop_unseen(block))
        if isinstance(node, ast.If) and _asks_for_a_type_checker(node.test):
            kept += node.orelse  # which runs
        elif not _is_text(node):
            kept.append(node)
    return kept


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _asks_for_a_type_checker(test: ast.expr) -> bool:
    """Tell whether it is `TYPE_CHECKING` or `typing.TYPE_CHECKING`, which is false when run."""
    if isinstance(test, ast.Attribute):
        return (
            test.attr == "TYPE_CHECKING"
            and isinstance(test.value, ast.Name)
            and test.value.id == "typing"
        )
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def _canonicalise(value: object) -> Canonical:
    """Return a tree as nested lists of text, in one form for all versions of Python.

    `ast.dump` has another form in each: it leaves out what is empty from 3.13 on, and nodes gain
    fields (`type_params` in 3.12), which are empty in whatever older versions can parse.
    """
    if isinstance(value, ast.AST):
        if isinstance(value, ast.Constant) and value.value is None:
            return ["Constant", ["value", "None"]]
        named: list[Canonical] = [type(value).__name__]
        for name in _FIELDS[type(value)]:
            field = getattr(value, name, None)
            if name == "values" and isinstance(value, ast.JoinedStr):
                field = _join_texts(value.values)
            if field is not None and field != []:
                named.append([name, _canonicalise(field)])
        return named
    if isinstance(value, list):
        return ["", *(_canonicalise(item) for item in value)]
    # `ascii`, since `repr` shows a character or its code as this version's Unicode tables have it;
    # the type, since 1, 1.0 and True are equal.
    return f"{type(value).__name__} {hex(value) if type(value) is int else ascii(value)}"


def _join_texts(values: list[ast.expr]) -> list[ast.expr]:
    """Join neighbouring texts of an f-string, which versions of Python cut differently."""
    joined: list[ast.expr] = []
    for value in values:
        if not isinstance(value, ast.Constant) or not isinstance(value.value, str):
            joined.append(value)
        elif joined and isinstance(last := joined[-1], ast.Constant):
            joined[-1] = ast.Constant(value=str(last.value) + value.value)
        elif value.value:
            joined.append(value)
    return joined
