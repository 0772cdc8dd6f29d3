import pickle
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from example_chips import ALL_CHIPS

from biomassters.errors import ParamsError
from biomassters.params.sections import DataParams
from biomassters.processes.environment import FOLDER_VARIABLE
from biomassters.sources.archives.archive_source import ArchiveSource
from biomassters.sources.folder_source import FolderSource
from biomassters.sources.hub.hub_source import HubSource
from biomassters.sources.opening import open_source
from biomassters.sources.s3.s3_source import S3Source
from biomassters.sources.synthetic_source import SyntheticSource

SOURCES = {
    "synthetic": SyntheticSource,
    "folder": FolderSource,
    "archives": ArchiveSource,
    "s3": S3Source,
    "hub": HubSource,
}


def params(source: str) -> DataParams:
    return DataParams(source=source, chip_size=64, on_bad_chip="fail", subset=ALL_CHIPS)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    return tmp_path


def test_every_source_of_params_can_be_opened() -> None:
    assert get_args(DataParams.model_fields["source"].annotation) == tuple(SOURCES)


@pytest.mark.parametrize("kind", SOURCES)
def test_open_source_follows_params(kind: str) -> None:
    source = open_source(params(kind), 1)
    assert type(source) is SOURCES[kind]
    assert source.kind == kind


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_can_be_sent_to_other_processes(kind: str) -> None:
    source = pickle.loads(pickle.dumps(open_source(params(kind), 1)))  # noqa: S301
    assert type(source) is SOURCES[kind]


def test_sources_are_told_what_they_need(folder: Path) -> None:
    assert open_source(params("synthetic"), 1).chip_size == 64
    assert open_source(params("folder"), 1).root == folder
    assert open_source(params("archives"), 1).folder == folder
    assert open_source(params("hub"), 1).folder == folder


@pytest.mark.parametrize("kind", ["folder", "archives", "hub"])
def test_a_folder_that_does_not_exist_is_refused(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, "no/such/folder")
    message = rf"got 'no/such/folder', at .* \(data\.source is {kind}\); set"
    with pytest.raises(ParamsError, match=message):
        open_source(params(kind), 1)


def test_the_hub_s_client_is_imported_for_the_hub_alone() -> None:
    script = "import sys, biomassters.sources.opening; assert 'huggingface_hub' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
