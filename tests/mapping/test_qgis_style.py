from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

from matplotlib.colors import to_rgb

from biomassters.mapping.qgis_style import list_colours, write_style
from biomassters.mapping.virtual_raster import VRT


def test_style_lies_beside_the_map_and_is_xml(tmp_path: Path) -> None:
    path = write_style(tmp_path)
    assert path == (tmp_path / VRT).with_suffix(".qml")
    assert path.read_bytes().startswith(b"<!DOCTYPE qgis PUBLIC")
    assert ElementTree.parse(path).getroot().tag == "qgis"  # noqa: S314  # our own


def test_style_colours_the_first_band_with_labels_in_their_unit(tmp_path: Path) -> None:
    root = ElementTree.parse(write_style(tmp_path)).getroot()  # noqa: S314  # our own
    renderer = root.find("pipe/rasterrenderer")
    assert renderer is not None
    assert (renderer.get("type"), renderer.get("band")) == ("singlebandpseudocolor", "1")
    items = renderer.findall("rastershader/colorrampshader/item")
    labels = [item.get("label") for item in items]
    assert labels[0] == "0 t/ha"
    assert labels[-1] == "300 t/ha and more"
    assert [float(item.get("value", "")) for item in items] == [0, 50, 100, 150, 200, 250, 300]
    assert {item.get("alpha") for item in items} == {"255"}


def test_more_biomass_is_darker_by_steps_that_are_alike() -> None:
    colours = [to_rgb(colour) for _, colour in list_colours()]
    light = [0.2126 * red + 0.7152 * green + 0.0722 * blue for red, green, blue in colours]
    steps = [one - other for one, other in pairwise(light)]
    assert min(steps) > 0.04
    assert max(steps) < 4 * min(steps)


def test_style_is_the_same_each_time(tmp_path: Path) -> None:
    assert write_style(tmp_path).read_bytes() == write_style(tmp_path / "again").read_bytes()
