import subprocess
import sys
from pathlib import Path

import pytest

from biomassters.fingerprint.meaning import hash_meaning
from repository_copy import ROOT

MODULE = '''"""What it knows."""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

LIMIT: Final = 400.0  # t/ha
"""Pixels of more are noise."""


class Loss:
    """How wrong a map is.

    Attributes:
        scale: Of what it returns.
    """

    scale: float = 1.0
    """What it is multiplied by."""

    def compute(self, errors: "Sequence[float]") -> float:
        """Return the loss."""
        total = 0.0
        for error in errors:
            if error < LIMIT:
                total += error**2
        return total * self.scale


def describe(loss, *, sign=""):
    return f"{loss:{sign}.2f} t/ha, of at most {LIMIT!r}" "."
'''

COSMETIC = {
    "a comment": (
        "                total += error**2",
        "                # squares\n                total += error**2",
    ),
    "a comment behind": ("  # t/ha", "  # tonnes a hectare"),
    "no comment": ("  # t/ha", ""),
    "the module's docstring": ("What it knows.", "What it knew."),
    "no docstring of the module": ('"""What it knows."""\n\n', ""),
    "a class's docstring": ("Of what it returns.", "Of the sum."),
    "a method's docstring": ('        """Return the loss."""\n', ""),
    "the text behind a constant": ("Pixels of more are noise.", "So it is."),
    "the text behind an attribute": ('    """What it is multiplied by."""\n', ""),
    "an empty line": ("\n\nclass Loss", "\n\n\n\nclass Loss"),
    "indentation": ("        total = 0.0", "        total   =   0.0"),
    "brackets": ("total * self.scale", "(total * (self.scale))"),
    "a comma at the end": ('errors: "Sequence[float]")', 'errors: "Sequence[float]",)'),
    "a line that is broken": (
        "total * self.scale",
        "(\n            total\n            * self.scale\n        )",
    ),
    "quotes": ('sign=""', "sign=''"),
    "a text in two parts": (" t/ha, of at most", '" f" t/ha, of at most'),
    "the notation of a number": ("400.0", "4_00.0e0"),
    "an import for type checkers alone": (
        "    from collections.abc import Sequence",
        "    from collections.abc import Iterable, Sequence",
    ),
    "no import for type checkers": (
        "if TYPE_CHECKING:\n    from collections.abc import Sequence\n\n",
        "",
    ),
}

MEANING = {
    "a constant": ("400.0", "401.0"),
    "a number's type": ("400.0", "400"),
    "an operator": ("error**2", "error*2"),
    "a comparison": ("error < LIMIT", "error <= LIMIT"),
    "a default": ('sign=""', 'sign="+"'),
    "an attribute's default": ("scale: float = 1.0", "scale: float = 2.0"),
    "an annotation": ("scale: float = 1.0", "scale: int = 1.0"),
    "an annotation that is text": ('"Sequence[float]"', '"Sequence[int]"'),
    "a local variable's name": ("total", "sum_of_squares"),
    "a keyword-only mark": ("loss, *, sign", "loss, sign"),
    "a text that is a value": (" t/ha, of", " t, of"),
    "a text's format": (".2f", ".3f"),
    "how a text shows a value": ("!r", "!s"),
    "a decorator": ("def describe", "@print\ndef describe"),
    "an import": ("TYPE_CHECKING, Final", "TYPE_CHECKING, Any, Final"),
    "a statement less": ("        total = 0.0\n", ""),
    "the order of two": ("total * self.scale", "self.scale * total"),
    "a base class": ("class Loss:", "class Loss(dict):"),
    "what runs under else": (
        "    from collections.abc import Sequence\n",
        "    pass\nelse:\n    LIMIT = 1\n",
    ),
    "a level of indentation": (
        "        return total * self.scale",
        "            return total * self.scale",
    ),
}


def change(changes: tuple[str, str]) -> str:
    old, new = changes
    assert old in MODULE
    changed = MODULE.replace(old, new)
    compile(changed, "changed", "exec")
    return changed


