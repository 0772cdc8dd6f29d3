from pathlib import Path

import numpy as np
import pytest
import rasterio

from biomassters.errors import ChipDataError
from biomassters.prediction.maps import (
    BANDS,
    PixelIntervals,
    prediction_path,
    read_prediction,
    write_prediction,
)
from biomassters.store.georeference import (
    NOWHERE,
    Georeference,
    allow_nowhere,
    read_georeference,
)

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


INTERVALS = PixelIntervals(MAP * 0.2, MAP * 0.5, MAP * 1.7)


def test_file_with_intervals_has_four_named_bands_in_their_unit(tmp_path: Path) -> None:
    write_prediction(tmp_path, "0003d2eb", MAP, {"CALIBRATION_LEVEL": "0.9"}, NOWHERE, INTERVALS)
    with allow_nowhere(), rasterio.open(prediction_path(tmp_path, "0003d2eb")) as raster:
        assert raster.descriptions == BANDS
        assert raster.descriptions[1:] == ("standard deviation", "lower bound", "upper bound")
        assert raster.units == ("t/ha",) * 4
        assert raster.tags()["CALIBRATION_LEVEL"] == "0.9"
        np.testing.assert_array_equal(raster.read(1), MAP)
    found = read_prediction(tmp_path, "0003d2eb")
    np.testing.assert_array_equal(found.intervals, INTERVALS)
    np.testing.assert_array_equal(found.agbm, MAP)


def test_file_without_intervals_is_the_one_it_was_before_there_were_any(tmp_path: Path) -> None:
    """To the byte: rasterio's calls here are those of the version before."""
    path = tmp_path / "before.tif"
    options = {"dtype": "float32", "count": 1, "compress": "deflate", "predictor": 3}
    with (
        allow_nowhere(),
        rasterio.open(path, "w", driver="GTiff", height=64, width=64, **options) as raster,
    ):
        raster.write(MAP, 1)
        raster.set_band_description(1, "above-ground biomass (AGBM)")
        raster.set_band_unit(1, "t/ha")
        raster.update_tags(AGBM_UNITS="t/ha", TTA="none")
    write_prediction(tmp_path, "after", MAP, {"TTA": "none"})
    assert prediction_path(tmp_path, "after").read_bytes() == path.read_bytes()
    assert read_prediction(tmp_path, "after").intervals is None


def test_prediction_with_a_pixel_that_is_no_number_is_refused(tmp_path: Path) -> None:
    spoiled = MAP.copy()
    spoiled[3, 4] = np.nan
    write_prediction(tmp_path, "0003d2eb", spoiled, {})
    with pytest.raises(ChipDataError, match=r"a number in each pixel .* got nan, at .*0003d2eb"):
        read_prediction(tmp_path, "0003d2eb")
