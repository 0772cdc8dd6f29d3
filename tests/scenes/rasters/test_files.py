"""Rasters over a network and damaged ones: a real server on loopback, with faults."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from raster_examples import (
    QUICK,
    describe_scene,
    lay_grid,
    open_scene,
    simulate_pixels,
    write_months,
)
from raster_server import Fault, RasterServer, serve_folder, serve_s3
from s3_server import connect, tell_gdal

from biomassters.errors import UnreadableRasterError
from biomassters.scenes.grid import Box
from biomassters.scenes.rasters.addresses import Address
from biomassters.scenes.rasters.files import RasterFiles

SIZE = 128
PIXELS = simulate_pixels("network", SIZE)
QUERY = "?X-Amz-Signature=0123456789abcdef"
KINDS = ("slow down", "busy", "reset", "cut")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    write_months(folder, PIXELS, lay_grid(SIZE), driver="COG", blocksize=128)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[RasterServer]:
    with serve_folder(folder) as server:
        yield server


def describe_july(prefix: str, query: str = "") -> dict:
    """Return the YAML of a scene that has July alone: fewer files, quicker tests."""
    document = describe_scene(lay_grid(SIZE), [10], prefix)
    for entry in document["rasters"]:
        entry |= {"months": ["July"], "files": entry["files"] + query}
    return document


def assert_right(scene, box: Box) -> None:
    rows, columns = box.within(lay_grid(SIZE).extent)
    read = scene.read(box)
    assert np.array_equal(read.s1[10], PIXELS.cut(rows, columns).s1[10])
    assert np.array_equal(read.s2[10], PIXELS.cut(rows, columns).s2[10])


def list_boxes() -> list[Box]:
    return list(lay_grid(SIZE).extent.split(50))


def test_scene_is_read_by_ranges_over_http(server: RasterServer, tmp_path: Path) -> None:
    server.spoil()
    scene = open_scene(describe_july(server.url(""), QUERY), tmp_path)
    assert_right(scene, scene.grid.extent)
    names = {f"{name}_10.tif" for name in ("s1_ascending", "s1_descending", "s2")}
    assert set(server.count()) == names  # no folder is listed, no file beside them looked for


@pytest.mark.parametrize("kind", KINDS)
def test_passing_faults_change_nothing(server: RasterServer, tmp_path: Path, kind: str) -> None:
    server.spoil(Fault(kind, n_times=3))
    scene = open_scene(describe_july(server.url(""), QUERY), tmp_path)
    server.spoil(Fault(kind, n_times=3))
    assert_right(scene, scene.grid.extent)
    assert server.count()["spoilt"] >= 3


@pytest.mark.parametrize("kind", [*KINDS, "expired", "missing"])
def test_lasting_fault_is_told_and_forgotten_when_it_is_over(
    server: RasterServer, tmp_path: Path, kind: str
) -> None:
    server.spoil()
    scene = open_scene(describe_july(server.url(""), QUERY), tmp_path)
    server.spoil(Fault(kind, "s2_10"))
    with pytest.raises(UnreadableRasterError) as told:
        scene.read(scene.grid.extent)
    assert server.url("s2_10.tif") in str(told.value)
    assert "Signature" not in str(told.value)
    assert "0123456789abcdef" not in str(told.value)
    server.spoil()
    for box in list_boxes():
        assert_right(scene, box)


def test_expired_signature_is_named_and_not_tried_again(
    server: RasterServer, tmp_path: Path
) -> None:
    server.spoil(Fault("expired", "s2_10"))
    with pytest.raises(UnreadableRasterError, match="signature may have expired: fetch new ones"):
        open_scene(describe_july(server.url(""), QUERY), tmp_path)
    assert server.count()["spoilt"] <= 2  # HEAD and GET of one try


def test_absent_file_of_a_server_is_named_with_its_remedy(
    server: RasterServer, tmp_path: Path
) -> None:
    server.spoil()
    document = describe_july(server.url("nothing_"))
    with pytest.raises(UnreadableRasterError, match=r"404.*nothing_s.*declare the month as absent"):
        open_scene(document, tmp_path)


def test_signature_is_no_part_of_the_identity(server: RasterServer, tmp_path: Path) -> None:
    server.spoil()
    one, two, other = (
        open_scene(describe_july(server.url(path), query), tmp_path).identity
        for path, query in (("", QUERY), ("", "?X-Amz-Signature=ffff"), ("./", QUERY))
    )
    assert one == two != other
    assert len(one) == 16


def test_threads_read_at_once_through_faults(server: RasterServer, tmp_path: Path) -> None:
    server.spoil()
    scene = open_scene(describe_july(server.url("")), tmp_path)
    server.spoil(Fault("busy", "s2_10", n_times=2))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda box: assert_right(scene, box), list_boxes()))
    assert server.count()["spoilt"] == 2


def test_idle_files_are_bounded(folder: Path) -> None:
    files = RasterFiles(QUICK, most_idle=3)
    for path in sorted(folder.glob("*.tif"))[:8]:
        files.use(Address.parse(path.name, folder), lambda dataset: dataset.count)
        assert len(files._idle) <= 3
    files.close()
    assert not files._idle


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_damaged_local_file_is_named(tmp_path: Path, damage: str) -> None:
    document = write_months(tmp_path, PIXELS, lay_grid(SIZE))
    scene = open_scene(document, tmp_path)
    path = tmp_path / "s2_10.tif"
    data = path.read_bytes()
    middle = len(data) // 2
    rest = b"" if damage == "truncated" else bytes(2000) + data[middle + 2000 :]
    path.write_bytes(data[:middle] + rest)
    with pytest.raises(UnreadableRasterError, match=r"got .*at .*s2_10.tif; mend the file"):
        scene.read(scene.grid.extent)


def test_scene_is_read_from_s3(folder: Path, tmp_path: Path, monkeypatch) -> None:
    with serve_s3() as port:
        tell_gdal(port, monkeypatch)
        client = connect(port)
        client.create_bucket(Bucket="scenes", ACL="public-read")
        for path in folder.glob("*_10.tif"):
            client.put_object(
                Bucket="scenes", Key=f"2020/{path.name}", Body=path.read_bytes(), ACL="public-read"
            )
        client.close()
        scene = open_scene(describe_july("s3://scenes/2020/"), tmp_path)
        assert_right(scene, scene.grid.extent)
        with pytest.raises(
            UnreadableRasterError, match=r"no such file, or no answer.*at s3://scenes/2021/s"
        ):
            open_scene(describe_july("s3://scenes/2021/"), tmp_path)
