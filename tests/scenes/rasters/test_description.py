import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from biomassters.scenes.rasters.addresses import Address, strip_secrets
from biomassters.scenes.rasters.description import RasterDescription, fill_template

SHORT = """
source: rasters
crs: EPSG:3067
bounds: [400000, 6800000, 401000, 6801000]
start: 2020-09
rasters:
  - files: s1_{month}.tif
    sensor: S1
    bands: [VV ascending, VH ascending, null]
    absent: December
  - files: ["s2/{yyyy}-{mm}_west.tif", "s2/{yyyy}-{mm}_east.tif"]
    sensor: S2
    bands: [B2, B3, CLP]
    months: [July, September]
    offset: -1000
radiometry:
  S1: {unit: linear}
  S2: {offset: 0, scale: 10000}
  accept: [gamma0]
"""


def describe(text: str = SHORT) -> RasterDescription:
    return RasterDescription.model_validate(YAML(typ="safe").load(text))


def test_months_are_all_but_the_absent_ones() -> None:
    s1, s2 = describe().rasters
    assert s1.month_numbers == (0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11)
    assert s2.month_numbers == (0, 10)
    assert s1.files == ("s1_{month}.tif",)


def test_template_knows_both_calendars() -> None:
    assert fill_template("a_{month}.tif", 0, 2020) == "a_00.tif"
    assert fill_template("{yyyy}/{mm}.tif", 0, 2020) == "2020/09.tif"
    assert fill_template("{yyyy}/{mm}.tif", 3, 2020) == "2020/12.tif"
    assert fill_template("{yyyy}/{mm}.tif", 4, 2020) == "2021/01.tif"
    assert fill_template("{yyyy}/{mm}.tif", 11, 2020) == "2021/08.tif"


def test_entry_says_more_than_its_sensor() -> None:
    scene = describe()
    s1, s2 = (scene.convert(entry) for entry in scene.rasters)
    assert s1.unit == "linear"
    assert (s2.offset, s2.scale) == (-1000, 10000)
    assert scene.period == ("2020-09-01", "2021-08-31")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("start: 2020-09", "start: 2020-08", "should match pattern"),
        ("[B2, B3, CLP]", "[B2, B9, CLP]", r"expected bands of S2 .* got 'B9'"),
        ("[B2, B3, CLP]", "[B2, B2]", "each once"),
        ("[B2, B3, CLP]", "[null]", "one band or more"),
        ("s1_{month}.tif", "s1.tif", r"expected {month}, or .*got 11 months, at s1.tif"),
        ("[July, September]", "[Juli]", "Input should be 'September'"),
        ("[gamma0]", "[anything]", "Input should be"),
        ("offset: -1000", "offset: -1000\n    unit: db", "expected no unit of S2"),
        ("offset: -1000", "ofset: -1000", "Extra inputs"),
        ("{unit: linear}", "{unit: sigma0}", "Input should be 'db', 'linear'"),
    ],
)
def test_what_no_scene_can_be_is_refused(old: str, new: str, told: str) -> None:
    assert old in SHORT
    with pytest.raises(ValidationError, match=told):
        describe(SHORT.replace(old, new))


def test_messages_have_addresses_without_secrets(tmp_path) -> None:
    url = "https://user:secret@host.example/a/b.tif?X-Amz-Signature=ff#part"
    address = Address.parse(url, tmp_path)
    assert address.gdal == f"/vsicurl/{url}"
    assert address.shown == address.stable == "https://host.example/a/b.tif"
    assert address.is_remote
    assert Address.parse("s3://bucket/a.tif", tmp_path).gdal == "/vsis3/bucket/a.tif"
    local = Address.parse("a b.tif", tmp_path)
    assert (local.gdal, local.stable, local.is_remote) == (
        str(tmp_path / "a b.tif"),
        "a b.tif",
        False,
    )
    assert strip_secrets("C:/maps/a?.tif") == "C:/maps/a?.tif"
