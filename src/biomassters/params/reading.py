"""Reading params.yaml: the sections that a stage asked for, after a check of the whole file.

Also what a command line adds to it: the fold.
"""

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from biomassters.errors import ParamsError
from biomassters.params.sections import SplitParams
from biomassters.params.whole import Params

PARAMS_FILE = Path("params.yaml")

LISTED: Final = 5
"""Findings that an error names."""

_NOT_TEXT: Final = {
    "bool_type": "true or false",
    "float_type": "a number",
    "int_type": "a whole number",
}
"""What to write, by pydantic's name of the error."""

SectionT = TypeVar("SectionT", bound=BaseModel)


def read_params(sections: type[SectionT], path: Path = PARAMS_FILE) -> SectionT:
    """Check the whole file, then return the keys that `sections` declares.

    Args:
        sections: A model whose fields are top-level keys of params.yaml.
        path: The file.

    Raises:
        ParamsError: It is absent, not YAML, or against the schema; one line a finding.
    """
    document = read_document(path)
    validate_document(Params, document, path)
    return validate_document(sections, {key: document[key] for key in sections.model_fields}, path)


def parse_fold(text: str) -> int:
    """Return the fold that a command line names.

    Raises:
        ParamsError: It is no whole number from 0 on. (`int` would take "1_0" and other digits.)
    """
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise ParamsError(
            f"expected a fold, a whole number from 0 on, got {text!r}, at the command line;"
            " name one of params.yaml: folds"
        )
    return int(text)


def check_fold(fold: int, split: SplitParams) -> None:
    """Refuse a fold that holds out no chip.

    Raises:
        ParamsError: It is not below the number of folds.
    """
    if fold >= split.n_folds:
        raise ParamsError(
            f"expected a fold below split.n_folds = {split.n_folds} of params.yaml, got {fold}, at"
            " the command line; name another"
        )


def read_document(path: Path) -> dict[str, Any]:
    """Read a YAML mapping as it stands, unchecked, with the very parser that DVC reads it with.

    Another would read other values: PyYAML takes 2831e417 for text, 017 for 15, `on` for true and
    1e-4 for text, where DVC finds infinity, 17, text and a number, and tells changes by these.

    Raises:
        ParamsError: It is absent, not UTF-8, not YAML or no mapping.
        OSError: It cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ParamsError(
            f"expected the file {path}, got none; run in the repository's root"
        ) from None
    except UnicodeDecodeError as error:
        raise ParamsError(
            f"expected UTF-8 in {path}, got another encoding ({error}); save it in UTF-8"
        ) from None
    try:
        document = deepcopy(_parse(text))  # whoever reads it may change it
    except Exception as error:  # a dozen kinds: ValueError of 2001-99-99, KeyError of !!bool 1 ...
        raise ParamsError(
            f"expected YAML in {path}, got {_describe_mistake(error)}; mend the file"
        ) from None
    if not isinstance(document, dict):
        got = "nothing" if document is None else f"a {type(document).__name__}"
        raise ParamsError(f"expected `key: value` in {path}, got {got}; mend the file")
    return document


@lru_cache(maxsize=8)  # the report reads dvc.yaml and params.yaml for each stage, 30 ms a time
def _parse(text: str) -> Any:
    return YAML(typ="safe").load(text)


def look_up(values: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key."""
    found: Any = values
    for part in key.split("."):
        found = found[part]
    return found


def find_value(values: Mapping[str, Any], key: str, default: object = None) -> Any:
    """Return the value of a dotted key, or `default` where there is none."""
    try:
        return look_up(values, key)
    except (KeyError, TypeError):
        return default


def validate_document(model: type[SectionT], document: dict[str, Any], path: Path) -> SectionT:
    """Return what a file's mapping says, as a model has it.

    Args:
        model: What it must be.
        document: The mapping.
        path: The file.

    Raises:
        ParamsError: It is not so; one line a finding.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        found = list(_drop_echoes(error.errors()))
        told = [f"{path}: {_describe(finding, path)}" for finding in found[:LISTED]]
        if len(found) > LISTED:
            told.append(f"and {len(found) - LISTED} more")
        raise ParamsError("; ".join(told)) from None


def _drop_echoes(findings: list[Any]) -> Iterator[Any]:
    """Leave out that a list is too short, where it is so for want of its refused items."""
    for finding in findings:
        place = finding["loc"]
        inside = any(other["loc"][: len(place)] == place for other in findings if other != finding)
        if finding["type"] != "too_short" or not inside:
            yield finding


def _describe(finding: Any, path: Path) -> str:
    key = ".".join(str(part) for part in finding["loc"])
    message = str(finding["msg"]).removeprefix("Value error, ")
    if finding["type"] == "extra_forbidden":
        return f"{key}: unknown key; mend its spelling or remove it"
    if finding["type"] == "missing":
        return f"{key}: expected a value, got none; add the key"
    if finding["type"] == "value_error":
        return message
    if finding["type"] == "string_type" and not isinstance(finding["input"], dict | list):
        return _ask_for_quotes(finding["loc"], finding["input"], path)
    remedy = ""
    if finding["type"] in _NOT_TEXT and isinstance(finding["input"], str):
        remedy = f"; write {_NOT_TEXT[finding['type']]}, without quotes"
    message = message.replace("valid tuple", "list").replace("Tuple", "List")  # YAML has no tuples
    return f"{key}: {message[0].lower()}{message[1:]}, got {finding['input']!r}{remedy}"


def _ask_for_quotes(location: tuple[str | int, ...], value: object, path: Path) -> str:
    """Describe a value that YAML does not take for text, since it stands there without quotes."""
    written = _find_written(location, path) or str(value)
    kind = {"float": "number", "int": "number", "bool": "truth value", "NoneType": "nothing"}
    got = f"the {kind.get(type(value).__name__, type(value).__name__)} {value}"
    if value is None:
        got = "nothing"
    if written != str(value):
        got = f"{written}, which YAML reads as {got}"
    # A list is one value on the command line, where the shell takes the outer quotes away.
    names = [str(part) for part in location if not isinstance(part, int)]
    quoted = "['TEXT']" if len(names) < len(location) else "'TEXT'"
    return (
        f"{'.'.join(map(str, location))}: expected text, got {got}; write it in quotes: 'TEXT',"
        f' on the command line -S "{".".join(names)}={quoted}"'
    )


def _find_written(location: tuple[str | int, ...], path: Path) -> str | None:
    """Return what stands in the file before YAML gives it a type; None where `<<` brought it."""
    found: Any = YAML(typ="base").load(path.read_text(encoding="utf-8"))
    try:
        for part in location:
            found = found[part]
    except (KeyError, TypeError):
        return None
    return str(found)


def _describe_mistake(error: Exception) -> str:
    """Return what the parser says, and where, on one line."""
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        problem = " ".join(str(error.problem or error.context).split())
        return f"a mistake in line {mark.line + 1}, column {mark.column + 1} ({problem})"
    return f"a mistake ({type(error).__name__}: {' '.join(str(error).split())})"
