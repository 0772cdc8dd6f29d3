from pathlib import Path

import numpy as np
import pytest
import rasterio

from biomassters.errors import ChipDataError
from biomassters.prediction.maps import prediction_path, read_prediction, write_prediction
from biomassters.store.georeference import Georeference, allow_nowhere, read_georeference

MAP = np.random.default_rng(0).gamma(2, 40, (64, 64)).astype(np.float32)


def test_prediction_comes_back_bit_for_bit_with_its_tags(tmp_path: Path) -> None:
    write_prediction(tmp_path, "0003d2eb", MAP, {"MODELS": "final", "TTA": "flips"})
    prediction, tags, _ = read_prediction(tmp_path, "0003d2eb")
    np.testing.assert_array_equal(prediction, MAP)
    assert (tags["MODELS"], tags["TTA"]) == ("final", "flips")


def test_file_says_what_it_holds(tmp_path: Path) -> None:
    write_prediction(tmp_path, "0003d2eb", MAP, {})
    with allow_nowhere(), rasterio.open(tmp_path / "0003d2eb_agbm.tif") as raster:
        assert raster.dtypes == ("float32",)
        assert raster.compression.value == "DEFLATE"
        assert raster.units == ("t/ha",)
        assert raster.tags()["AGBM_UNITS"] == "t/ha"
        assert "biomass" in raster.descriptions[0]


def test_nothing_else_is_left_in_the_folder(tmp_path: Path) -> None:
    write_prediction(tmp_path, "0003d2eb", MAP, {})
    assert [path.name for path in tmp_path.iterdir()] == ["0003d2eb_agbm.tif"]


def test_rewriting_does_not_touch_a_read_only_link_of_the_old_file(tmp_path: Path) -> None:
    folder = tmp_path / "predictions"
    write_prediction(folder, "0003d2eb", MAP, {})
    cached = tmp_path / "cached.tif"
    cached.hardlink_to(prediction_path(folder, "0003d2eb"))
    before = cached.read_bytes()
    write_prediction(folder, "0003d2eb", MAP + 1, {})
    assert cached.read_bytes() == before


def test_missing_or_broken_prediction_is_named(tmp_path: Path) -> None:
    with pytest.raises(ChipDataError, match=r"0003d2eb_agbm\.tif"):
        read_prediction(tmp_path, "0003d2eb")
    prediction_path(tmp_path, "0003d2eb").write_bytes(b"no TIFF")
    with pytest.raises(ChipDataError, match=r"0003d2eb_agbm\.tif"):
        read_prediction(tmp_path, "0003d2eb")


def test_prediction_lies_where_its_chip_does(tmp_path: Path) -> None:
    crs = rasterio.CRS.from_epsg(32635).to_wkt()
    place = Georeference(crs, (10.0, 0.0, 500_000.0, 0.0, -10.0, 6_900_000.0))
    write_prediction(tmp_path, "0003d2eb", MAP, {}, place)
    with rasterio.open(prediction_path(tmp_path, "0003d2eb")) as raster:
        assert raster.crs.to_epsg() == 32635
        assert read_georeference(raster).transform == place.transform


def test_prediction_of_a_chip_without_a_place_has_none(tmp_path: Path) -> None:
    write_prediction(tmp_path, "0003d2eb", MAP, {})
    with allow_nowhere(), rasterio.open(prediction_path(tmp_path, "0003d2eb")) as raster:
        assert raster.crs is None
        assert all(np.isnan(read_georeference(raster).transform))
