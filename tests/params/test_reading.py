"""What stands in params.yaml is the same to DVC and to the stages, or is refused in one line."""

import csv
import lzma
import warnings
from pathlib import Path
from typing import Any

import pytest
from dvc.exceptions import DvcException
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import load_yaml, parse_yaml
from hypothesis import given
from hypothesis import strategies as st

from biomassters.errors import ParamsError
from biomassters.params.reading import check_fold, parse_fold, read_document, read_params
from biomassters.params.sections import SplitParams
from biomassters.params.whole import Params
from repository_copy import ROOT

COMMITTED = (ROOT / "params.yaml").read_text()


def write(folder: Path, old: str, new: str) -> Path:
    """Write the committed params with one place changed."""
    assert COMMITTED.count(old) == 1
    path = folder / "params.yaml"
    path.write_text(COMMITTED.replace(old, new), encoding="utf-8")
    return path


def write_ids(folder: Path, ids: str) -> Path:
    return write(folder, "chip_ids: []", f"chip_ids: {ids}")


def refuse(path: Path) -> str:
    with pytest.raises(ParamsError) as caught:
        read_params(Params, path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def official_ids(shared_folder: Path) -> list[str]:
    with lzma.open(shared_folder / "catalogue" / "features_metadata.csv.xz", "rt") as file:
        ids = sorted({row["chip_id"] for row in csv.DictReader(file)})
    assert len(ids) == 11_462
    return ids


def test_official_id_in_quotes_is_itself_to_dvc_and_to_the_stages(
    tmp_path: Path, official_ids: list[str]
) -> None:
    path = write_ids(tmp_path, str(official_ids))
    assert list(read_params(Params, path).data.subset.chip_ids) == official_ids
    assert load_yaml(path)["data"]["subset"]["chip_ids"] == official_ids


def test_official_id_without_quotes_is_itself_to_both_or_refused(
    tmp_path: Path, official_ids: list[str]
) -> None:
    path = write_ids(tmp_path, "[" + ",".join(official_ids) + "]")
    read = read_document(path)["data"]["subset"]["chip_ids"]
    assert read == load_yaml(path)["data"]["subset"]["chip_ids"]
    unlike = [known for known, ours in zip(official_ids, read, strict=True) if ours != known]
    assert len(unlike) == 457
    told = refuse(write_ids(tmp_path, "[" + ",".join(unlike) + "]"))
    assert told.count("write it in quotes") == 5
    assert told.endswith("; and 452 more")


def test_official_id_like_a_number_is_itself_in_quotes_on_the_command_line(
    tmp_path: Path, official_ids: list[str]
) -> None:
    like = [chip_id for chip_id in official_ids if not isinstance(parse_yaml(chip_id, ""), str)]
    assert len(like) == 457
    path = write_ids(tmp_path, "[]")
    quoted = ",".join(f"'{chip_id}'" for chip_id in like)
    apply_overrides(path, [f"data.subset.chip_ids=[{quoted}]", "lr=1e-5"])
    assert list(read_params(Params, path).data.subset.chip_ids) == like
    assert load_yaml(path)["data"]["subset"]["chip_ids"] == like


@pytest.mark.parametrize(
    ("ids", "got"),
    [
        ("[2831e417]", "data.subset.chip_ids.0: expected text, got 2831e417, which YAML reads as"
         " the number inf; write it in quotes: 'TEXT', on the command line -S"
         " \"data.subset.chip_ids=['TEXT']\""),
        ("[0060c0a5, 01234567]", "chip_ids.1: expected text, got 01234567, which YAML reads as the"
         " number 1234567;"),
        ("[10148836]", "got the number 10148836; write it in quotes"),
        ("[2001-01-01]", "got the date 2001-01-01; write it in quotes"),
        ("[null]", "got null, which YAML reads as nothing; write it in quotes"),
        ("[true]", "got true, which YAML reads as the truth value True; write it in quotes"),
        ("[[a]]", "input should be a valid string, got ['a']"),
        ("abc", "data.subset.chip_ids: input should be a list, got 'abc'"),
    ],
)  # fmt: skip
def test_id_that_is_no_text_is_refused_with_the_quotes_that_it_needs(
    tmp_path: Path, ids: str, got: str
) -> None:
    assert got in refuse(write_ids(tmp_path, ids))


def test_command_line_that_the_error_proposes_works(tmp_path: Path) -> None:
    path = write_ids(tmp_path, "[]")
    apply_overrides(path, ["data.subset.chip_ids=[2831e417]", "model.backbone=50"])
    told = refuse(path)
    assert "on the command line -S \"model.backbone='TEXT'\"" in told
    # What a shell hands over of the two proposals.
    apply_overrides(path, ["data.subset.chip_ids=['2831e417']", "model.backbone='50'"])
    params = read_params(Params, path)
    assert (params.data.subset.chip_ids, params.model.backbone) == (("2831e417",), "50")


def test_many_findings_are_a_few_and_a_number(tmp_path: Path) -> None:
    told = refuse(write_ids(tmp_path, str(list(range(100)))))
    assert told.count("expected text") == 5
    assert told.endswith("; and 95 more")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("yes", "yes"), ("no", "no"), ("on", "on"), ("off", "off"), ("1:30", "1:30")],
        *[("1e-4", 1e-4), ("1e-05", 1e-5), (".5", 0.5), ("0.001", 0.001), ("1e400", float("inf"))],
        *[("1_000", 1000), ("017", 17), ("0o17", 15), ("08", 8), ("0x1f", 31)],
        *[("True", True), ("~", None), ("", None), ("'017'", "017"), ("!!str 017", "017")],
    ],
)
def test_value_is_what_dvc_reads(tmp_path: Path, text: str, value: Any) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(f"key: {text}\n")
    assert read_document(path) == load_yaml(path) == {"key": value}
    assert type(read_document(path)["key"]) is type(value)


