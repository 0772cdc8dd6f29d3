"""The Hugging Face hub as a source: its archives are downloaded, and then read in place.

Knows the repository, how its archives are called and which of them the chips need.
"""

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Event, Lock
from typing import Final

from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.constants import HF_HUB_DOWNLOAD_TIMEOUT
from huggingface_hub.hf_api import DatasetInfo
from tqdm import tqdm

from biomassters.dataset.files import ChipRecord, FileRecord, list_files
from biomassters.errors import SourceError
from biomassters.processes.environment import (
    FOLDER_VARIABLE,
    HUB_REVISION_VARIABLE,
    Environment,
)
from biomassters.processes.scratch import hold_folder, scratch_folder
from biomassters.sources.archives.archive_source import ArchiveSource
from biomassters.sources.hub.download import STATE_FOLDER, RemoteFile, download, measure_room
from biomassters.sources.hub.faults import PassingError, name_disk_faults, name_faults, retry
from biomassters.sources.source import FetchedChip, read_folder_variable

HUB_REPOSITORY: Final = "nascetti-a/BioMassters"
"""The dataset repository on the Hugging Face hub; its owner is the first author of the data."""

ARCHIVE_STEMS: Final[Mapping[str, str]] = {
    "train_features": "train_features",
    "test_features": "test_features_splits",
    "train_agbm": "train_agbm",
    "test_agbm": "test_agbm",
}
"""How the archives that hold each official folder begin.

Source: the files of `HUB_REPOSITORY`.
"""

_STEM_FOLDERS: Final = {stem: folder for folder, stem in ARCHIVE_STEMS.items()}
_ARCHIVE: Final = re.compile(r"(\w+)\.(?:zip|z\d{2,}|tar)", re.ASCII)

_N_CONNECTIONS: Final = 4
"""Files that come at a time."""

_GB: Final = 10**9


class HubSource:
    """Downloads the archives that hold the chips' files, and reads these from there.

    What the archives are called, how many parts they have, their sizes and checksums is what the
    repository says at one commit.

    Attributes:
        folder: Where the archives go; made if absent.
        revision: A branch, tag or commit of the repository.
        endpoint: The hub's address; None = that of huggingface_hub, which HF_ENDPOINT sets.
    """

    kind = "hub"

    def __init__(self, folder: Path, revision: str, endpoint: str | None = None) -> None:
        self.folder = folder
        self.revision = revision
        self.endpoint = endpoint
        self._archives = ArchiveSource(folder)

    def prepare(self, chips: Sequence[ChipRecord]) -> None:
        """Download what is not there yet, verify it, and index it.

        Raises:
            SourceError: The hub cannot be used, lacks archives or gives wrong ones, or there is no
                room for them.
            BusyError: Another process downloads into the same folder.
        """
        if not chips:
            return
        folders = {record.folder for chip in chips for record in list_files(chip)}
        with name_disk_faults(self.folder), hold_folder(self.folder / STATE_FOLDER):
            files = list_archives(folders, self.revision, self.endpoint)
            check_room(files, self.folder)
            download_all(files, self.folder)
        self._archives.prepare(chips)

    def measure(self, record: FileRecord) -> FileRecord | None:
        """Return a record with the size that its archive gives; None = no archive has the file.

        Args:
            record: Of a chip that `prepare` was given.
        """
        return self._archives.measure(record)

    def fetch_chips(self, chips: Iterable[ChipRecord]) -> Iterator[FetchedChip]:
        """Yield each chip with all its files, as the archives have them."""
        return self._archives.fetch_chips(chips)


def open_hub() -> HubSource:
    """Open the hub as the environment says.

    Archives go to the folder that BIOMASSTERS_FOLDER names or, if it is not set, to `work/hub`;
    they are those of the revision (a branch, tag or commit) that BIOMASSTERS_HUB_REVISION names,
    by default `main`. The hub is that of HF_ENDPOINT, asked with HF_TOKEN, if these are set.

    Raises:
        ParamsError: BIOMASSTERS_FOLDER names no existing folder.
    """
    environment = Environment()
    folder = scratch_folder("hub")
    if environment.folder is not None:
        folder = read_folder_variable("hub")
    return HubSource(folder, environment.hub_revision or "main")


