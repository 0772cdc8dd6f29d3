import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from biomassters.errors import ParamsError
from biomassters.params.bands import BandName
from biomassters.params.reading import read_document, read_params
from biomassters.params.sections import PredictParams, Section
from biomassters.params.whole import Params
from biomassters.store.bands import BANDS
from repository_copy import ROOT, set_params

PRESETS = sorted((ROOT / "presets").glob("*.yaml"))


def write_changed(folder: Path, key: str, value: Any) -> Path:
    """Write the committed params with one dotted key set, or taken away where value is `...`."""
    folder.mkdir(exist_ok=True)
    path = folder / "params.yaml"
    shutil.copyfile(ROOT / "params.yaml", path)
    if value is not ...:
        set_params(folder, {key: value})
        return path
    document = read_document(path)
    section, name = key.split(".")
    del document[section][name]
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_preset_follows_the_schema(path: Path) -> None:
    read_params(Params, path)


@pytest.mark.parametrize("path", [ROOT / "params.yaml", *PRESETS], ids=lambda path: path.stem)
def test_committed_params_mean_the_same_to_pyyaml(path: Path) -> None:
    """Scripts that users have of their own read them with it, and its dialect is another."""
    text = path.read_text()
    assert yaml.safe_load(text) == read_document(path)
    assert yaml.safe_load(text.replace("lr: 0.001", "lr: 1e-3")) != read_document(path)


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_schema_accepts_values_and_changes_none(path: Path) -> None:
    """No stage depends on it: it must not change a result."""
    document = read_document(path)
    assert read_params(Params, path).model_dump(mode="json") == document


def list_fields(section: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in section.model_fields.items():
        yield f"{section.__name__}.{name}", field
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from list_fields(field.annotation)


def test_schema_has_no_defaults() -> None:
    fields = dict(list_fields(Params))
    assert len(fields) > 50
    assert [name for name, field in fields.items() if not field.is_required()] == []


def test_sections_follow_the_order_of_the_file() -> None:
    document = read_document(ROOT / "params.yaml")
    assert list(Params.model_fields) == list(document)
    folder = ROOT / "src/biomassters/params"
    sources = {name: (folder / f"{name}.py").read_text() for name in ("sections", "map_sections")}
    places: dict[str, list[int]] = {name: [] for name in sources}
    for field in Params.model_fields.values():
        section = field.annotation
        if hasattr(section, "model_fields"):
            name = section.__module__.rpartition(".")[2]
            places[name].append(sources[name].index(f"class {section.__name__}("))
    assert all(places.values())
    assert list(places.values()) == [sorted(found) for found in places.values()]


def test_sample_preset_is_the_committed_params() -> None:
    assert (ROOT / "presets/sample.yaml").read_text() == (ROOT / "params.yaml").read_text()


@pytest.mark.parametrize(("text", "value"), [("1e-05", 1e-5), ("1e-2", 0.01), ("3e-4", 3e-4)])
def test_learning_rate_that_plain_yaml_takes_for_a_string_is_a_number(
    tmp_path: Path, text: str, value: float
) -> None:
    path = tmp_path / "params.yaml"
    committed = (ROOT / "params.yaml").read_text()
    path.write_text(re.sub(r"^lr: \S+", f"lr: {text}", committed, flags=re.MULTILINE))
    assert read_params(Params, path).lr == value


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("lr", 0, r"lr: input should be greater than 0, got 0"),
        ("lr", float("nan"), r"lr: input should be a finite number"),
        ("lr", "fast", r"lr: input should be a valid number.*'fast'"),
        ("predict.tta", "fips", r"predict\.tta: input should be 'none', 'flips' or 'dihedral'"),
        ("predict.ttta", "flips", r"predict\.ttta: unknown key"),
        ("training", {}, r"training: unknown key"),
        ("train.epochs", ..., r"train\.epochs: expected a value, got none"),
        ("data.chip_size", 100, r"data\.chip_size: input should be a multiple of 32, got 100"),
        (
            "data.source",
            "ftp",
            r"data\.source: input should be 'synthetic', 'folder', 'archives', 's3'",
        ),
        ("data.subset.first", 0, r"data\.subset\.first: .*greater than or equal to 1, got 0"),
        ("data.subset.fraction", 0.0, r"data\.subset\.fraction: .*greater than 0, got 0\.0"),
        ("cleaning", "fourth", r"cleaning: input should be 'none', 'winner', 'second' or 'third'"),
        ("augmentation.month_dropout_rate", 1.0, r"less than 1, got 1\.0"),
        ("model.decoder_channels", [8, 8], r"model\.decoder_channels: .*at least 5"),
        (
            "model.bands",
            [],
            r"model\.bands: expected all, or .* VV ascending, .* CLP; got an empty",
        ),
        ("model.bands", ["B4", "B9"], r"params\.yaml: model\.bands: expected all, .* CLP; got B9$"),
        ("model.bands", ["B4", "B4"], r"model\.bands: .*each once.*; got B4 more than once$"),
        ("model.bands", "B4", r"model\.bands: expected all, or a list .*; got 'B4'$"),
        ("folds", [], r"folds: .*at least 1"),
        ("folds", [-1], r"folds\.0: input should be greater than or equal to 0, got -1$"),
        ("folds", ["x"], r"folds\.0: .*integer, got 'x'; write a whole number, without quotes$"),
        ("folds", [0.0], r"folds\.0: .*integer, got 0\.0$"),
        ("folds", [7], r"folds: expected folds below split\.n_folds = 5, got \[7\]"),
        ("folds", 0, r"folds: input should be a list, got 0"),
        ("finetune.fold", 7, r"finetune\.fold: expected one of folds = \[0\], got 7"),
        ("finetune.fold", -1, r"finetune\.fold: .*greater than or equal to 0, got -1"),
        ("finetune.fold", 0.0, r"finetune\.fold: .*integer, got 0\.0"),
        ("folds", [0, 0], r"folds: expected each fold once, got \[0, 0\]"),
        ("folds", [0, 5], r"expected folds below split\.n_folds = 5, got \[0, 5\]"),
        ("folds", [1], r"finetune\.fold: expected one of folds = \[1\], got 0"),
        ("optimisation.micro_batch_size", 3, r"a divisor of optimisation\.batch_size = 8, got 3"),
        ("train.warmup_epochs", 16, r"train\.warmup_epochs: expected at most train\.epochs = 15"),
        ("finetune.plain_epochs", 5, r"finetune\.plain_epochs: expected at most .* = 4, got 5"),
        ("statistics.source", "published", r"model\.normalisation: expected minmax"),
        (
            "calibration.method",
            "guess",
            r"calibration\.method: input should be 'conformal' or 'none'",
        ),
        ("calibration.level", 1.0, r"calibration\.level: input should be less than 1, got 1\.0"),
        ("calibration.level", 0.0, r"calibration\.level: .*greater than 0, got 0\.0"),
        (
            "predict.models",
            "imported",
            r"predict\.calibration: expected presets/uncalibrated\.json",
        ),
    ],
)
def test_value_against_the_schema_names_key_and_expectation(
    tmp_path: Path, key: str, value: Any, message: str
) -> None:
    with pytest.raises(ParamsError, match=message) as caught:
        read_params(Params, write_changed(tmp_path, key, value))
    assert "\n" not in str(caught.value)


