"""docs/winner.md against presets/winner.yaml and the sources: it cannot go stale unseen."""

import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from biomassters.params.reading import read_document
from repository_copy import ROOT

SRC = ROOT / "src"
DOCUMENT = (ROOT / "docs/winner.md").read_text()
SETTING = re.compile(r"`([a-z_0-9.]+): ([^`]+)`")


def list_leaves(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return all values by dotted key."""
    leaves: dict[str, Any] = {}
    for key, value in section.items():
        if isinstance(value, dict):
            leaves |= list_leaves(value, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = value
    return leaves


def test_every_setting_of_the_winners_preset_is_in_the_tables_with_its_value() -> None:
    preset = list_leaves(read_document(ROOT / "presets/winner.yaml"))
    rows = "\n".join(line for line in DOCUMENT.splitlines() if line.startswith("|"))
    assert {key: YAML(typ="safe").load(value) for key, value in SETTING.findall(rows)} == preset


def test_modules_that_the_tables_name_exist() -> None:
    modules = re.findall(r"(?<=\| )`([a-z_/]+/[a-z_]+)`(?=[ ,])", DOCUMENT)
    assert len(modules) > 5
    for module in modules:
        assert (SRC / f"biomassters/{module}.py").exists(), module


def test_every_row_says_how_the_two_differ() -> None:
    for line in DOCUMENT.splitlines():
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert len(cells) in (3, 4), line
            assert all(cells), line


def test_paths_that_the_document_names_exist() -> None:
    for path in re.findall(r"`((?:tests|presets)/[\w./]+)`", DOCUMENT):
        assert (ROOT / Path(path)).exists(), path
