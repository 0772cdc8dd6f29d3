"""dvc.yaml against the sources: nothing reruns for nothing, and nothing is left stale."""

import ast
import hashlib
import re
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from ruamel.yaml import YAML
from stage_scripts import read_script

from biomassters.params.reading import look_up
from biomassters.params.sections import Params
from import_closures import SRC, import_closure

ROOT = SRC.parent
README = (ROOT / "README.md").read_text()
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def list_keys(model: type[BaseModel]) -> set[str]:
    """Return the dotted keys of a section, its own sections included."""
    keys = set()
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys |= {f"{name}.{key}" for key in list_keys(field.annotation)}
        else:
            keys.add(name)
    return keys


def list_leaves(key: str, value: Any) -> set[str]:
    """Return the dotted keys under `key` that hold no mapping."""
    if not isinstance(value, dict):
        return {key}
    return set().union(*(list_leaves(f"{key}.{name}", inner) for name, inner in value.items()))


@pytest.mark.parametrize("stage", STAGES)
def test_stage_is_one_script_of_its_name(stage: str) -> None:
    assert STAGES[stage]["cmd"].split()[:2] == ["python", f"src/{stage}.py"]


@pytest.mark.parametrize("stage", STAGES)
def test_stage_depends_on_the_exact_closure_of_its_imports(stage: str) -> None:
    listed = {path for path in STAGES[stage]["deps"] if path.startswith("src/")}
    needed = import_closure(SRC / f"{stage}.py")
    assert listed == needed, f"add {sorted(needed - listed)}, drop {sorted(listed - needed)}"


@pytest.mark.parametrize("stage", STAGES)
def test_stage_lists_exactly_the_params_that_its_script_reads(stage: str) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    listed = set().union(
        *(list_leaves(key, look_up(params, key)) for key in STAGES[stage]["params"])
    )
    assert listed == list_keys(read_script(stage).Params)


def test_every_param_is_listed_by_a_stage() -> None:
    listed = {key.split(".")[0] for stage in STAGES.values() for key in stage["params"]}
    assert listed == set(Params.model_fields)


def test_every_param_is_read_somewhere() -> None:
    sources = [path for path in SRC.rglob("*.py") if path.parent.name != "params"]
    read = {
        node.attr
        for path in sources
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
    }
    keys = {key.split(".")[-1] for key in list_keys(Params)}
    assert keys - read == set()


def test_every_default_out_is_git_ignored_or_uncached() -> None:
    ignored = (ROOT / ".gitignore").read_text().split()
    for stage in STAGES.values():
        for out in stage.get("outs", []):
            path, options = (out, {}) if isinstance(out, str) else next(iter(out.items()))
            assert options.get("cache") is False or f"/{path.split('/')[0]}" in ignored


def test_stages_of_dvc_yaml_are_the_scripts() -> None:
    assert set(STAGES) == {path.stem for path in SRC.glob("*.py")}


def test_closure_follows_packages_and_names() -> None:
    closure = import_closure(SRC / "fetch.py")
    assert {"src/fetch.py", "src/biomassters/__init__.py"} <= closure
    assert "src/biomassters/params/__init__.py" in closure
    assert "src/biomassters/training/engine.py" not in closure


def test_readme_lists_the_stages_in_order() -> None:
    rows = re.findall(r"^\| `(\w+)`[^|]*\|[^|]*\|[^|]*\|$", README, re.MULTILINE)
    assert [stage for stage in rows if not stage.isupper()] == list(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_readme_names_what_each_stage_writes(stage: str) -> None:
    row = re.search(rf"^\| `{stage}`.*$", README, re.MULTILINE)
    assert row is not None
    outs = [*STAGES[stage].get("outs", []), *STAGES[stage].get("metrics", [])]
    for out in outs:
        path = out if isinstance(out, str) else next(iter(out))
        assert "/".join(path.split("${")[0].split("/")[:2]) in row[0]


def test_committed_run_is_that_of_the_committed_sources_and_params() -> None:
    """After a change of sources or params: `make repro`, and commit dvc.lock and metrics/."""
    # YAML 1.2, as DVC writes it: PyYAML takes its 1e-06 for a string.
    params, lock = (YAML(typ="safe").load(ROOT / name) for name in ("params.yaml", "dvc.lock"))
    for name, stage in lock["stages"].items():
        for dependency in stage["deps"]:
            path = ROOT / dependency["path"]
            if dependency["path"].startswith("src/"):
                digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
                assert dependency["md5"] == digest, f"{name}: {dependency['path']} has changed"
        for key, value in stage["params"]["params.yaml"].items():
            assert look_up(params, key) == value, f"{name}: {key} has changed"
