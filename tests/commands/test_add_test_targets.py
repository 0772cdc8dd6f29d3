"""Test targets described from their files: as the catalogue that the simulator writes with them."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from archive_examples import cut, flip, make_tar, make_zip, split_zip, write_numbered, write_split
from hub_server import Answer, HubServer
from waiting import happens

from biomassters.commands.add_test_targets import add_test_targets
from biomassters.dataset.catalogue import read_catalogue
from biomassters.errors import BiomasstersError, CatalogueError, ChipDataError, SourceError
from biomassters.simulator.official_files import write_dataset
from biomassters.store.chips import ChipStore
from repository_copy import ROOT, SRC, set_params

TABLE = "test_agbm_metadata.csv"
N_CHIPS = 3


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Official files, with the catalogue of the test targets that is to be made."""
    folder = tmp_path_factory.mktemp("dataset") / "simulated"
    write_dataset(folder, n_train=1, n_test=N_CHIPS, chip_size=32)
    return folder


@pytest.fixture(scope="module")
def targets(dataset: Path) -> Mapping[str, bytes]:
    """The targets' files by their path in the hub's archive."""
    return {f"test_agbm/{path.name}": path.read_bytes() for path in dataset.glob("test_agbm/*.tif")}


@pytest.fixture
def catalogue(dataset: Path, tmp_path: Path) -> Path:
    """The catalogue as it is published: without the targets of the test chips."""
    folder = tmp_path / "catalogue"
    folder.mkdir()
    for name in ("features_metadata.csv", "train_agbm_metadata.csv"):
        (folder / name).write_bytes((dataset / name).read_bytes())
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty folder, for the targets."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def write_official(home: Path, targets: Mapping[str, bytes]) -> Path:
    (home / "test_agbm").mkdir()
    for path, data in targets.items():
        (home / path).write_bytes(data)
    return home


def write_flat(home: Path, targets: Mapping[str, bytes]) -> Path:
    for path, data in targets.items():
        (home / Path(path).name).write_bytes(data)
    return home


def write_tar(home: Path, targets: Mapping[str, bytes]) -> Path:
    (home / "test_agbm.tar").write_bytes(make_tar(targets))
    (home / "test_agbm (1).tar").write_bytes(make_tar(targets))  # which is not named
    return home / "test_agbm.tar"


def write_numbered_tar(home: Path, targets: Mapping[str, bytes]) -> Path:
    write_numbered(home, "targets.tar", cut(make_tar(targets), 3))
    return home / "targets.tar.001"


def write_split_zip(home: Path, targets: Mapping[str, bytes]) -> Path:
    write_split(home, "targets", split_zip(make_zip(targets), 3))
    return home


@pytest.mark.parametrize(
    "write", [write_official, write_flat, write_tar, write_numbered_tar, write_split_zip]
)
def test_table_is_that_of_the_simulator_wherever_the_targets_are(
    write: Callable[[Path, Mapping[str, bytes]], Path],
    dataset: Path,
    targets: Mapping[str, bytes],
    catalogue: Path,
    home: Path,
) -> None:
    said = add_test_targets(catalogue, str(write(home, targets)))
    assert f"describes the targets of {N_CHIPS} of {N_CHIPS} test chips" in said
    assert (catalogue / TABLE).read_bytes() == (dataset / TABLE).read_bytes()
    assert all(chip.agbm for chip in read_catalogue(catalogue).chips("test"))


def without_one(targets: Mapping[str, bytes]) -> Mapping[str, bytes]:
    return dict(list(targets.items())[1:])


@pytest.mark.parametrize("write", [write_official, write_tar])
def test_absent_target_is_named_or_left_out_where_asked(
    write, targets: Mapping[str, bytes], catalogue: Path, home: Path
) -> None:
    place = str(write(home, without_one(targets)))
    lacking = Path(next(iter(targets))).name
    message = rf"each of the 3 test chips, got none for 1 \({lacking}\), at {place}; .*--partly"
    with pytest.raises(CatalogueError, match=message):
        add_test_targets(catalogue, place)
    assert not (catalogue / TABLE).exists()
    assert "targets of 2 of 3" in add_test_targets(catalogue, place, partly=True)
    chips = read_catalogue(catalogue).chips("test")
    assert [f"{chip.chip_id}_agbm.tif" for chip in chips if chip.agbm is None] == [lacking]


def test_damaged_target_is_named_and_nothing_is_written(
    targets: Mapping[str, bytes], catalogue: Path, home: Path
) -> None:
    data = make_zip(targets, stored=True)
    path, sound = next(iter(targets.items()))
    (home / "x.zip").write_bytes(flip(data, data.index(sound) + len(sound) - 1))
    name = Path(path).name
    with pytest.raises(ChipDataError, match=rf"expected CRC-32 .*, got .*, at {name}; mend"):
        add_test_targets(catalogue, str(home))
    assert not (catalogue / TABLE).exists()


def write_text(home: Path, targets: Mapping[str, bytes]) -> Path:
    write_tar(home, targets)
    (home / "test_agbm.tar.gz").write_bytes(b"packed")
    return home / "test_agbm.tar.gz"


