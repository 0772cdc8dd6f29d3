import logging
import math
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
from numpy.typing import NDArray
from s3_server import BUCKET, connect, run_service, tell_gdal
from stac_examples import CORNER, Raster, lay_raster, make_item, serve_assets, write_cog

from biomassters.errors import UnreadableRasterError
from biomassters.scenes.grid import Box, Grid
from biomassters.scenes.patience import Patience
from biomassters.scenes.stac.loading import BLOCK, Load, load_block

GRID = Grid("EPSG:3067", 10.0, Box(0, 0, 1, 1))
BLOCK_BOX = Box(int(-CORNER[1] // 10), int(CORNER[0] // 10), BLOCK, BLOCK)
RED = Load(("B4",), "uint16", 0)
SHORT = Patience(tries=3, first_wait_s=0.001)


def make_raster(crs: str = "EPSG:32635") -> Raster:
    affine, side = lay_raster(crs, 10)
    values = np.random.default_rng(0).integers(1, 60_000, (side, side)).astype(np.uint16)
    return Raster(values, crs, affine)


def name_asset(raster: Raster, address: str) -> pystac.Item:
    item = make_item("A", datetime(2021, 6, 3, tzinfo=UTC), {"B4": raster}, {})
    item.add_asset("B4", pystac.Asset(address, media_type=pystac.MediaType.COG, roles=["data"]))
    return item


def read(item: pystac.Item, patience: Patience = SHORT) -> NDArray[np.uint16]:
    return load_block(item, RED, GRID, BLOCK_BOX, patience)["B4"]


@pytest.fixture
def raster(tmp_path: Path) -> Raster:
    raster = make_raster()
    write_cog(tmp_path / "red.tif", raster, 0)
    return raster


def expect(raster: Raster) -> NDArray[np.uint16]:
    """Return what lies south-east of the corner, and nothing beyond the raster."""
    column, row = (round(value) for value in ~raster.affine @ CORNER)
    part = raster.values[row : row + BLOCK, column : column + BLOCK]
    return np.pad(part, [(0, BLOCK - side) for side in part.shape])


def test_block_has_the_file_s_pixels_and_nodata_beyond(tmp_path: Path, raster: Raster) -> None:
    item = name_asset(raster, str(tmp_path / "red.tif"))
    np.testing.assert_array_equal(read(item), expect(raster))


def test_nodata_of_powers_is_nan(tmp_path: Path) -> None:
    affine, side = lay_raster("EPSG:32635", 10)
    values = np.full((side, side), 0.25, np.float32)
    values[side // 2 :] = -32768
    raster = Raster(values, "EPSG:32635", affine)
    write_cog(tmp_path / "vv.tif", raster, -32768)
    item = name_asset(raster, str(tmp_path / "vv.tif"))
    loaded = load_block(item, Load(("B4",), "float32", math.nan), GRID, BLOCK_BOX, SHORT)["B4"]
    assert np.isnan(loaded).all()
    north = Box(BLOCK_BOX.row - 50, BLOCK_BOX.column, 50, 50)
    loaded = load_block(item, Load(("B4",), "float32", math.nan), GRID, north, SHORT)["B4"]
    assert (loaded == 0.25).all()


def test_threads_read_the_same_at_once_and_keep_their_environment(
    tmp_path: Path, raster: Raster
) -> None:
    item = name_asset(raster, str(tmp_path / "red.tif"))

    def read_alone(_: int) -> tuple[NDArray[np.uint16], bool]:
        return read(item), rasterio.env.hasenv()

    with ThreadPoolExecutor(4) as pool:
        for loaded, has_environment in pool.map(read_alone, range(12)):
            np.testing.assert_array_equal(loaded, expect(raster))
            assert not has_environment
    with rasterio.Env(GDAL_HTTP_TIMEOUT="7"):
        read(item)
        assert rasterio.env.getenv()["GDAL_HTTP_TIMEOUT"] == "7"


def test_outage_is_waited_out(tmp_path: Path, raster: Raster) -> None:
    with serve_assets(tmp_path) as server:
        item = name_asset(raster, f"{server.address}/red.tif?sig=1")
        server.faults = [503, 503]
        np.testing.assert_array_equal(read(item, Patience(5, 0.001)), expect(raster))
        assert server.faults == []


def test_lasting_outage_is_told_without_the_signature(
    tmp_path: Path, raster: Raster, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture
) -> None:
    with serve_assets(tmp_path) as server, caplog.at_level(logging.DEBUG):
        item = name_asset(raster, f"{server.address}/red.tif?sig=secret")
        server.faults = [503] * 99
        with pytest.raises(UnreadableRasterError, match=r"at item A: http.*/red\.tif;") as raised:
            read(item)
        assert 99 - len(server.faults) >= 3
    told = str(raised.value) + caplog.text + "".join(capfd.readouterr())
    assert "trying again" in caplog.text
    assert "secret" not in told
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("status", "told"),
    [(403, "status 403.*if its signature has expired"), (404, "status 404.*mend its address")],
)
def test_refusal_is_final(tmp_path: Path, raster: Raster, status: int, told: str) -> None:
    with serve_assets(tmp_path) as server:
        item = name_asset(raster, f"{server.address}/red.tif?sig=secret&st={status}")
        server.faults = [status] * 9
        with pytest.raises(UnreadableRasterError, match=told) as raised:
            read(item, Patience(9, 100.0))
    assert "secret" not in str(raised.value)


def test_bytes_that_came_damaged_are_asked_for_again(tmp_path: Path, raster: Raster) -> None:
    path = tmp_path / "red.tif"
    sound = path.read_bytes()
    with serve_assets(tmp_path) as server:
        item = name_asset(raster, f"{server.address}/red.tif?sig=2")
        path.write_bytes(sound[: len(sound) // 3] + bytes(len(sound) - len(sound) // 3))
        with pytest.raises(UnreadableRasterError, match=r"item A: .*red\.tif"):
            read(item)
        path.write_bytes(sound)
        np.testing.assert_array_equal(read(item), expect(raster))


def test_s3_address_is_read_without_an_account(
    tmp_path: Path, raster: Raster, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_service(()) as port:
        client = connect(port)
        client.upload_file(str(tmp_path / "red.tif"), BUCKET, "a/red.tif")
        client.put_object_acl(Bucket=BUCKET, Key="a/red.tif", ACL="public-read")
        client.close()
        tell_gdal(port, monkeypatch)
        np.testing.assert_array_equal(
            read(name_asset(raster, f"s3://{BUCKET}/a/red.tif")), expect(raster)
        )
        with pytest.raises(UnreadableRasterError, match=rf"item A: s3://{BUCKET}/none\.tif"):
            read(name_asset(raster, f"s3://{BUCKET}/none.tif"))


def test_damaged_file_on_disk_is_named_at_once(tmp_path: Path, raster: Raster) -> None:
    path = tmp_path / "red.tif"
    item = name_asset(raster, str(path))
    path.write_bytes(path.read_bytes()[:20_000])
    for _ in range(2):
        with pytest.raises(UnreadableRasterError, match=r"at item A: .*red\.tif; ") as raised:
            read(item, Patience(9, 100.0))
        assert "\n" not in str(raised.value)
        path.write_bytes(b"no raster")
    path.unlink()
    with pytest.raises(UnreadableRasterError, match=r"red\.tif"):
        read(item, Patience(9, 100.0))
