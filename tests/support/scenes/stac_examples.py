"""A small archive as public catalogues have it: COGs of both sensors, and the JSON of a search.

It lies about a corner of four blocks of the lattice in EPSG:3067, north-west of Tampere: each box
across it is read from several.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pystac
import rasterio
from numpy.typing import NDArray
from pystac.extensions.eo import EOExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.raster import RasterBand, RasterExtension
from pystac.extensions.sat import OrbitState, SatExtension
from rasterio.warp import transform, transform_geom

CORNER: Final = (350_720.0, 6_809_600.0)
"""Where four blocks meet, EPSG:3067, m."""

BOUNDS: Final = (350_020.0, 6_809_000.0, 351_320.0, 6_810_400.0)
"""Of the tests' scenes: 140 rows and 130 columns of 10 m about the corner."""

SIDE_M: Final = 2400
"""Of an item's rasters, which cover the bounds in UTM zones 34N and 35N too."""

REFLECTANCE: Final = ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12")

_NUMBERS: Final = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
_COLOURS: Final = (
    *("blue", "green", "red", "rededge1", "rededge2", "rededge3"),
    *("nir", "nir08", "swir16", "swir22"),
)
_SIZES: Final = (*("10m",) * 3, *("20m",) * 3, "10m", *("20m",) * 3)

CATALOGUES: Final[dict[str, dict[str, str]]] = {
    "earth-search": dict(zip(REFLECTANCE, _COLOURS, strict=True)) | {"SCL": "scl"},
    "planetary-computer": dict(zip(REFLECTANCE, _NUMBERS, strict=True)) | {"SCL": "SCL"},
    "cdse": {
        band: f"{name}_{size}"
        for band, name, size in zip(
            (*REFLECTANCE, "SCL", "CLP"),
            (*_NUMBERS, "SCL", "CLD"),
            (*_SIZES, "20m", "20m"),
            strict=True,
        )
    },
}
"""What catalogues call the assets of Sentinel-2, by band."""

RESOLUTIONS_M: Final = {"B2": 10, "B3": 10, "B4": 10, "B8": 10}
"""All others have 20 m."""

FOREST_DN: Final = dict(
    zip(REFLECTANCE, (200, 350, 250, 600, 1600, 2000, 2300, 2400, 1200, 550), strict=True)
)
"""About what a forest reflects in summer."""


class Raster(NamedTuple):
    """Pixels with their place.

    Attributes:
        values: (H, W).
        crs: Of its grid.
        affine: From columns and rows to coordinates.
    """

    values: NDArray[Any]
    crs: str
    affine: rasterio.Affine


def lay_raster(crs: str, resolution: int) -> tuple[rasterio.Affine, int]:
    """Return the affine map and the side, pixels, of an item's raster about the corner."""
    (x,), (y,) = transform("EPSG:3067", crs, [CORNER[0]], [CORNER[1]])
    west, north = (round(value / 20) * 20 for value in (x - SIDE_M / 2, y + SIDE_M / 2))
    return rasterio.Affine(resolution, 0, west, 0, -resolution, north), SIDE_M // resolution


