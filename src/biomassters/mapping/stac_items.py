"""A map as a STAC catalogue: an item a tile, a collection of them, and an item of the models.

All links are relative, so that the folder may be moved or served as it is. Nothing says when it
was written: the same map gives the same bytes.

Source: STAC 1.1; its extensions projection and raster; the machine-learning-model extension (mlm),
which has results link to their model by `derived_from`, with the model's name.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import pyproj
import pystac
import shapely
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.raster import DataType, NoDataStrings, RasterBand, RasterExtension

from biomassters.mapping.layout import TILES
from biomassters.mapping.pixel_areas import measure_sides
from biomassters.mapping.preview import PREVIEW
from biomassters.mapping.stac_model import MODEL, MODEL_NAME, ModelFacts, describe_models
from biomassters.mapping.virtual_raster import VRT, count_bands
from biomassters.prediction.maps import BANDS, UNITS
from biomassters.processes.writing import write_whole
from biomassters.scenes.grid import Box, Grid

COLLECTION: Final = "collection.json"
"""The file's name in the folder of a map."""

ASSET: Final = "agbm"
"""The key of a tile's file among its item's assets."""

BAND_NAMES: Final = ("agbm", "standard_deviation", "lower_bound", "upper_bound")

EDGES: Final = 8
"""Into which each side of a tile is cut before it is moved to degrees, where sides bend."""

DECIMALS: Final = 7
"""Of degrees: a centimetre."""

FILES: Final = (
    ("vrt", VRT, "application/x-gdal-vrt", ["data", "virtual"]),
    ("thumbnail", PREVIEW, pystac.MediaType.PNG, ["thumbnail"]),
)
"""Assets of the collection, where they are: key, file, media type, roles."""


@dataclass(frozen=True, kw_only=True)
class MapFacts:
    """What a map's items say of it beside its pixels.

    Attributes:
        name: Of the scene.
        period: The first and the last day of its rasters, ISO 8601.
        scene: The scene's identity.
        code: The fingerprint of the code.
        calibration: What `Calibration.tags` returns; empty = there is none.
        model: The models, and how they were used.
    """

    name: str
    period: tuple[str, str]
    scene: str
    code: str
    calibration: Mapping[str, str]
    model: ModelFacts


def write_catalogue(
    folder: Path, grid: Grid, tiles: Sequence[tuple[Path, Box]], facts: MapFacts
) -> Path:
    """Write an item beside each tile, the models' item, and last the collection.

    Args:
        folder: The map's.
        grid: The map's pixels.
        tiles: Those that are there, in `tiles/` of the folder.
        facts: What to say.

    Returns:
        The collection's file.
    """
    tiles = sorted(tiles, key=lambda tile: (tile[1].row, tile[1].column))
    n_bands = count_bands(tiles)
    for path, box in tiles:
        item = _describe_tile(path.stem, grid, box, facts, n_bands)
        _write_json(path.with_suffix(".json"), item.to_dict(transform_hrefs=False))
    whole = _outline(grid, grid.extent)
    start, end = (day.isoformat() for day in read_period(facts.period))
    model = describe_models(facts.model, whole, (start, end))
    _write_json(folder / MODEL, model.to_dict(transform_hrefs=False))
    collection = _describe_map(folder, [path.stem for path, _ in tiles], whole, facts)
    _write_json(
        folder / COLLECTION, collection.to_dict(include_self_link=False, transform_hrefs=False)
    )
    return folder / COLLECTION


def read_period(period: tuple[str, str]) -> tuple[datetime, datetime]:
    """Return the first and the last second of a period of whole days."""
    first, last = map(date.fromisoformat, period)
    return (
        datetime.combine(first, time(0, 0, 0), UTC),
        datetime.combine(last, time(23, 59, 59), UTC),
    )


