"""Reading params.yaml: the sections that a stage asked for, after a check of the whole file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from biomassters.errors import ParamsError
from biomassters.params.sections import Params

PARAMS_FILE = Path("params.yaml")

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
    _validate(Params, document, path)
    return _validate(sections, {key: document[key] for key in sections.model_fields}, path)


def read_document(path: Path) -> dict[str, Any]:
    """Read a YAML mapping as it stands, unchecked."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(
            f"expected the file {path}, got none; run in the repository's root"
        ) from None
    except yaml.YAMLError as error:
        raise ParamsError(
            f"expected YAML in {path}, got {' '.join(str(error).split())}; mend the file"
        ) from None
    if not isinstance(document, dict):
        raise ParamsError(f"expected a mapping in {path}, got {type(document).__name__}")
    return document


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


def _validate(model: type[SectionT], document: dict[str, Any], path: Path) -> SectionT:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        findings = [_describe(finding) for finding in error.errors()]
        raise ParamsError("; ".join(f"{path}: {finding}" for finding in findings)) from None


def _describe(finding: Any) -> str:
    key = ".".join(str(part) for part in finding["loc"])
    message = str(finding["msg"]).removeprefix("Value error, ")
    if finding["type"] == "extra_forbidden":
        return f"{key}: unknown key; mend its spelling or remove it"
    if finding["type"] == "missing":
        return f"{key}: expected a value, got none; add the key"
    if finding["type"] == "value_error":
        return message
    return f"{key}: {message[0].lower()}{message[1:]}, got {finding['input']!r}"
