import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import odc.stac
import pystac
import pytest
import rasterio
import shapely
from example_tiles import grow_forest, lay_degrees, lay_metres, surround, write_tiles
from pystac.extensions.mlm import MLMExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.raster import RasterExtension
from pystac.validation.local_validator import get_local_schema_cache
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from biomassters.mapping.stac_items import MapFacts, write_catalogue
from biomassters.mapping.stac_model import ModelFacts, Weights
from biomassters.scenes.grid import Grid
from biomassters.store.bands import BANDS, S1_BANDS

FACTS = MapFacts(
    name="keski-suomi",
    period=("2020-09-01", "2021-08-31"),
    scene="0123456789abcdef",
    code="fedcba9876543210",
    calibration={"CALIBRATION_METHOD": "conformal", "CALIBRATION_LEVEL": "0.9"},
    model=ModelFacts(
        weights=[
            Weights("fold-0", "00112233", "../../models/final/fold-0.safetensors"),
            Weights("fold-1", "44556677", "../../models/final/fold-1.safetensors"),
        ],
        architecture="tf_efficientnetv2_b0",
        bands=BANDS,
        window=256,
        tta="flips",
    ),
)


def write_map(
    folder: Path, grid: Grid, facts: MapFacts = FACTS, *, calibrated: bool = True
) -> pystac.Collection:
    agbm = grow_forest(*grid.extent.shape)
    tiles = write_tiles(folder, grid, agbm, 64, calibrated=calibrated)
    return pystac.Collection.from_file(str(write_catalogue(folder, grid, tiles, facts)))


GRIDS = pytest.mark.parametrize("grid", [lay_metres(90, 130), lay_degrees(90, 130)])


@pytest.fixture
def core_schemas() -> Iterator[None]:
    """Validate with the schemas of STAC itself that pystac brings: no network is asked."""
    validator = JsonSchemaSTACValidator()
    validator.schema_cache = get_local_schema_cache()
    before = pystac.validation.RegisteredValidator.get_validator()
    pystac.validation.RegisteredValidator.set_validator(validator)
    yield
    pystac.validation.RegisteredValidator.set_validator(before)


def validate_core(item: Any) -> None:
    """Validate all but the extensions, whose schemas are on the net alone."""
    document = item.to_dict()
    document["stac_extensions"] = []
    pystac.validation.validate_dict(document)


@GRIDS
@pytest.mark.usefixtures("core_schemas")
def test_collection_and_items_are_valid(tmp_path: Path, grid: Grid) -> None:
    collection = write_map(tmp_path, grid)
    items = list(collection.get_items())
    assert len(items) == len(list((tmp_path / "tiles").glob("*.tif")))
    for one in (collection, *items, pystac.Item.from_file(str(tmp_path / "model.json"))):
        validate_core(one)


@GRIDS
def test_catalogue_is_whole_and_may_be_moved(tmp_path: Path, grid: Grid) -> None:
    """Every link and every asset is relative and leads to a file; but for the weights."""
    write_map(tmp_path / "map", grid)
    (tmp_path / "map").rename(tmp_path / "moved")
    for path in (tmp_path / "moved").rglob("*.json"):
        document = json.loads(path.read_text())
        hrefs = [link["href"] for link in document["links"]]
        hrefs += [asset["href"] for asset in document.get("assets", {}).values()]
        for href in hrefs:
            assert href.startswith(".")
            assert (path.parent / href).is_file() or href.endswith(".safetensors")


def test_catalogue_is_the_same_each_time(tmp_path: Path) -> None:
    def read(folder: Path) -> list[bytes]:
        write_map(folder, lay_metres(90, 130))
        return [path.read_bytes() for path in sorted(folder.rglob("*.json"))]

    assert read(tmp_path / "a") == read(tmp_path / "b")


@GRIDS
def test_item_says_where_its_tile_lies(tmp_path: Path, grid: Grid) -> None:
    for item in write_map(tmp_path, grid).get_items():
        projection = ProjectionExtension.ext(item)
        assert projection.code == grid.crs
        asset = item.get_assets()["agbm"]
        assert asset.media_type == pystac.MediaType.COG
        with rasterio.open(asset.get_absolute_href()) as raster:
            assert projection.shape == list(raster.shape)
            assert projection.transform == pytest.approx(list(raster.transform)[:6])
            assert projection.bbox == pytest.approx(list(raster.bounds))
        assert item.bbox is not None
        assert item.geometry is not None
        assert item.bbox == pytest.approx(shapely.geometry.shape(item.geometry).bounds)
        assert 25 < item.bbox[0] < item.bbox[2] < 26.1
        assert 62 < item.bbox[1] < item.bbox[3] < 62.4


def test_outline_bends_as_the_sides_of_a_tile_do(tmp_path: Path) -> None:
    grid = Grid.from_bounds("EPSG:3067", 1000.0, (448e3, 6800e3, 508e3, 6860e3), "a.yaml")
    item = next(write_map(tmp_path, grid).get_items())
    assert item.geometry is not None
    assert len(item.geometry["coordinates"][0]) > 5
    assert shapely.geometry.shape(item.geometry).exterior.is_ccw