def test_bands_are_all_or_some_of_those_of_a_chip_in_whatever_order(tmp_path: Path) -> None:
    assert get_args(BandName) == BANDS
    assert read_params(Params, ROOT / "params.yaml").model.bands == "all"
    for names in (["CLP", "VV ascending"], list(BANDS)):
        path = write_changed(tmp_path, "model.bands", names)
        assert read_params(Params, path).model.bands == tuple(names)


@pytest.mark.parametrize(
    "changes",
    [
        {"data.subset.first": 2, "data.subset.fraction": 0.5},
        {"data.subset.first": 2, "data.subset.chip_ids": ["0060c0a5"]},
        {"data.subset.fraction": 0.5, "data.subset.chip_ids": ["0060c0a5"]},
    ],
)
def test_subset_follows_one_rule_alone(tmp_path: Path, changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        path = write_changed(tmp_path / "one", key, value)
        read_params(Params, path)
    set_params(tmp_path / "one", changes)
    with pytest.raises(ParamsError, match="expected at most one of first, fraction and chip_ids"):
        read_params(Params, path)


def test_encoding_of_months_needs_an_attention_that_reads_it(tmp_path: Path) -> None:
    path = write_changed(tmp_path, "model.month_encoding", "learned")
    assert read_params(Params, path).model.month_encoding == "learned"
    path.write_text(
        path.read_text().replace("month_aggregation: attention", "month_aggregation: max")
    )
    with pytest.raises(ParamsError, match=r"model\.month_encoding: expected none with .* = max"):
        read_params(Params, path)


def test_stage_is_refused_for_a_mistake_in_a_section_that_it_does_not_read(tmp_path: Path) -> None:
    class Sections(Section):
        predict: PredictParams

    path = write_changed(tmp_path, "train.epochs", -1)
    with pytest.raises(ParamsError, match=r"train\.epochs"):
        read_params(Sections, path)


def test_absent_file_and_bad_yaml_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"expected the file .*none"):
        read_params(Params, tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("lr: [1\nseed: 2")
    with pytest.raises(ParamsError, match="expected YAML in") as caught:
        read_params(Params, tmp_path / "params.yaml")
    assert "\n" not in str(caught.value)