def read_or_refuse(path: Path) -> Any:
    try:
        return read_document(path)
    except ParamsError as error:
        return "refused" if "\n" not in str(error) else str(error)


def read_as_dvc(path: Path) -> Any:
    try:
        document = load_yaml(path)
    except DvcException:
        return "refused"
    return document if isinstance(document, dict) and document else "refused"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"lr: 1\nlr: 2\n", "line 2, column 1 (found duplicate key \"lr\""),
        (b"lr: 1\n---\nlr: 2\n", "another document"),
        (b"folds:\n\t- 0\n", "line 2, column 1 (found character '\\t'"),
        (b"lr: [1\nseed: 2", "line 2, column 5"),
        (b"lr: *unknown", "undefined alias"),
        (b"lr: !unknown 1", "the tag '!unknown'"),
        ("lr: 1".encode("utf-16"), "expected UTF-8 in"),
        ("lr: 1".encode("utf-16-le"), "expected YAML in"),
        ("# \u00e4".encode("latin-1"), "expected UTF-8 in"),
        *[(b"", "got nothing"), (b"# lr: 1\n", "got nothing")],
        (b"- lr\n", "expected `key: value` in"),
    ],
)  # fmt: skip
def test_file_that_dvc_refuses_is_refused_in_one_line(
    tmp_path: Path, text: bytes, words: str
) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(text)
    assert read_as_dvc(path) == "refused"
    with pytest.raises(ParamsError) as caught:
        read_document(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["\ufefflr: 1", "lr: 1\r\n", "a: &a {b: 1}\nc:\n  <<: *a\n"])
def test_file_that_dvc_reads_is_read_alike(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    assert read_or_refuse(path) == load_yaml(path)


@given(st.text("ab01e-+:_.,#'\"[]{}&*!|>%?\t\n ~<=", max_size=30))
def test_any_text_is_read_as_dvc_reads_it_or_refused(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text)
    with warnings.catch_warnings(action="ignore"):  # the parser's
        ours = read_or_refuse(path)
        try:
            dvcs = read_as_dvc(path)
        except Exception:  # its own "unexpected error"
            dvcs = "refused"
    assert repr(ours) == repr(dvcs) or ours == {}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("compile: false", "compile: no", "got 'no'; write true or false, without quotes"),
        ("compile: false", "compile: 0", "optimisation.compile: .*boolean, got 0"),
        ("lr: 0.001", "lr: '1e-4'", "lr: .*number, got '1e-4'; write a number, without quotes"),
        ("seed: 0\nfolds", "seed: '0'\nfolds", "got '0'; write a whole number, without quotes"),
        ("seed: 0\nfolds", "seed: 1.0\nfolds", "seed: .*integer, got 1.0"),
        ("seed: 0\nfolds", "seed: true\nfolds", "seed: .*integer, got True"),
        ("n_folds: 5", "n_folds: 1:30", "split.n_folds: .*integer, got '1:30'"),
        ("cleaning: none ", "cleaning: ~ ", "cleaning: input should be 'none', .* got None"),
    ],
)
def test_value_of_another_type_is_refused_since_dvc_knows_it_as_that(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    with pytest.raises(ParamsError, match=told):
        read_params(Params, write(tmp_path, old, new))


def test_whole_number_is_a_number(tmp_path: Path) -> None:
    assert read_params(Params, write(tmp_path, "lr: 0.001", "lr: 1")).lr == 1.0


@pytest.mark.parametrize("text", ["x", "-1", "1.0", "1_0", "+1", " 1", "", "\u0663", "9" * 20])
def test_fold_that_is_no_whole_number_is_refused(text: str) -> None:
    with pytest.raises(ParamsError, match=r"expected a fold, a whole number from 0 on, got .*'"):
        parse_fold(text)


def test_fold_is_below_the_number_of_folds() -> None:
    split = SplitParams(method="random", n_folds=3, seed=0)
    assert [check_fold(parse_fold(str(fold)), split) for fold in range(3)] == [None] * 3
    with pytest.raises(ParamsError, match=r"below split\.n_folds = 3 of params\.yaml, got 3, at"):
        check_fold(3, split)


def test_what_a_reader_changes_the_next_one_does_not_see(tmp_path: Path) -> None:
    """Equal texts are parsed once."""
    path = tmp_path / "params.yaml"
    path.write_text("train: {epochs: 2}")
    read_document(path)["train"]["epochs"] = 3
    assert read_document(path) == {"train": {"epochs": 2}}