def make_s2(seed: int, crs: str = "EPSG:32635", raw: int = 0) -> dict[str, Raster]:
    """Make an acquisition of a forest, with lakes, clouds and shadows in its classification.

    Args:
        seed: Of its values; another one has other clouds.
        crs: Of its grid.
        raw: Added to all reflectance, as baselines from 04.00 on have 1000.
    """
    generator = np.random.default_rng(seed)
    rasters = {}
    for band, level in FOREST_DN.items():
        affine, side = lay_raster(crs, RESOLUTIONS_M.get(band, 20))
        noise = generator.integers(0, 120, (side, side))
        rasters[band] = Raster((level + raw + noise).astype(np.uint16), crs, affine)
    affine, side = lay_raster(crs, 20)
    patches = generator.choice([4, 4, 4, 5, 6, 3, 8, 9, 10, 0], (side // 8, side // 8))
    classes = np.kron(patches, np.ones((8, 8))).astype(np.uint8)
    rasters["SCL"] = Raster(classes, crs, affine)
    chances = np.kron(generator.integers(0, 101, patches.shape), np.ones((8, 8)))
    rasters["CLP"] = Raster(chances.astype(np.uint8), crs, affine)
    return rasters


def make_s1(seed: int, crs: str = "EPSG:32635") -> dict[str, Raster]:
    """Make backscatter of a forest in linear power, with nodata (NaN) in a corner."""
    generator = np.random.default_rng(seed)
    affine, side = lay_raster(crs, 10)
    rasters = {}
    for polarisation, level in (("vv", 0.1), ("vh", 0.025)):
        power = level * generator.gamma(4.4, 1 / 4.4, (side, side))
        power[: side // 3, : side // 3] = np.nan
        rasters[polarisation] = Raster(power.astype(np.float32), crs, affine)
    return rasters


def write_cog(path: Path, raster: Raster, nodata: float | None) -> None:
    """Write a Cloud Optimized GeoTIFF with small tiles."""
    height, width = raster.values.shape
    with rasterio.open(
        path, "w", driver="COG", count=1, height=height, width=width, dtype=raster.values.dtype,
        crs=raster.crs, transform=raster.affine, nodata=nodata, blocksize=128, compress="deflate",
    ) as dataset:  # fmt: skip
        dataset.write(raster.values, 1)


def make_item(
    item_id: str, when: datetime, rasters: Mapping[str, Raster], properties: Mapping[str, Any]
) -> pystac.Item:
    """Make an item without assets over the rasters' place."""
    values, crs, affine = next(iter(rasters.values()))
    side = values.shape[0] * affine.a
    ring = [affine @ corner for corner in ((0, 0), (0, 1), (1, 1), (1, 0), (0, 0))]
    (west, north) = ring[0]
    ring = [
        (west + dx * side, north - dy * side) for dx, dy in ((0, 0), (0, 1), (1, 1), (1, 0), (0, 0))
    ]
    polygon = {"type": "Polygon", "coordinates": [ring]}
    geometry = transform_geom(crs, "EPSG:4326", polygon)
    lons, lats = zip(*geometry["coordinates"][0], strict=True)
    bbox = [min(lons), min(lats), max(lons), max(lats)]
    return pystac.Item(item_id, geometry, bbox, when, dict(properties))


def add_asset(item: pystac.Item, folder: Path, key: str, raster: Raster, nodata: float) -> None:
    """Write a raster beside the item's others, and add it, with a relative address."""
    path = folder / f"{item.id}_{key}.tif"
    write_cog(path, raster, nodata)
    item.add_asset(key, pystac.Asset(path.name, media_type=pystac.MediaType.COG, roles=["data"]))
    asset = item.assets[key]
    projection = ProjectionExtension.ext(asset, add_if_missing=True)
    projection.epsg = rasterio.CRS.from_user_input(raster.crs).to_epsg()
    projection.shape = list(raster.values.shape)
    projection.transform = list(raster.affine)[:6]
    bands = RasterExtension.ext(asset, add_if_missing=True)
    bands.bands = [RasterBand.create(nodata=nodata, data_type=str(raster.values.dtype))]


def write_s2_item(
    folder: Path,
    item_id: str,
    when: str,
    rasters: Mapping[str, Raster],
    *,
    catalogue: str = "earth-search",
    **properties: object,
) -> pystac.Item:
    """Write an acquisition of Sentinel-2 as a catalogue would have it.

    Args:
        folder: Where its files go.
        item_id: Its id.
        when: Its date, ISO 8601.
        rasters: By band; those that the catalogue has no name for are left out.
        catalogue: One of `CATALOGUES`.
        properties: Beside the usual ones, with `__` for a colon.
    """
    given = {
        "platform": "sentinel-2a",
        "s2:processing_baseline": "02.14",
        **{name.replace("__", ":"): value for name, value in properties.items()},
    }
    moment = datetime.fromisoformat(when).replace(tzinfo=UTC)
    item = make_item(item_id, moment, rasters, given)
    EOExtension.ext(item, add_if_missing=True).cloud_cover = 30.0
    for band, key in CATALOGUES[catalogue].items():
        if band in rasters:
            add_asset(item, folder, key, rasters[band], 0)
    return item


def write_s1_item(
    folder: Path,
    item_id: str,
    when: str,
    rasters: Mapping[str, Raster],
    *,
    is_ascending: bool = True,
    orbit: int = 80,
) -> pystac.Item:
    """Write a terrain-corrected acquisition of Sentinel-1."""
    moment = datetime.fromisoformat(when).replace(tzinfo=UTC)
    item = make_item(item_id, moment, rasters, {"platform": "SENTINEL-1B"})
    satellite = SatExtension.ext(item, add_if_missing=True)
    satellite.orbit_state = OrbitState.ASCENDING if is_ascending else OrbitState.DESCENDING
    satellite.relative_orbit = orbit
    for key, raster in rasters.items():
        add_asset(item, folder, key, raster, -32768.0)
    return item


def write_items(path: Path, items: list[pystac.Item]) -> Path:
    """Write items as `search.item_collection().save_object()` would."""
    pystac.ItemCollection(items).save_object(str(path))
    return path


class AssetServer(ThreadingHTTPServer):
    """Serves a folder's files with range requests, until it is left.

    Attributes:
        folder: Of the files.
        faults: Statuses sent in place of the next answers to GET, the first first.
        asked: The addresses asked for, without queries.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.faults: list[int] = []
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        """Where the folder is."""
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serve_assets(folder: Path) -> Iterator[AssetServer]:
    """Serve a folder on loopback."""
    with AssetServer(folder) as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: AssetServer

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = urlsplit(self.path).path
        self.server.asked.append(path)
        file = self.server.folder / path.lstrip("/")
        if self.server.faults and with_body:
            self._send(self.server.faults.pop(0), b"", {})
        elif not file.is_file():
            self._send(404, b"", {})
        else:
            self._send_part(file.read_bytes(), with_body)

    def _send_part(self, data: bytes, with_body: bool) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None or not with_body:
            self._send(200, data if with_body else b"", {"Content-Length": str(len(data))})
            return
        start, end = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
        span = {"Content-Range": f"bytes {start}-{end}/{len(data)}"}
        self._send(206, data[start : end + 1], span)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Length": str(len(body)),
            "Accept-Ranges": "bytes",
            **headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
