from datetime import UTC, datetime

import pystac
import pytest
from stac_examples import CATALOGUES, REFLECTANCE

from biomassters.errors import SceneError
from biomassters.scenes.stac.assets import (
    POLARISATION_NAMES,
    REFLECTANCE_NAMES,
    CloudsAsset,
    choose_assets,
    choose_clouds,
)
from biomassters.scenes.stac.description import StacS2


def make_item(*names: str) -> pystac.Item:
    item = pystac.Item("A", None, None, datetime(2021, 6, 3, tzinfo=UTC), {})
    for name in names:
        item.add_asset(name, pystac.Asset(f"{name}.tif"))
    return item


@pytest.mark.parametrize("catalogue", CATALOGUES)
def test_bands_of_public_catalogues_are_found(catalogue: str) -> None:
    names = CATALOGUES[catalogue]
    item = make_item("thumbnail", "visual", *names.values())
    assert choose_assets(item, {}, REFLECTANCE_NAMES) == {b: names[b] for b in REFLECTANCE}


def test_given_name_goes_before_known_ones_and_absent_bands_are_left_out() -> None:
    item = make_item("vv", "vv_filtered")
    assert choose_assets(item, {"VV": "vv_filtered"}, POLARISATION_NAMES) == {"VV": "vv_filtered"}
    assert choose_assets(item, {"VV": "absent"}, POLARISATION_NAMES) == {}
    assert choose_assets(item, {}, POLARISATION_NAMES) == {"VV": "vv"}


@pytest.mark.parametrize(
    ("names", "clouds", "chosen"),
    [
        (("scl", "cloud"), "auto", CloudsAsset("probability", "cloud")),
        (("SCL_20m", "CLD_20m"), "auto", CloudsAsset("probability", "CLD_20m")),
        (("SCL",), "auto", CloudsAsset("classes", "SCL")),
        (("SCL", "cloud"), "SCL", CloudsAsset("classes", "SCL")),
        (("SCL", "s2cloudless"), "s2cloudless", CloudsAsset("probability", "s2cloudless")),
        (("red",), "none", CloudsAsset("none", "")),
    ],
)
def test_probability_goes_before_classes(
    names: tuple[str, ...], clouds: str, chosen: CloudsAsset
) -> None:
    assert choose_clouds(make_item(*names), StacS2(clouds=clouds), "a.yaml") == chosen


def test_item_without_clouds_is_refused_with_what_to_write() -> None:
    with pytest.raises(SceneError, match=r"got assets red, .*a\.yaml: item A.*clouds: none"):
        choose_clouds(make_item("red"), StacS2(), "a.yaml")
    with pytest.raises(SceneError, match="got assets SCL"):
        choose_clouds(make_item("SCL"), StacS2(clouds="CLD"), "a.yaml")
