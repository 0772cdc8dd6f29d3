from datetime import UTC, datetime
from pathlib import Path

import pystac
import pytest

from biomassters.errors import SceneError
from biomassters.scenes.grid import Box
from biomassters.scenes.stac.acquisitions import CLOUDS, Found, list_acquisitions
from biomassters.scenes.stac.description import StacDescription

DESCRIPTION = StacDescription.model_validate(
    {
        "source": "stac",
        "items": "items.json",
        "start": "2020-09",
        "crs": "EPSG:3067",
        "bounds": [350_020, 6_809_000, 351_320, 6_810_400],
    }
)
GRID = DESCRIPTION.lay_grid("a.yaml")
BBOX = [24.1, 61.3, 24.3, 61.5]
S2 = {"platform": "Sentinel-2B", "s2:processing_baseline": "02.14"}
S1 = {"platform": "SENTINEL-1A", "sat:orbit_state": "ascending"}


def make_item(
    item_id: str,
    properties: dict[str, object],
    assets: tuple[str, ...],
    when: str = "2021-06-03",
    collection: str | None = None,
) -> pystac.Item:
    moment = datetime.fromisoformat(when).replace(tzinfo=UTC)
    item = pystac.Item(item_id, None, BBOX, moment, properties)
    item.collection_id = collection
    for name in assets:
        item.add_asset(name, pystac.Asset(f"{name}.tif?sig=1", extra_fields={"proj:epsg": 32635}))
    return item


def list_of(*items: pystac.Item, **changes: object) -> Found:
    description = DESCRIPTION.model_copy(update=changes)
    pairs = [(item, Path("/data/items.json")) for item in items]
    return list_acquisitions(pairs, description, GRID, "a.yaml")


def test_items_are_sorted_by_time_then_by_id() -> None:
    dates = {"b": "2021-06-03", "a": "2021-06-03", "c": "2020-09-01T00:00:00"}
    items = [make_item(name, S2, ("red", "scl"), when) for name, when in dates.items()]
    _, s2 = list_of(*items)
    assert [(a.item.id, a.month) for a in s2] == [("c", 0), ("a", 9), ("b", 9)]


def test_last_moment_of_august_is_the_last_month_and_the_next_none_of_them() -> None:
    items = [
        make_item("a", S2, ("red", "scl"), "2021-08-31T23:59:59"),
        make_item("b", S2, ("red", "scl"), "2021-09-01"),
        make_item("c", S2, ("red", "scl"), "2020-08-31T23:59:59"),
    ]
    assert [a.month for a in list_of(*items)[1]] == [-1, 11, 12]


def test_acquisition_has_the_assets_by_band_with_full_addresses() -> None:
    s1, s2 = list_of(
        make_item("b", S2, ("red", "nir", "scl", "visual")), make_item("a", S1, ("vv", "vh"))
    )
    assert s1[0].bands == ("VV", "VH")
    assert s1[0].is_ascending
    assert s2[0].bands == ("B4", "B8")
    assert s2[0].item.assets[CLOUDS].href == "/data/scl.tif?sig=1"
    assert (s2[0].clouds, s2[0].offset) == ("classes", 0)


def test_footprint_is_in_the_unit_of_the_map() -> None:
    acquisition = list_of(make_item("a", S2, ("red", "scl")))[1][0]
    west, south, east, north = acquisition.footprint
    assert 340_000 < west < 350_020 < 351_320 < east < 362_000
    assert south < 6_809_000 < 6_810_400 < north
    assert acquisition.touches(GRID, GRID.extent)
    assert not acquisition.touches(GRID, Box(0, 0, 256, 256))


def test_facts_leave_out_signatures_and_what_decides_nothing() -> None:
    one, other = (
        list_of(make_item("a", {**S2, "updated": day}, ("red", "scl")))[1][0].facts for day in "12"
    )
    assert one == other
    assert "sig=" not in one
    assert '"proj:epsg": 32635' in one


def test_items_of_a_pass_share_a_swath_and_those_of_another_day_do_not() -> None:
    times = ("2021-06-03T04:50:00", "2021-06-03T04:50:25", "2021-06-09T04:50:00")
    s1, _ = list_of(*(make_item(when, S1, ("vv",), when) for when in times))
    assert s1[0].swath == s1[1].swath != s1[2].swath


def test_single_items_have_offsets_of_their_own() -> None:
    raw = {**S2, "s2:processing_baseline": "04.00"}
    items = [make_item("a", raw, ("red", "scl")), make_item("b", raw, ("red", "scl"))]
    section = DESCRIPTION.s2.model_copy(update={"offsets": {"b": 0}})
    assert [a.offset for a in list_of(*items, s2=section)[1]] == [-1000, 0]
    section = DESCRIPTION.s2.model_copy(update={"offset": 7})
    assert [a.offset for a in list_of(*items, s2=section)[1]] == [7, 7]


@pytest.mark.parametrize(
    ("item", "told"),
    [
        (make_item("a", {"platform": "landsat-8"}, ("red", "scl")), "got landsat-8"),
        (make_item("a", S2, ("visual", "thumbnail")), "assets of B2.*got thumbnail, visual,"),
        (make_item("a", S1, ("hh", "hv")), "assets of VV, VH, got hh, hv,"),
        (make_item("a", {"platform": "sentinel-1a"}, ("vv",)), "sat:orbit_state.*got none"),
        (make_item("a", {**S1, "sat:orbit_state": "up"}, ("vv",)), "sat:orbit_state.*got up"),
        (make_item("a", {"platform": "sentinel-2a"}, ("red", "scl")), "another sign"),
        (make_item("a", S2, ("red", "scl"), collection="sentinel-2-l1c"), "got Level-1C"),
        (make_item("a", {**S2, "s2:product_type": "S2MSI1C"}, ("red", "scl")), "got Level-1C"),
    ],
)
def test_item_that_cannot_be_used_is_named(item: pystac.Item, told: str) -> None:
    with pytest.raises(SceneError, match=rf"{told}.* ?at a\.yaml: item a"):
        list_of(item)


@pytest.mark.parametrize("bbox", [None, [1.0, 2.0], [500.0, 100.0, 600.0, 200.0]])
def test_item_without_a_place_on_the_map_is_named(bbox: list[float] | None) -> None:
    item = make_item("a", S2, ("red", "scl"))
    item.bbox = bbox
    with pytest.raises(SceneError, match=r"at a\.yaml: item a; take it out"):
        list_of(item)


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"s2": {"offsets": {"b": 0}}}, r"got b, at a\.yaml: s2\.offsets"),
        ({"s2": {"assets": {"B2": "bleu"}}}, r"got bleu, .* a\.yaml: s2\.assets\.B2"),
        ({"s1": {"assets": {"VH": "hv"}}}, r"got hv, .* a\.yaml: s1\.assets\.VH"),
    ],
)
def test_names_that_no_item_has_are_refused(section: dict[str, object], told: str) -> None:
    changed = StacDescription.model_validate({**DESCRIPTION.model_dump(), **section})
    items = make_item("a", S2, ("red", "scl")), make_item("r", S1, ("vv",))
    with pytest.raises(SceneError, match=told):
        list_of(*items, s1=changed.s1, s2=changed.s2)
