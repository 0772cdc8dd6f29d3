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
from typing import Final, TypeAlias

Canonical: TypeAlias = "str | list[Canonical]"

DIGITS: Final = 16
"""Hex digits of a hash."""

_UNSEEN: Final = frozenset({"ctx", "kind", "type_comment", "type_ignores"})
"""Fields that follow from the others, or that only a type checker reads."""


def hash_meaning(source: str) -> str:
    """Return the hash of a module's meaning, the same on Python 3.11 to 3.13.

    Args:
        source: The module's text.

    Raises:
        SyntaxError: It is not Python.
    """
    text = json.dumps(_canonicalise(parse(source)), separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def parse(source: str) -> ast.Module:
    """Return a module's syntax tree, without what no running program sees.

    Raises:
        SyntaxError: It is not Python.
    """
    tree: ast.Module = _Visible().visit(ast.parse(source))
    return tree


class _Visible(ast.NodeTransformer):
    """Takes away strings that are statements, and blocks for type checkers."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        """Drop a string that is a statement."""
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return None
        return self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        """Replace a block for type checkers by what stands under its `else`, which runs."""
        visited = self.generic_visit(node)
        return node.orelse if _asks_for_a_type_checker(node.test) else visited


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
        fields = dict(ast.iter_fields(value))
        if isinstance(value, ast.JoinedStr):
            fields["values"] = _join_texts(value.values)
        named = [
            [name, _canonicalise(field)]
            for name, field in sorted(fields.items())
            if name not in _UNSEEN and field is not None and field != []
        ]
        if isinstance(value, ast.Constant) and value.value is None:
            named = [["value", "None"]]
        return [type(value).__name__, *named]
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
