from datetime import UTC, datetime

import numpy as np
import pystac
import pytest

from biomassters.scenes.stac.reflectance_offset import State, decide_offset, looks_offset

RAW_ASSET = {"raster:bands": [{"scale": 0.0001, "offset": -0.1}]}


@pytest.mark.parametrize(
    ("properties", "asset", "offset"),
    [
        ({"s2:processing_baseline": "02.14"}, {}, 0),
        ({"s2:processing_baseline": "03.01"}, RAW_ASSET, 0),
        ({"s2:processing_baseline": "04.00"}, {}, -1000),
        ({"s2:processing_baseline": "05.11"}, RAW_ASSET, -1000),
        ({"s2:processing_baseline": "05.11"}, {"raster:bands": [{"offset": 0}]}, 0),
        ({"processing:version": "05.10"}, {"raster:scale": 1e-4, "raster:offset": -0.1}, -1000),
        ({"processing:version": "05.10"}, {"bands": [{"raster:offset": -0.1}]}, -1000),
        ({"processing:version": "N0511"}, {}, -1000),
        ({"processing:version": "N0214"}, {}, 0),
        ({"s2:processing_baseline": "05.11", "earthsearch:boa_offset_applied": True}, RAW_ASSET, 0),
        ({"s2:processing_baseline": "04.00", "earthsearch:boa_offset_applied": False}, {}, -1000),
        ({"s2:processing_baseline": "03.00", "earthsearch:boa_offset_applied": False}, {}, 0),
        ({"earthsearch:boa_offset_applied": False}, RAW_ASSET, None),
        ({"s2:processing_baseline": "?"}, {}, None),
        ({}, RAW_ASSET, -1000),
        ({}, {"raster:bands": []}, None),
    ],
)
def test_offset_follows_flag_then_baseline_then_asset(
    properties: dict[str, object], asset: dict[str, object], offset: int | None
) -> None:
    item = pystac.Item("A", None, None, datetime(2023, 6, 3, tzinfo=UTC), properties)
    assert decide_offset(item, pystac.Asset("red.tif", extra_fields=asset)) == offset


@pytest.mark.parametrize(("added", "state"), [(0, "applied"), (1000, "raw"), (-1000, "twice")])
def test_pixels_of_a_forest_tell_what_was_done(added: int, state: State) -> None:
    generator = np.random.default_rng(0)
    red = np.clip(generator.normal(300, 120, 4000) + added, 0, None).astype(np.uint16)
    nir = np.clip(generator.normal(2600, 400, 4000) + added, 0, None).astype(np.uint16)
    red[:200] = nir[:200] = 0
    assert looks_offset(red, nir) == state


def test_values_that_wrapped_around_tell_that_too_much_was_taken_off() -> None:
    red = (np.full(1000, 300) - 1000).astype(np.uint16)
    assert looks_offset(red, np.full(1000, 1600, np.uint16)) == "twice"


@pytest.mark.parametrize(("red", "nir"), [(0, 0), (8000, 8500), (2500, 2600), (400, 100)])
def test_clouds_snow_water_and_nodata_do_not_tell(red: int, nir: int) -> None:
    assert looks_offset(np.full(1000, red), np.full(1000, nir)) is None


def test_few_pixels_do_not_tell() -> None:
    assert looks_offset(np.full(100, 300), np.full(100, 2500)) is None