def write_cut_tar(home: Path, targets: Mapping[str, bytes]) -> Path:
    (home / "test_agbm.tar").write_bytes(make_tar(targets)[:5000])
    return home


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda home, _: home / "absent", "expected a folder, a zip or tar, or the word hub"),
        (lambda home, _: home, r"expected \.zip, \.z01, \.zip\.001 or \.tar files, got none"),
        (write_text, r"file, got another, at .*test_agbm\.tar\.gz; name an archive \(decompress"),
        (write_cut_tar, r"at .*test_agbm\.tar; download it again"),
    ],
)
def test_place_without_targets_is_refused(
    write, message: str, targets: Mapping[str, bytes], catalogue: Path, home: Path
) -> None:
    with pytest.raises(SourceError, match=message):
        add_test_targets(catalogue, str(write(home, targets)), partly=True)
    assert not (catalogue / TABLE).exists()


def test_targets_that_are_described_already_stay(dataset: Path) -> None:
    before = (dataset / TABLE).read_bytes()
    with pytest.raises(CatalogueError, match=rf"got {TABLE}, at {dataset}; remove it"):
        add_test_targets(dataset, str(dataset))
    assert (dataset / TABLE).read_bytes() == before


def test_catalogue_without_test_chips_is_refused(catalogue: Path, dataset: Path) -> None:
    table = catalogue / "features_metadata.csv"
    rows = table.read_text().splitlines(keepends=True)
    table.write_text("".join(row for row in rows if ",test," not in row))
    with pytest.raises(CatalogueError, match="expected test chips, got none"):
        add_test_targets(catalogue, str(dataset))


def test_data_of_the_pipeline_is_not_written_to(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BiomasstersError, match="expected a folder outside data/"):
        add_test_targets(Path("data"), str(dataset))


def run(folder: Path, *command: str, **environment: str) -> "subprocess.Popen[str]":
    """Start a command of the project in a folder."""
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "NO_PROXY": "*", "PYTHONPATH": str(SRC), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def add_from_hub(folder: Path, server: HubServer) -> "subprocess.Popen[str]":
    command = ("-m", "biomassters", "add-test-targets", "catalogue", "hub")
    return run(folder, *command, HF_ENDPOINT=server.endpoint)


def test_killed_download_from_the_hub_goes_on_and_writes_nothing_before_its_end(
    dataset: Path, targets: Mapping[str, bytes], catalogue: Path, tmp_path: Path
) -> None:
    archive = make_tar(targets)
    n_sent = len(archive) // 2
    with HubServer({"test_agbm.tar": archive, "train_agbm.zip": b"not wanted"}) as server:
        server.bodies = [Answer(n_sent=n_sent, is_held=True)]
        with add_from_hub(tmp_path, server) as killed:
            assert server.is_holding.wait(60)
            part = tmp_path / "work/hub/.download/test_agbm.tar.part"
            assert happens(lambda: part.stat().st_size == n_sent)
            killed.kill()
        assert not (catalogue / TABLE).exists()
        with add_from_hub(tmp_path, server) as process:
            said, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    assert f"targets of {N_CHIPS} of {N_CHIPS} test chips" in said
    assert [(sent.name, sent.start) for sent in server.sent] == [
        ("test_agbm.tar", 0),
        ("test_agbm.tar", n_sent),
    ]
    assert (catalogue / TABLE).read_bytes() == (dataset / TABLE).read_bytes()


def fetch_test_chips(folder: Path, source: str, **environment: str) -> ChipStore:
    """Run the stage fetch of the test split, with the catalogue as its data/."""
    for name in ("params.yaml", "dvc.yaml"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    set_params(folder, {"data.source": source, "data.chip_size": 32})
    (folder / "data").symlink_to("catalogue")
    with run(folder, str(SRC / "fetch.py"), "test", BIOMASSTERS_WORKERS="0", **environment) as done:
        said, errors = done.communicate()
    assert (done.returncode, errors) == (0, "")
    assert said.startswith(f"test: {N_CHIPS} chips fetched")
    return ChipStore.open(folder / "chips/test.zarr")


def make_archives(dataset: Path, targets: Mapping[str, bytes]) -> Mapping[str, bytes]:
    """Return the hub's archives of the test split: features in parts of a zip, targets in a tar."""
    paths = dataset.glob("test_features/*.tif")
    features = {f"test_features/{path.name}": path.read_bytes() for path in paths}
    names = [f"test_features_splits.{end}" for end in ("z01", "z02", "zip")]
    parts = dict(zip(names, split_zip(make_zip(features), 3), strict=True))
    return {**parts, "test_agbm.tar": make_tar(targets)}


@pytest.mark.usefixtures("catalogue")
@pytest.mark.parametrize("source", ["hub", "archives", "folder"])
def test_described_targets_are_fetched_from_where_they_were_found(
    source: str, dataset: Path, targets: Mapping[str, bytes], home: Path, tmp_path: Path
) -> None:
    archives = make_archives(dataset, targets)
    for name, data in archives.items():
        (home / name).write_bytes(data)
    place, root = {
        "hub": ("hub", tmp_path),
        "archives": (str(home / "test_agbm.tar"), home),
        "folder": (str(dataset), dataset),
    }[source]
    with HubServer(archives) as server:
        variables = {"HF_ENDPOINT": server.endpoint, "BIOMASSTERS_FOLDER": str(root)}
        command = ("-m", "biomassters", "add-test-targets", "catalogue", place)
        with run(tmp_path, *command, **variables) as added:
            assert added.communicate()[1] == ""
        store = fetch_test_chips(tmp_path, source, **variables)
    assert store.has_targets
    assert [f"test_agbm/{chip_id}_agbm.tif" for chip_id in store.chip_ids] == sorted(targets)
    # The hub's archive was downloaded once, for both.
    assert [sent.name for sent in server.sent].count("test_agbm.tar") == (source == "hub")
