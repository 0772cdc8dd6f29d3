import csv
import json
from pathlib import Path

import pytest
import shapely
from held_out_examples import draw_chips

from biomassters.calibration.areas import AreaInterval
from biomassters.calibration.fitting import calibrate
from biomassters.mapping.zones.files import write_zones
from biomassters.mapping.zones.polygons import Zone, Zones
from biomassters.mapping.zones.sums import ZoneSum

CALIBRATION = calibrate(draw_chips(12), 0.8, {"fold-0": "0123456789abcdef"})

DOCUMENT = {
    "type": "FeatureCollection",
    "crs": {"type": "name", "properties": {"name": "EPSG:3067"}},
    "features": [
        {"type": "Feature", "id": "a", "properties": {"kunta": "Jyväskylä"}, "geometry": 1},
        {"type": "Feature", "id": "b", "properties": None, "geometry": 2},
    ],
}
SQUARE = shapely.box(0, 0, 1, 1)
ZONES = Zones(Path("z.geojson"), DOCUMENT, (Zone("a", SQUARE), Zone("b", SQUARE)))

INTERVAL = AreaInterval(80.0, 5.0, 70.0, 90.0, 0.5)
SUMS = [
    ZoneSum(name="a", area_ha=4.0, mapped_ha=3.0, mean=80.0, interval=INTERVAL),
    ZoneSum(name="b", area_ha=2.0, mapped_ha=0.0, mean=None, interval=None),
]


def test_polygons_keep_what_they_had_and_get_their_biomass(tmp_path: Path) -> None:
    path, _ = write_zones(tmp_path, ZONES, SUMS, CALIBRATION)
    document = json.loads(path.read_text())
    first, second = document["features"]
    assert document["crs"] == DOCUMENT["crs"]
    assert (first["id"], first["geometry"]) == ("a", 1)
    assert first["properties"] == {
        "kunta": "Jyväskylä",
        "area_ha": 4.0,
        "mapped_ha": 3.0,
        "mapped_share": 0.75,
        "agbm_mean_t_ha": 80.0,
        "agbm_total_t": 240.0,
        "agbm_mean_standard_error_t_ha": 5.0,
        "agbm_total_standard_error_t": 15.0,
        "agbm_mean_lower_t_ha": 70.0,
        "agbm_total_lower_t": 210.0,
        "agbm_mean_upper_t_ha": 90.0,
        "agbm_total_upper_t": 270.0,
        "agbm_mean_naive_standard_error_t_ha": 0.5,
        "agbm_total_naive_standard_error_t": 1.5,
        "interval_level": CALIBRATION.level,
    }
    assert second["properties"]["agbm_total_t"] is None
    assert DOCUMENT["features"][1]["properties"] is None  # type: ignore[index]


def test_table_has_a_row_a_zone(tmp_path: Path) -> None:
    _, path = write_zones(tmp_path, ZONES, SUMS, CALIBRATION)
    first, second = csv.DictReader(path.read_text().splitlines())
    assert (first["zone"], first["agbm_total_t"], first["agbm_total_upper_t"]) == (
        *("a", "240.0", "270.0"),
    )
    assert (second["zone"], second["mapped_ha"], second["agbm_mean_t_ha"]) == ("b", "0.0", "")


def test_without_a_calibration_there_are_no_intervals_nor_names_for_them(tmp_path: Path) -> None:
    sums = [one.__class__(**{**vars(one), "interval": None}) for one in SUMS]
    geojson, table = write_zones(tmp_path, ZONES, sums, None)
    names = ["area_ha", "mapped_ha", "mapped_share", "agbm_mean_t_ha", "agbm_total_t"]
    assert table.read_text().splitlines()[0].split(",") == ["zone", *names]
    assert list(json.loads(geojson.read_text())["features"][1]["properties"]) == names


def test_files_are_the_same_each_time(tmp_path: Path) -> None:
    first = [path.read_bytes() for path in write_zones(tmp_path, ZONES, SUMS, CALIBRATION)]
    again = [path.read_bytes() for path in write_zones(tmp_path, ZONES, SUMS, CALIBRATION)]
    assert first == again
    assert sorted(path.name for path in tmp_path.iterdir()) == ["zones.csv", "zones.geojson"]


def test_sums_round_to_what_one_can_read(tmp_path: Path) -> None:
    sums = [ZoneSum(name="a", area_ha=1 / 3, mapped_ha=1 / 3, mean=100 / 7, interval=None)] * 2
    _, table = write_zones(tmp_path, ZONES, sums, None)
    assert table.read_text().splitlines()[1] == "a,0.333333,0.333333,1.0,14.285714,4.761905"
    assert sums[0].total_t == pytest.approx(100 / 21)
