import ast
from pathlib import Path

import pytest

from biomassters.errors import SourceCodeError
from biomassters.fingerprint.closure import LEFT_OUT, find_source, hash_closure, is_left_out
from repository_copy import ROOT

SRC = ROOT / "src"
FILES = {
    "train.py": "import numpy\nfrom biomassters.model import network\n",
    "predict.py": "from biomassters.model.network import build\n",
    "biomassters/__init__.py": '"""All."""\n',
    "biomassters/errors.py": "from biomassters.processes import locks\n",
    "biomassters/processes/__init__.py": "",
    "biomassters/processes/locks.py": "",
    "biomassters/model/__init__.py": '"""The model."""\n',
    "biomassters/model/network.py": (
        "import biomassters.errors\n"
        "def build():\n"
        "    from biomassters.model.layers import Layer\n"
        "    return Layer()\n"
    ),
    "biomassters/model/layers.py": "class Layer:\n    pass\n",
    "biomassters/model/unused.py": "x = 1\n",
}


@pytest.fixture
def src(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_closure_has_the_script_its_modules_and_their_packages_sorted(src: Path) -> None:
    assert list(hash_closure(src / "train.py")) == [
        "biomassters",
        "biomassters.model",
        "biomassters.model.layers",
        "biomassters.model.network",
        "train",
    ]


def test_modules_that_change_no_result_are_left_out_with_what_only_they_import(src: Path) -> None:
    assert not any(is_left_out(name) for name in hash_closure(src / "train.py"))
    assert is_left_out("biomassters.errors")
    assert is_left_out("biomassters.processes.locks")
    assert not is_left_out("biomassters.processes_of_nature")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("from . import layers", {"biomassters.model.layers"}),
        ("from .layers import Layer", {"biomassters.model.layers"}),
        ("from .. import losses", {"biomassters.losses"}),
        ("from ..losses import mse", {"biomassters.losses"}),
        ("import biomassters.losses as found", {"biomassters.losses"}),
        ("from biomassters import losses, model", {"biomassters.losses"}),
        ("from biomassters.losses import *", {"biomassters.losses"}),
        (
            "try:\n    import biomassters.losses\nexcept ImportError:\n    pass",
            {"biomassters.losses"},
        ),
        ("if TYPE_CHECKING:\n    from biomassters import losses", set()),
        (
            "if TYPE_CHECKING:\n    import x\nelse:\n    from biomassters import losses",
            {"biomassters.losses"},
        ),
        ("import numpy.linalg, os.path", set()),
        ("import helper", {"helper"}),
        ("from folder.inner import x", {"folder.inner"}),
    ],
)
def test_import_of_any_form_is_followed(src: Path, line: str, found: set[str]) -> None:
    (src / "biomassters/losses.py").write_text("mse = 1\n")
    (src / "helper.py").write_text("")
    (src / "folder").mkdir()
    (src / "folder/inner.py").write_text("x = 1\n")
    before = set(hash_closure(src / "predict.py"))
    (src / "biomassters/model/network.py").write_text(f"{line}\nbuild = 1\n")
    after = set(hash_closure(src / "predict.py"))
    assert after - before == found - before
    assert found <= after


def test_package_goes_before_a_module_of_its_name(src: Path) -> None:
    (src / "biomassters/model.py").write_text("x = 1\n")
    assert find_source(src, "biomassters.model") == src / "biomassters/model/__init__.py"


def test_module_that_stands_in_the_way_of_a_librarys_is_a_part(src: Path) -> None:
    (src / "numpy.py").write_text("x = 1\n")
    assert "numpy" in hash_closure(src / "train.py")


@pytest.mark.parametrize(
    "line",
    [
        "import biomassters.losses",
        "from biomassters.losses import mse",
        "from biomassters import losses",
        "from biomassters.model import losses",
        "from . import losses",
    ],
)
def test_missing_module_is_refused_with_the_place_of_its_import(src: Path, line: str) -> None:
    (src / "biomassters/model/network.py").write_text(f"\n{line}\n")
    with pytest.raises(SourceCodeError, match=r"expected the module .*losses.*network\.py, line 2"):
        hash_closure(src / "predict.py")


@pytest.mark.parametrize("source", [b"def f(:\n", b"x = '\xff'\n", b"x\0y"])
def test_source_that_is_not_python_is_named_in_one_line(src: Path, source: bytes) -> None:
    (src / "biomassters/model/layers.py").write_bytes(source)
    with pytest.raises(SourceCodeError, match=r"expected Python, got .* at .*layers\.py") as caught:
        hash_closure(src / "train.py")
    assert "\n" not in str(caught.value)


def test_file_that_nobody_imports_and_litter_change_nothing(src: Path) -> None:
    before = hash_closure(src / "train.py")
    for name in (
        *(
            "biomassters/new.py",
            "biomassters/model/network.py~",
            "biomassters/model/.layers.py.swp",
        ),
        *("biomassters/.ipynb_checkpoints/layers.py", "biomassters/model/__pycache__/x.pyc"),
    ):
        (src / name).parent.mkdir(exist_ok=True)
        (src / name).write_text("x = 1\n")
    (src / "biomassters/model/unused.py").unlink()
    assert hash_closure(src / "train.py") == before


def test_hashes_belong_to_the_modules_that_changed(src: Path) -> None:
    before = hash_closure(src / "train.py")
    (src / "biomassters/model/layers.py").write_text("class Layer:\n    size = 3\n")
    after = hash_closure(src / "train.py")
    assert [name for name in after if after[name] != before[name]] == ["biomassters.model.layers"]


def list_sources() -> list[Path]:
    return sorted(SRC.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_left_out_modules_import_only_left_out_modules() -> None:
    """Else what they import could change a result unseen."""
    left_out = [path for path in list_sources() if is_left_out(name_of(path))]
    assert {name_of(path) for path in left_out} >= set(LEFT_OUT)
    for path in left_out:
        for node in ast.walk(ast.parse(path.read_text())):
            assert not isinstance(node, ast.ImportFrom) or node.level == 0, path
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            own = [name for name in names if name and name.startswith("biomassters")]
            assert all(map(is_left_out, own)), f"{path}: {own}"
