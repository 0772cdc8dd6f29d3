import ast
import io
import sys
from pathlib import Path

import pytest

from biomassters.commands.plain_output import LOOKALIKES, allow_any_output
from repository_copy import SRC


def print_to(encoding: str, text: str, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Return what is written of a text."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    allow_any_output()
    sys.stdout.write(text)
    sys.stdout.flush()
    return written.getvalue()


@pytest.mark.parametrize(
    ("encoding", "written"),
    [
        ("ascii", b"R2 0.50 +- 0.01 -> d\\xe9j\\xe0/\\u68ee"),
        ("latin-1", b"R\xb2 0.50 \xb1 0.01 -> d\xe9j\xe0/\\u68ee"),
        ("utf-8", "R² 0.50 ± 0.01 → déjà/森".encode()),
    ],
)
def test_character_that_an_output_has_not_is_a_likeness_or_escaped(
    encoding: str, written: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert print_to(encoding, "R² 0.50 ± 0.01 → déjà/森", monkeypatch) == written


def test_path_that_is_no_utf8_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(Path("chips") / b"\xff.tif".decode(errors="surrogateescape"))
    assert print_to("utf-8", path, monkeypatch) == b"chips/\\udcff.tif"


def test_output_that_was_closed_from_the_start_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    allow_any_output()


def test_every_character_that_a_command_says_has_its_likeness() -> None:
    said: set[str] = set()
    for path in (SRC / "biomassters/commands").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        documentation = {
            ast.get_docstring(node, clean=False)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        }
        constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
        texts = {text for text in constants if isinstance(text, str)} - documentation
        said |= {character for text in texts for character in text if not character.isascii()}
    assert said <= LOOKALIKES.keys()
    assert "".join(LOOKALIKES.values()).isascii()
