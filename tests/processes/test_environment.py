import logging
import re
from pathlib import Path

import pytest

from biomassters.errors import ParamsError
from biomassters.processes.environment import (
    VARIABLES,
    Environment,
    S3Environment,
    warn_of_unknown_variables,
)
from repository_copy import ROOT

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SOURCES = sorted((ROOT / "src").rglob("*.py"))


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def list_variables(text: str) -> set[str]:
    return set(re.findall(r"BIOMASSTERS_\w+", text))


def list_table(path: Path) -> set[str]:
    """Return the variables in the first column of a document's tables."""
    first_cells = re.findall(r"^\|([^|]*)\|", path.read_text(), re.MULTILINE)
    return list_variables(" ".join(first_cells))


def test_readme_has_a_row_for_each_variable_and_names_no_other() -> None:
    assert list_table(ROOT / "README.md") == set(VARIABLES)


def test_cluster_document_has_the_rows_of_processes() -> None:
    rows = list_table(ROOT / "docs/cluster.md")
    assert rows == {
        f"BIOMASSTERS_{name}"
        for name in ("PROCESSES", "LAUNCH", "WORKERS", "ACTIVATION_CHECKPOINTING")
    }


@pytest.mark.parametrize("path", [*DOCUMENTS, *SOURCES], ids=lambda path: path.name)
def test_every_variable_that_a_file_names_is_known(path: Path) -> None:
    assert list_variables(path.read_text()) <= set(VARIABLES)


def test_nothing_set_is_the_default() -> None:
    assert Environment().model_dump() == {
        "folder": None,
        "hub_revision": "",
        "workers": None,
        "processes": None,
        "launch": (),
        "activation_checkpointing": False,
    }
    assert S3Environment().connections == 32


def test_values_are_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"FOLDER": "my chips", "HUB_REVISION": "v1.0", "WORKERS": "0", "PROCESSES": "12"}
    values |= {"LAUNCH": "srun torchrun --name='a b'", "ACTIVATION_CHECKPOINTING": "1"}
    for name, value in values.items():
        monkeypatch.setenv(f"BIOMASSTERS_{name}", value)
    environment = Environment()
    assert (environment.folder, environment.hub_revision) == ("my chips", "v1.0")
    assert (environment.workers, environment.processes) == (0, 12)
    assert environment.launch == ("srun", "torchrun", "--name=a b")
    assert environment.activation_checkpointing is True


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("WORKERS", "two", "a number of processes"),
        ("WORKERS", "\u0663", "a number of processes"),
        ("PROCESSES", "0", "a number of processes from 1 on"),
        ("PROCESSES", "+1", "a number of processes from 1 on"),
        ("LAUNCH", "srun 'torchrun", "a command as a shell reads it (No closing quotation)"),
        ("ACTIVATION_CHECKPOINTING", "yes", "0 or 1"),
        ("ACTIVATION_CHECKPOINTING", "", "0 or 1"),
    ],
)
def test_value_that_cannot_be_is_refused_in_one_line(
    name: str, value: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"BIOMASSTERS_{name}", value)
    start = f"expected {expected}, got {value!r}, at the environment variable BIOMASSTERS_{name}; "
    with pytest.raises(ParamsError, match=rf"^{re.escape(start)}.+$"):
        Environment()


def test_variable_of_s3_is_no_matter_of_other_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIOMASSTERS_CONNECTIONS", "many")
    assert Environment().workers is None
    with pytest.raises(
        ParamsError, match=r"BIOMASSTERS_CONNECTIONS \(data\.source is s3\); set it"
    ):
        S3Environment()


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("BIOMASSTERS_WORKER", "BIOMASSTERS_WORKERS"),
        ("BIOMASSTERS_S3_REIGON", "BIOMASSTERS_S3_REGION"),
        ("BIOMASSTERS_GRADIENT_CHECKPOINTING", "BIOMASSTERS_ACTIVATION_CHECKPOINTING"),
    ],
)
def test_slip_is_one_warning_that_names_the_nearest(
    slip: str, meant: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(slip, "1")
    monkeypatch.setenv("BIOMASSTERS_WORKERS", "1")
    warn_of_unknown_variables()
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert f"got {slip}, which nothing reads; unset it, or set {meant} " in record.message


def test_known_variables_are_no_slip(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "1")
    warn_of_unknown_variables()
    assert not caplog.records