def list_archives(
    folders: Iterable[str], revision: str, endpoint: str | None = None
) -> list[RemoteFile]:
    """Return the archives that hold official folders, at the commit that the revision is now.

    Args:
        folders: Such as `train_features`.
        revision: A branch, tag or commit.
        endpoint: The hub's address; None = that of huggingface_hub.

    Raises:
        SourceError: The hub cannot be used, or has no archive of a folder.
    """
    api = HfApi(endpoint=endpoint)
    where = f"{api.endpoint}/datasets/{HUB_REPOSITORY}"
    info = retry(lambda: _ask_hub(api, revision, where), where, Event())
    archives: dict[str, list[RemoteFile]] = {folder: [] for folder in sorted(folders)}
    for sibling in info.siblings or []:
        folder = find_held_folder(sibling.rfilename)
        if folder not in archives or not sibling.size:
            continue
        name = sibling.rfilename
        url = hf_hub_url(
            HUB_REPOSITORY, name, repo_type="dataset", revision=info.sha, endpoint=endpoint
        )
        sha256 = sibling.lfs.sha256 if sibling.lfs else None
        archives[folder].append(RemoteFile(name, sibling.size, sha256, url))
    for folder, files in archives.items():
        if not files:
            raise SourceError(
                f"expected {ARCHIVE_STEMS[folder]}.zip, its parts or {ARCHIVE_STEMS[folder]}.tar,"
                f" got none of them, at {where}, revision {revision};"
                f" check HF_ENDPOINT and {HUB_REVISION_VARIABLE}"
            )
    return [file for files in archives.values() for file in sorted(files)]


def find_held_folder(filename: str) -> str | None:
    """Return the official folder whose files an archive, or a part of one, holds.

    Args:
        filename: Its name without a folder, such as `test_features_splits.z01`.

    Returns:
        Such as `test_features`; None for any other file.
    """
    match = _ARCHIVE.fullmatch(filename)
    return _STEM_FOLDERS.get(match[1]) if match else None


def _ask_hub(api: HfApi, revision: str, where: str) -> DatasetInfo:
    with name_faults(where):
        try:
            return api.dataset_info(
                HUB_REPOSITORY,
                revision=revision,
                files_metadata=True,
                timeout=HF_HUB_DOWNLOAD_TIMEOUT,
            )
        except (ValueError, KeyError, TypeError) as error:  # such as a login page of a network
            raise PassingError(f"no list of files ({error!r})") from None


def check_room(files: Iterable[RemoteFile], folder: Path) -> None:
    """Make sure that the disk can take what is missing.

    Raises:
        SourceError: It cannot.
    """
    needed = sum(measure_room(file, folder) for file in files)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise SourceError(
            f"expected room for {needed / _GB:.1f} GB of archives, got {free / _GB:.1f} GB, at"
            f" {folder.resolve()}; free some space, or name a folder on a larger disk in"
            f" {FOLDER_VARIABLE}"
        )


def download_all(files: Sequence[RemoteFile], folder: Path) -> None:
    """Download several files at a time into a folder; those that are there already are kept.

    Raises:
        SourceError: One cannot be had; what came of the others is kept for the next run.
    """
    total = sum(file.size for file in files)
    stop, lock = Event(), Lock()
    with (
        tqdm(total=total, unit="B", unit_scale=True, desc="hub archives", disable=None) as progress,
        ThreadPoolExecutor(_N_CONNECTIONS) as pool,
    ):

        def report(n_bytes: int) -> None:
            with lock:
                progress.update(n_bytes)

        futures = [pool.submit(download, file, folder, report, stop) for file in files]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