@pytest.mark.parametrize("what", COSMETIC)
def test_cosmetic_change_keeps_the_meaning(what: str) -> None:
    assert hash_meaning(change(COSMETIC[what])) == hash_meaning(MODULE)


@pytest.mark.parametrize("what", MEANING)
def test_change_of_meaning_changes_the_hash(what: str) -> None:
    assert hash_meaning(change(MEANING[what])) != hash_meaning(MODULE)


def test_changes_of_meaning_all_differ_from_each_other() -> None:
    hashes = [hash_meaning(change(changes)) for changes in MEANING.values()]
    assert len(set(hashes)) == len(hashes)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = True"),
        ("x = 1", "x = 1.0"),
        ("x = 0.0", "x = -0.0"),
        ("x = 'a'", "x = b'a'"),
        ("x = None", "x = ..."),
        ("x = 'é'", "x = 'e'"),
        ("x = 'None'", "x = None"),
        ("f(*a)", "f(**a)"),
        ("x = []", "x = ()"),
        ("x = {}", "x = set()"),
        ("f'{a}{b}'", "f'{a}' + f'{b}'"),
        ("f'{a}'", "f'{{a}}'"),
        ("x[1:]", "x[:1]"),
        ("def f(a, /): pass", "def f(a): pass"),
        ("def f(): return", "def f(): return 0"),
        ("import a.b", "import a"),
        ("from a import b", "from a import b as c"),
        ("from . import a", "from .. import a"),
        ("async def f(): pass", "def f(): pass"),
        ("with a as b: pass", "with a: pass"),
        ("if TYPE_CHECKING:\n    x = 1", "if not TYPE_CHECKING:\n    x = 1"),
    ],
)
def test_different_programs_have_different_hashes(one: str, other: str) -> None:
    assert hash_meaning(one) != hash_meaning(other)


VERSIONED = r"""
def f(a, b: int = 0x1F, *c, d=1e-5, **e) -> None:
    '''Do.'''
    x = f"{a!r:>{b}}" f"" "text" f"{d:.2e}é{{}}" f"{a=}" f"{a:%H:%M}"
    y = "\u1c89\N{SNOWMAN}" 'z' rb"\d" 10**20 * 1_000
    match a:
        case {"k": [1, *rest]} | None:
            return lambda: (yield)
    try:
        with open(a) as g, open(b):
            pass
    except* ValueError as error:
        raise error from None
    return [i async for i in a if (n := i)], x[..., 1:, ::2], -0.0, 1j, b""
""".replace("'z' rb\"\\d\" 10**20", "'z', rb\"\\d\", 10**20")
"""What versions of Python parse into different trees, or write differently."""

HASH_OF_VERSIONED = "f606e67d8b6f40b0"


def test_hash_is_the_same_on_every_version_of_python() -> None:
    """CI runs this on each: the number is the same in all."""
    assert hash_meaning(VERSIONED) == HASH_OF_VERSIONED


def list_other_pythons() -> list[str]:
    folders = Path.home().glob(".pyenv/versions/3.1[123].*/bin/python")
    return [str(path) for path in folders if path.parents[1].name != sys.version.split()[0]]


@pytest.mark.skipif(not list_other_pythons(), reason="needs another Python by pyenv")
def test_other_pythons_here_give_the_same_hashes_of_all_sources() -> None:
    script = """
import sys
from pathlib import Path
from biomassters.fingerprint.meaning import hash_meaning
for path in sorted(Path("src").rglob("*.py")):
    print(path, hash_meaning(path.read_text(encoding="utf-8")))
"""
    found = {
        subprocess.run(
            [python, "-c", script],
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT / "src")},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for python in [sys.executable, *list_other_pythons()]
    }
    assert len(found) == 1
    assert len(found.pop().split()) > 50


def test_source_that_is_not_python_is_refused() -> None:
    with pytest.raises(SyntaxError):
        hash_meaning("def f(:")
