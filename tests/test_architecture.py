"""The plan of the packages, held: layers without circles, small files, and signs of one line."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from biomassters.fingerprint.closure import find_source
from repository_copy import ROOT, SRC

LAYERS = (
    *("errors", "params", "processes", "fingerprint"),  # refuse, start and end
    *("store", "dataset", "simulator", "sources", "audit", "packing"),  # source -> store
    *("statistics", "batches", "model", "prediction", "calibration", "training"),  # store -> map
    *("scenes", "mapping"),  # the same for areas of any size
    *("baselines", "robustness"),  # what to beat, and with how little
    *("evaluation", "report"),  # how far to trust it
    *("commands", "__main__"),
)
"""A module imports from its own package and from those before it."""

PYTHON = sorted(
    path
    for folder in ("src", "tests", "scripts", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
)
MODULES = sorted((SRC / "biomassters").rglob("*.py"))
SCRIPTS = sorted(SRC.glob("*.py"))


def name_module(path: Path) -> str:
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def list_imports(path: Path) -> set[str]:
    """Return the modules of this project that a file imports, those for type checkers too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = str(node.module)
            inner = {f"{base}.{alias.name}" for alias in node.names}
            modules = {name for name in inner if find_source(SRC, name)}
            found |= modules if len(modules) == len(inner) else {base, *modules}
    return {name for name in found if name.startswith("biomassters.")}


def layer_of(module: str) -> int:
    return LAYERS.index(module.split(".")[1])


@pytest.mark.parametrize("path", MODULES, ids=name_module)
def test_module_imports_nothing_above_it(path: Path) -> None:
    module = name_module(path)
    if module == "biomassters":
        assert list_imports(path) == set()
        return
    above = {name for name in list_imports(path) if layer_of(name) > layer_of(module)}
    assert above == set()


def test_packages_are_those_of_the_layers() -> None:
    folders = {path.name for path in (SRC / "biomassters").iterdir() if path.is_dir()}
    files = {path.stem for path in (SRC / "biomassters").glob("*.py")}
    assert (folders | files) - {"__pycache__", "__init__"} == set(LAYERS)


def find_circle(edges: dict[str, set[str]]) -> list[str]:
    """Return the modules of a circle of imports; nothing if there is none."""
    finished: set[str] = set()

    def visit(module: str, trail: list[str]) -> list[str]:
        if module in trail:
            return [*trail[trail.index(module) :], module]
        if module in finished:
            return []
        circles = (visit(below, [*trail, module]) for below in sorted(edges.get(module, ())))
        circle = next(filter(None, circles), [])
        finished.add(module)
        return circle

    return next(filter(None, (visit(module, []) for module in sorted(edges))), [])


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    edges = {name_module(path): list_imports(path) for path in MODULES}
    assert sum(map(len, edges.values())) > 200
    assert find_circle(edges) == []


@pytest.mark.parametrize("path", [p for p in MODULES if p.name == "__init__.py"], ids=name_module)
def test_package_has_a_sign_of_one_line_and_nothing_else(path: Path) -> None:
    assert re.fullmatch(r'"""[^"\n]+"""\n', path.read_text())


def test_scripts_are_thin_and_read_like_a_page() -> None:
    for path in SCRIPTS:
        tree = ast.parse(path.read_text())
        assert {node.name for node in tree.body if isinstance(node, ast.ClassDef)} <= {"Params"}
        assert len(path.read_text().splitlines()) <= 92, path


def list_functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{path}: {node.name}", (node.end_lineno or 0) - node.lineno + 1


def test_functions_are_short() -> None:
    lengths = dict(pair for path in [*MODULES, *SCRIPTS] for pair in list_functions(path))
    assert {name: n for name, n in lengths.items() if n > 60} == {}
    assert sorted(lengths.values())[len(lengths) // 2] <= 12


def test_no_file_is_long() -> None:
    lengths = {str(path): len(path.read_text().splitlines()) for path in PYTHON}
    assert {path: n for path, n in lengths.items() if n > 350} == {}
    definition = (ROOT / "dvc.yaml").read_text()
    n_stages, n_plots = definition.count("    cmd:"), definition.count("      x_label:")
    assert len(definition.splitlines()) < 22 * n_stages + 9 * n_plots


def test_no_folder_is_crowded() -> None:
    folders = {path.parent for path in PYTHON}
    counts = {str(folder): len(list(folder.glob("*.py"))) for folder in folders}
    assert {folder: n for folder, n in counts.items() if n > 20} == {}


def test_tests_mirror_the_packages() -> None:
    folders = {
        str(path.parent.relative_to(SRC / "biomassters"))
        for path in MODULES
        if path.parent != SRC / "biomassters"
    }
    tests = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("*.py")}
    others = ("", "pipeline", "gpu", "pretended_gpu", "support", "fuzzing")
    assert {str(folder) for folder in tests if "/".join(folder.parts[:1]) not in others} == folders
