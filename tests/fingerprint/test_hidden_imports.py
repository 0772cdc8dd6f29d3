"""What a syntax tree cannot show must not be in `src`: a fingerprint would not see it change."""

import ast
from collections.abc import Iterator

import pytest

from biomassters.fingerprint.meaning import parse
from repository_copy import ROOT

MODULES = {"importlib", "runpy", "imp", "pkgutil", "zipimport", "inspect", "linecache"}
"""They import by name, or read sources as text."""
BUILTINS = {"__import__", "exec", "eval", "compile", "globals"}
ATTRIBUTES = {("sys", name) for name in ("modules", "path", "meta_path", "path_hooks")}


def list_hidden(source: str) -> Iterator[str]:
    """Yield the line and the name of whatever imports, or depends on text, unseen."""
    tree = parse(source)
    shown = {id(node) for node in _list_descriptions(tree)}
    for node in ast.walk(tree):
        if id(node) not in shown:
            yield from (f"line {node.lineno}: {name}" for name in _find_hidden(node))


def _find_hidden(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names} & MODULES
    if isinstance(node, ast.ImportFrom):
        if node.module == "importlib.metadata":  # versions of packages, which rerun nothing
            return set()
        base = (node.module or "").split(".")[0]
        return {base} & MODULES | {a.name for a in node.names if (base, a.name) in ATTRIBUTES}
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        return {node.id} & {*BUILTINS, "__doc__"}
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        pair = node.value.id, node.attr
        return {".".join(pair)} if pair in ATTRIBUTES or node.attr == "__doc__" else set()
    return set()


def _list_descriptions(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield what `--help` shows and nothing else: `description=__doc__`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "description":
            yield node.value


@pytest.mark.parametrize(
    "source",
    [
        "import importlib",
        "import importlib.metadata as metadata",
        "from importlib import import_module",
        "def f():\n    return __import__('x')",
        "exec('import x')",
        "x = eval(text)",
        "import runpy",
        "import sys\nsys.path.insert(0, 'x')",
        "import sys\nx = sys.modules['x']",
        "from sys import path",
        "print(__doc__)",
        "x = Loss.__doc__",
        "import inspect",
    ],
)
def test_hidden_import_is_found(source: str) -> None:
    assert list(list_hidden(source))


@pytest.mark.parametrize(
    "source",
    [
        "import re\nx = re.compile('x')",
        "class Params:\n    compile: bool",
        "model.eval()",
        "import sys\nprint(sys.argv)",
        "parser = ArgumentParser(description=__doc__)",
        "if TYPE_CHECKING:\n    import importlib",
        "from importlib.metadata import version",
        "'It says importlib.'",
    ],
)
def test_what_a_syntax_tree_shows_is_let_pass(source: str) -> None:
    assert not list(list_hidden(source))


def test_no_source_hides_an_import() -> None:
    paths = sorted((ROOT / "src").rglob("*.py"))
    assert len(paths) > 50
    assert {str(p): found for p in paths if (found := list(list_hidden(p.read_text())))} == {}
