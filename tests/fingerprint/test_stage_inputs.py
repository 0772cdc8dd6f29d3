import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from biomassters.errors import ChangedInputsError, ParamsError
from biomassters.fingerprint.stage_inputs import (
    StageInputs,
    fill_in,
    hold_inputs,
    list_changes,
    read_inputs,
)

PARAMS = {"lr": 0.1, "train": {"epochs": 3}, "predict": {"tta": "none"}, "finetune": {"fold": 0}}
PIPELINE = {
    "stages": {
        "train": {
            "deps": [
                "chips.zarr",
                "models/fold-${finetune.fold}",
                "data",
                "fingerprints/train.json",
            ],
            "params": ["lr", "train.epochs"],
        }
    }
}
SCRIPT = Path("src/train.py")


@pytest.fixture(autouse=True)
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    for name, text in {
        "dvc.yaml": json.dumps(PIPELINE),
        "params.yaml": json.dumps(PARAMS),
        "src/train.py": "a = 1\nimport helper",
        "src/helper.py": "b = 1",
        "chips.zarr/zarr.json": '{"content_id": "1"}',
        "chips.zarr/s1/c/0": "pixels",
        "models/fold-0": "weights",
        "data/features.csv": "rows",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def read(fold: int = 0) -> StageInputs:
    return read_inputs(SCRIPT, fold=fold)


def edit_params(**changes: Any) -> tuple[str, str]:
    return "params.yaml", json.dumps({**PARAMS, **changes})


CHANGES = [
    ("src/train.py", "a = 2\nimport helper", "the module train"),
    ("src/helper.py", "b = 2", "the module helper"),
    ("chips.zarr/zarr.json", '{"content_id": "2"}', "chips.zarr"),
    ("models/fold-0", "other weights", "models/fold-0"),
    ("data/features.csv", "other rows", "data"),
    ("data/more.csv", "", "data"),
    (*edit_params(lr=0.2), "params.yaml: lr (0.1 → 0.2)"),
    (*edit_params(train={"epochs": 4}), "params.yaml: train.epochs (3 → 4)"),
    (*edit_params(train={}), "params.yaml: train.epochs (3 → absent)"),
]
COSMETIC = [
    ("src/train.py", "a = 1  # one\n\nimport helper"),
    ("src/unused.py", "c = 1"),
    ("data/.features.csv.swp", "an editor's"),
    ("data/features.csv~", "an editor's"),
    edit_params(predict={"tta": "flips"}),
    ("params.yaml", "# All params\n" + json.dumps(PARAMS)),
]


def test_digest_repeats() -> None:
    assert read().digest == read().digest


def test_digest_changes_with_the_fold() -> None:
    assert read(fold=0).digest != read(fold=1).digest


@pytest.mark.parametrize(("file", "text", "name"), CHANGES)
def test_digest_changes_with_each_input(file: str, text: str, name: str) -> None:
    before = read()
    Path(file).write_text(text)
    assert read().digest != before.digest
    assert name in list(list_changes(before, read()))


@pytest.mark.parametrize(("file", "text"), COSMETIC)
def test_digest_ignores_what_the_stage_does_not_read(file: str, text: str) -> None:
    before = read()
    Path(file).write_text(text)
    assert read().digest == before.digest
    assert list(list_changes(before, read())) == []


def test_chips_are_no_part_of_the_digest_beyond_the_stores_own() -> None:
    """Their times and inodes differ from checkout to checkout."""
    before = read()
    os.utime("chips.zarr/s1/c/0", ns=(1, 1))
    assert read().digest == before.digest


@pytest.mark.parametrize(("file", "text", "name"), CHANGES)
def test_change_while_a_stage_runs_fails_it_and_is_named(file: str, text: str, name: str) -> None:
    with (
        pytest.raises(ChangedInputsError, match="expected what train@0 read at its start") as error,
        hold_inputs(str(SCRIPT), fold=0),
    ):
        Path(file).write_text(text)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("file", "text"), COSMETIC)
def test_cosmetic_change_while_a_stage_runs_is_none(file: str, text: str) -> None:
    with hold_inputs(str(SCRIPT), fold=0):
        Path(file).write_text(text)


def write_in_place() -> None:
    Path("chips.zarr/s1/c/0").write_text("PIXELS")


def replace() -> None:
    Path("new").write_text("pixels")
    Path("new").replace("chips.zarr/s1/c/0")


def add() -> None:
    Path("chips.zarr/s1/c/1").write_text("pixels")


def delete() -> None:
    Path("chips.zarr/s1/c/0").unlink()


@pytest.mark.parametrize("edit", [write_in_place, replace, add, delete])
def test_chip_that_changes_while_a_stage_runs_fails_it(edit: Callable[[], None]) -> None:
    os.utime("chips.zarr/s1/c/0", ns=(1, 1))
    with (
        pytest.raises(ChangedInputsError, match=r"chips\.zarr/s1/c/[01]; put it back"),
        hold_inputs(str(SCRIPT), fold=0),
    ):
        edit()


def test_other_processes_than_the_first_learn_the_inputs_and_hold_nothing() -> None:
    with hold_inputs(str(SCRIPT), is_first=False, fold=0) as inputs:
        Path("src/helper.py").write_text("b = 2")
    assert inputs.digest != read().digest


def raise_error(_: object) -> None:
    raise ZeroDivisionError


def test_error_of_the_stage_itself_is_not_replaced() -> None:
    with pytest.raises(ZeroDivisionError), hold_inputs(str(SCRIPT), fold=0):
        raise_error(Path("src/helper.py").write_text("b = 2"))


def edit_files(changes: list[tuple[str, str, str]]) -> None:
    for file, text, _ in changes:
        Path(file).write_text(text)


def test_error_names_a_few_of_many_changes() -> None:
    with (
        pytest.raises(ChangedInputsError, match=r"data and 1 more; put it back"),
        hold_inputs(str(SCRIPT), fold=0),
    ):
        edit_files(CHANGES[:5])


def test_under_dvc_other_code_than_the_fingerprints_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`dvc repro -s train` does not make the fingerprint anew, and would record the old one."""
    Path("fingerprints").mkdir()
    record = Path("fingerprints/train.json")
    record.write_text(json.dumps({**read().code, "helper": "another"}))
    with hold_inputs(str(SCRIPT), fold=0):
        pass  # without DVC nothing is recorded
    monkeypatch.setenv("DVC_STAGE", "train@0")
    with (
        pytest.raises(ChangedInputsError, match=r"the module helper; run `dvc repro train@0`"),
        hold_inputs(str(SCRIPT), fold=0),
    ):
        pytest.fail("the stage ran")
    record.write_text(json.dumps(read().code))
    with hold_inputs(str(SCRIPT), fold=0):
        pass


def test_absent_data_are_named_and_left_for_the_stage_to_refuse() -> None:
    Path("models/fold-0").unlink()
    assert read().absent == ["models/fold-0"]
    with hold_inputs(str(SCRIPT), fold=0) as inputs:
        assert inputs.absent


@pytest.mark.parametrize("name", ["params.yaml", "dvc.yaml"])
def test_folder_without_a_pipeline_is_refused(name: str) -> None:
    Path(name).unlink()
    with pytest.raises(ParamsError, match=f"expected the file {name}, got none"):
        read()


def test_inputs_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        read().stage = "other"  # type: ignore[misc]


def test_templates_are_filled_in_from_nested_keys() -> None:
    values = {"item": {"fold": 3}, "predict": {"models": "final"}}
    assert fill_in("${predict.models}/fold-${item.fold}", values) == "final/fold-3"
    assert fill_in("${predict.other}", values) == "${predict.other}"