def _describe_tile(name: str, grid: Grid, box: Box, facts: MapFacts, n_bands: int) -> pystac.Item:
    start, end = read_period(facts.period)
    outline = _outline(grid, box)
    item = pystac.Item(
        id=name,
        geometry=shapely.geometry.mapping(outline),
        bbox=list(outline.bounds),
        datetime=None,
        properties={
            "title": f"Above-ground biomass of {facts.name}, tile {name}",
            "biomassters:scene": facts.scene,
            "biomassters:code": facts.code,
            **{f"biomassters:{key.lower()}": value for key, value in facts.calibration.items()},
        },
        start_datetime=start,
        end_datetime=end,
    )
    item.collection_id = facts.name
    item.clear_links()
    item.add_links(
        [
            *(_link(rel, f"../{COLLECTION}") for rel in ("root", "parent", "collection")),
            _link_model(f"../{MODEL}"),
        ]
    )
    asset = pystac.Asset(
        href=f"./{name}.tif", media_type=pystac.MediaType.COG, roles=["data"], title=BANDS[0]
    )
    item.add_asset(ASSET, asset)
    asset.extra_fields["bands"] = [
        {
            "name": band,
            "description": description,
            "data_type": "float32",
            "nodata": "nan",
            "unit": UNITS,
        }
        for band, description in list(zip(BAND_NAMES, BANDS, strict=True))[:n_bands]
    ]
    RasterExtension.ext(asset, add_if_missing=True).bands = [
        RasterBand.create(
            nodata=NoDataStrings.NAN,
            data_type=DataType.FLOAT32,
            unit=UNITS,
            spatial_resolution=round(math.sqrt(math.prod(measure_sides(grid, box))), 3),
        )
    ] * n_bands
    _place_in_crs(item, grid, box)
    return item


def _place_in_crs(item: pystac.Item, grid: Grid, box: Box) -> None:
    """Add what the extension `projection` has."""
    has_code = grid.crs.startswith("EPSG:")
    projection = ProjectionExtension.ext(item, add_if_missing=True)
    projection.code = grid.crs if has_code else None
    if not has_code:
        projection.wkt2 = pyproj.CRS.from_user_input(grid.crs).to_wkt()
    projection.shape = list(box.shape)
    projection.transform = list(grid.transform(box))[:6]
    projection.bbox = list(grid.bounds(box))


def _describe_map(
    folder: Path, tiles: Sequence[str], outline: Any, facts: MapFacts
) -> pystac.Collection:
    start, end = read_period(facts.period)
    collection = pystac.Collection(
        id=facts.name,
        title=f"Above-ground biomass of {facts.name}",
        description=f"A map of above-ground biomass (AGBM, {UNITS}) by biomassters.",
        license="other",
        extent=pystac.Extent(
            pystac.SpatialExtent([list(outline.bounds)]), pystac.TemporalExtent([[start, end]])
        ),
    )
    collection.clear_links()
    collection.add_links([_link("root", f"./{COLLECTION}"), _link_model(f"./{MODEL}")])
    collection.add_links([_link("item", f"./{TILES}/{name}.json") for name in tiles])
    for key, name, media_type, roles in FILES:
        if (folder / name).is_file():
            collection.add_asset(
                key, pystac.Asset(href=f"./{name}", media_type=media_type, roles=roles)
            )
    return collection


def _link(rel: str, href: str) -> pystac.Link:
    kind = pystac.MediaType.GEOJSON if rel == "item" else pystac.MediaType.JSON
    return pystac.Link(rel, href, media_type=kind)


def _link_model(href: str) -> pystac.Link:
    return pystac.Link(
        pystac.RelType.DERIVED_FROM,
        href,
        media_type=pystac.MediaType.GEOJSON,
        title="The models of this map",
        extra_fields={"mlm:name": MODEL_NAME, "processing:level": "L4"},
    )


def _outline(grid: Grid, box: Box) -> Any:
    """Return a box as a polygon in degrees of WGS 84."""
    square = shapely.box(*grid.bounds(box))
    sides = shapely.segmentize(square, grid.resolution * max(box.shape) / EDGES)
    change = _open_change(grid.crs)
    moved = shapely.transform(sides, lambda *xy: change.transform(*xy), interleaved=False)
    return shapely.geometry.polygon.orient(shapely.transform(moved, lambda xy: xy.round(DECIMALS)))


@lru_cache(maxsize=4)
def _open_change(crs: str) -> pyproj.Transformer:
    """Return the map from a CRS to degrees; 9 ms the first time."""
    return pyproj.Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    write_whole(path, (text + "\n").encode())
