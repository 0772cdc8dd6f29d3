import logging
from datetime import UTC, datetime

import pystac
import pytest

from biomassters.errors import SceneError
from biomassters.scenes.grid import Grid
from biomassters.scenes.stac.acquisitions import S1Acquisition, S2Acquisition
from biomassters.scenes.stac.selection import select_acquisitions

GRID = Grid.from_bounds("EPSG:3067", 10.0, (350_000, 6_809_000, 351_000, 6_810_000), "a.yaml")
ON_IT = (349_000.0, 6_808_000.0, 350_500.0, 6_809_500.0)
BESIDE_IT = (340_000.0, 6_808_000.0, 349_000.0, 6_809_500.0)
FAR_AWAY = (0.0, 0.0, 1.0, 1.0)


def make_s2(month: int = 3, footprint: tuple[float, float, float, float] = ON_IT) -> S2Acquisition:
    when = datetime(2020 + (month + 8) // 12, (month + 8) % 12 + 1, 5, tzinfo=UTC)
    item = pystac.Item(f"{month}", None, None, when, {})
    return S2Acquisition(item, when, month, footprint, "", "none", 0.0, 0, "")


def make_s1() -> S1Acquisition:
    item = pystac.Item("radar", None, None, datetime(2020, 12, 5, tzinfo=UTC), {})
    return S1Acquisition(item, datetime(2020, 12, 5, tzinfo=UTC), 3, ON_IT, "", True, "")


def test_other_months_and_places_are_left_out_and_told(caplog: pytest.LogCaptureFixture) -> None:
    months = [make_s2(month) for month in (-1, 0, 11, 12)]
    places = [make_s2(3, BESIDE_IT), make_s2(3, FAR_AWAY)]
    with caplog.at_level(logging.WARNING):
        s1, s2 = select_acquisitions(([make_s1()], [*months, *places]), 2020, GRID, "a.yaml")
    assert [len(s1), [a.month for a in s2]] == [1, [0, 11, 3]]
    assert "a.yaml: 2 item(s) are not of its twelve months" in caplog.text
    assert "a.yaml: 1 item(s) do not lie on it" in caplog.text


def test_absent_sensor_is_allowed_and_told(caplog: pytest.LogCaptureFixture) -> None:
    select_acquisitions(([], [make_s2()]), 2020, GRID, "a.yaml")
    assert "no items of Sentinel-1" in caplog.text
    select_acquisitions(([make_s1()], []), 2020, GRID, "a.yaml")
    assert "no items of Sentinel-2" in caplog.text


def test_wrong_year_is_refused_with_the_one_to_write() -> None:
    items = [make_s2(-12), make_s2(-3)]
    told = r"of 2020-09 to 2021-08, got items of 2019-09 to 2020-06, at a\.yaml.*start: 2019-09"
    with pytest.raises(SceneError, match=told):
        select_acquisitions(([], items), 2020, GRID, "a.yaml")


def test_items_that_lie_elsewhere_are_refused() -> None:
    for footprint in (FAR_AWAY, BESIDE_IT):
        with pytest.raises(SceneError, match=r"lie on the bounds \[350000.*EPSG:3067.*a\.yaml"):
            select_acquisitions(([], [make_s2(3, footprint)]), 2020, GRID, "a.yaml")


def test_items_that_lack_bands_of_others_are_told(caplog: pytest.LogCaptureFixture) -> None:
    whole, partial = make_s2(3), make_s2(4)
    for acquisition, names in ((whole, ("B2", "B4", "clouds")), (partial, ("B4", "clouds"))):
        for name in names:
            acquisition.item.add_asset(name, pystac.Asset(f"{name}.tif"))
    select_acquisitions(([make_s1()], [whole, partial]), 2020, GRID, "a.yaml")
    assert "a.yaml: item(s) without all of B2, B4: 4" in caplog.text
