"""dvc.yaml against the sources: nothing reruns for nothing, and nothing is left stale."""

import ast
import json
import re
from typing import Any

import pytest
from pydantic import BaseModel
from stage_scripts import read_script

from biomassters.fingerprint.closure import hash_closure
from biomassters.fingerprint.records import hash_record
from biomassters.params.reading import look_up, read_document
from biomassters.params.whole import Params
from repository_copy import ROOT, SRC

README = (ROOT / "README.md").read_text()
ALL_STAGES = read_document(ROOT / "dvc.yaml")["stages"]
STAGES = {name: stage for name, stage in ALL_STAGES.items() if name != "fingerprint"}
"""Those whose results hours may depend on."""


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


@pytest.mark.parametrize("stage", ALL_STAGES)
def test_stage_is_one_script_of_its_name(stage: str) -> None:
    assert ALL_STAGES[stage]["cmd"].split()[:2] == ["python", f"src/{stage}.py"]


@pytest.mark.parametrize("stage", STAGES)
def test_stage_depends_on_its_fingerprint_and_on_no_source(stage: str) -> None:
    deps = [path for path in STAGES[stage]["deps"] if path.startswith(("src", "fingerprints"))]
    assert deps == [f"fingerprints/{stage}.json"]


def test_fingerprint_is_made_first_of_all_sources_for_each_other_stage() -> None:
    stage = ALL_STAGES["fingerprint"]
    assert next(iter(ALL_STAGES)) == "fingerprint"
    assert stage["deps"] == ["src"]
    assert "params" not in stage
    # Not in DVC's cache but in git, where a reader sees which module's meaning a commit changed.
    uncached = {"cache": False}
    assert stage["outs"] == [{f"fingerprints/{name}.json": uncached} for name in STAGES]


@pytest.mark.parametrize("stage", STAGES)
def test_stage_holds_what_it_read_against_what_is_there_at_its_end(stage: str) -> None:
    tree = ast.parse((SRC / f"{stage}.py").read_text())
    main = next(node for node in tree.body if getattr(node, "name", "") == "main")
    held = [node for node in ast.walk(main) if isinstance(node, ast.With) and is_held(node)]
    assert len(held) == 1
    # Params are read while they are held, and not before.
    reads = [node for node in ast.walk(tree) if is_call(node, "read_params")]
    assert len(reads) == 1
    assert reads[0] in set(ast.walk(held[0]))


def is_held(node: ast.With) -> bool:
    return any(is_call(item.context_expr, "hold_inputs") for item in node.items)


def is_call(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


@pytest.mark.parametrize("stage", STAGES)
def test_stage_lists_exactly_the_params_that_its_script_reads(stage: str) -> None:
    params = read_document(ROOT / "params.yaml")
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
    assert set(ALL_STAGES) == {path.stem for path in SRC.glob("*.py")}


def test_readme_lists_the_stages_in_order() -> None:
    rows = re.findall(r"^\| `(\w+)`[^|]*\|[^|]*\|[^|]*\|$", README, re.MULTILINE)
    assert [stage for stage in rows if not stage.isupper()] == list(ALL_STAGES)


@pytest.mark.parametrize("stage", ALL_STAGES)
def test_readme_names_what_each_stage_writes(stage: str) -> None:
    row = re.search(rf"^\| `{stage}`.*$", README, re.MULTILINE)
    assert row is not None
    outs = [*ALL_STAGES[stage].get("outs", []), *ALL_STAGES[stage].get("metrics", [])]
    for out in outs:
        path = out if isinstance(out, str) else next(iter(out))
        place = "fingerprints/" if stage == "fingerprint" else path.split("${")[0]
        assert "/".join(place.split("/")[:2]) in row[0]


def test_committed_run_is_that_of_the_committed_sources_and_params() -> None:
    """After a change of one: `make repro`, and commit dvc.lock, fingerprints/ and metrics/."""
    params, lock = (read_document(ROOT / name) for name in ("params.yaml", "dvc.lock"))
    assert {name.partition("@")[0] for name in lock["stages"]} == set(ALL_STAGES)
    for name, stage in lock["stages"].items():
        prints = [dep for dep in stage["deps"] if dep["path"].startswith("fingerprints/")]
        assert len(prints) == (name != "fingerprint"), name
        for dependency in prints:
            committed = (ROOT / dependency["path"]).read_bytes()
            code = hash_closure(SRC / f"{name.partition('@')[0]}.py")
            assert json.loads(committed) == code, f"{name}: its code has changed"
            assert dependency["md5"] == hash_record(committed), name
        for key, value in stage.get("params", {}).get("params.yaml", {}).items():
            assert look_up(params, key) == value, f"{name}: {key} has changed"