def test_crs_without_a_number_is_told_as_wkt(tmp_path: Path) -> None:
    laea = "+proj=laea +lat_0=62 +lon_0=26 +ellps=GRS80 +units=m"
    grid = Grid.from_bounds(laea, 10.0, (0, 0, 300, 200), "a.yaml")
    (item,) = write_map(tmp_path, grid).get_items()
    projection = ProjectionExtension.ext(item)
    assert projection.code is None
    assert "Lambert Azimuthal Equal Area" in (projection.wkt2 or "")


def test_item_says_what_bands_and_what_time_its_tile_has(tmp_path: Path) -> None:
    item = next(write_map(tmp_path, lay_metres(64, 64)).get_items())
    assert item.properties["start_datetime"] == "2020-09-01T00:00:00Z"
    assert item.properties["end_datetime"] == "2021-08-31T23:59:59Z"
    assert item.properties["biomassters:calibration_level"] == "0.9"
    asset = item.assets["agbm"]
    bands = asset.extra_fields["bands"]
    assert [band["name"] for band in bands] == [
        *("agbm", "standard_deviation", "lower_bound", "upper_bound"),
    ]
    assert {(band["unit"], band["nodata"], band["data_type"]) for band in bands} == {
        ("t/ha", "nan", "float32")
    }
    of_raster = RasterExtension.ext(asset).bands or []
    assert [band.unit for band in of_raster] == ["t/ha"] * 4
    assert [band.spatial_resolution for band in of_raster] == [10] * 4


def test_tile_that_is_not_calibrated_has_one_band(tmp_path: Path) -> None:
    item = next(write_map(tmp_path, lay_metres(64, 64), calibrated=False).get_items())
    assert [band["name"] for band in item.assets["agbm"].extra_fields["bands"]] == ["agbm"]


def test_item_leads_to_its_models_as_the_extension_has_it(tmp_path: Path) -> None:
    item = next(write_map(tmp_path, lay_metres(64, 64)).get_items())
    (link,) = item.get_links(pystac.RelType.DERIVED_FROM)
    assert link.extra_fields == {"mlm:name": "biomassters", "processing:level": "L4"}
    target = link.resolve_stac_object().target
    assert isinstance(target, pystac.Item)
    model = MLMExtension.ext(target)
    assert model.mlm_name == "biomassters"
    assert (model.framework, model.architecture) == ("PyTorch", "tf_efficientnetv2_b0")
    assert model.hyperparameters is not None
    assert model.hyperparameters.to_dict() == {"window": 256, "tta": "flips"}
    first, second = model.input
    assert first.input.shape == [-1, 12, 4, 256, 256]
    assert second.input.shape == [-1, 12, 11, 256, 256]
    assert model.output[0].result.shape == [-1, 256, 256]
    assert [band["name"] for band in target.properties["bands"]] == list(BANDS)
    assert all("mlm:model" in (asset.roles or []) for asset in target.assets.values())
    assert target.assets["fold-1"].extra_fields["biomassters:weights"] == "44556677"


def test_model_without_a_sensor_has_no_input_of_it(tmp_path: Path) -> None:
    model = FACTS.model.__class__(**{**vars(FACTS.model), "bands": S1_BANDS[:2]})
    facts = FACTS.__class__(**{**vars(FACTS), "model": model})
    write_map(tmp_path, lay_metres(64, 64), facts)
    (only,) = MLMExtension.ext(pystac.Item.from_file(str(tmp_path / "model.json"))).input
    assert only.input.shape == [-1, 12, 2, 256, 256]


@pytest.mark.usefixtures("core_schemas")
def test_map_without_tiles_is_a_collection_without_items(tmp_path: Path) -> None:
    path = write_catalogue(tmp_path, lay_metres(90, 130), [], FACTS)
    collection = pystac.Collection.from_file(str(path))
    validate_core(collection)
    assert list(collection.get_items()) == []


def test_collection_has_the_files_of_the_map_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "map.vrt").touch()
    collection = write_map(tmp_path, lay_metres(64, 64))
    assert list(collection.assets) == ["vrt"]


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")  # odc-geo's own
@pytest.mark.filterwarnings("ignore:The 'shapely.ops.transform:DeprecationWarning")  # likewise
def test_items_are_enough_to_load_the_map(tmp_path: Path) -> None:
    """By odc-stac, as others load collections of the public catalogues."""
    grid, agbm = lay_metres(90, 130), grow_forest(90, 130)
    items = list(write_map(tmp_path, grid).get_items())
    loaded = odc.stac.load(items, bands=["agbm", "agbm.4"], groupby="start_datetime")
    np.testing.assert_array_equal(loaded["agbm"][0], agbm)
    np.testing.assert_array_equal(loaded["agbm.4"][0], surround(agbm).upper)
