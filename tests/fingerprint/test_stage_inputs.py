from pathlib import Path

import pytest
import yaml

from biomassters.fingerprint.stage_inputs import fill_in, fingerprint_stage

PARAMS = {"lr": 0.1, "train": {"epochs": 3}, "predict": {"tta": "none"}, "finetune": {"fold": 0}}
PIPELINE = {
    "stages": {
        "train": {
            "deps": ["code.py", "chips.zarr", "models/fold-${finetune.fold}"],
            "params": ["lr", "train.epochs"],
        }
    }
}


@pytest.fixture(autouse=True)
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump(PIPELINE))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    (tmp_path / "code.py").write_text("a = 1")
    (tmp_path / "chips.zarr").mkdir()
    (tmp_path / "chips.zarr/zarr.json").write_text('{"content_id": "1"}')
    (tmp_path / "models").mkdir()
    (tmp_path / "models/fold-0").write_text("weights")
    return tmp_path


def test_fingerprint_repeats() -> None:
    assert fingerprint_stage("train", fold=0) == fingerprint_stage("train", fold=0)


def test_fingerprint_changes_with_the_fold() -> None:
    assert fingerprint_stage("train", fold=0) != fingerprint_stage("train", fold=1)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("code.py", "a = 2"),
        ("chips.zarr/zarr.json", '{"content_id": "2"}'),
        ("models/fold-0", "other weights"),
        ("params.yaml", yaml.safe_dump({**PARAMS, "lr": 0.2})),
        ("params.yaml", yaml.safe_dump({**PARAMS, "train": {"epochs": 4}})),
    ],
)
def test_fingerprint_changes_with_each_input(pipeline: Path, file: str, text: str) -> None:
    before = fingerprint_stage("train", fold=0)
    (pipeline / file).write_text(text)
    assert fingerprint_stage("train", fold=0) != before


def test_fingerprint_ignores_params_that_the_stage_does_not_list(pipeline: Path) -> None:
    before = fingerprint_stage("train", fold=0)
    changed = {**PARAMS, "predict": {"tta": "flips"}}
    (pipeline / "params.yaml").write_text(yaml.safe_dump(changed))
    assert fingerprint_stage("train", fold=0) == before


def test_templates_are_filled_in_from_nested_keys() -> None:
    values = {"item": {"fold": 3}, "predict": {"models": "final"}}
    assert fill_in("${predict.models}/fold-${item.fold}", values) == "final/fold-3"
