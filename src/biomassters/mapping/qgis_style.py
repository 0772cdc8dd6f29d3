"""How QGIS draws a map: colours of AGBM, which it applies to a raster with a style beside it.

Source: the QGIS manual, "Save Layer Style"; the elements are those that QGIS itself saves.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from matplotlib import colormaps
from matplotlib.colors import to_hex, to_rgb

from biomassters.prediction.maps import UNITS
from biomassters.processes.writing import write_whole

STYLE: Final = "map.qml"
"""The file's name in the folder of a map: the stem of the VRT's, as QGIS looks for it."""

COLOURS: Final = "YlGn"
"""matplotlib's name of ColorBrewer's ramp from yellow to green, which darkens evenly."""

LIMIT: Final = 300
STEP: Final = 50
"""t/ha: where the darkest colour begins, and between labels."""

DOCTYPE: Final = b"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"


def list_colours() -> Iterator[tuple[int, str]]:
    """Yield values, t/ha, and their colours, as `#rrggbb`."""
    for value in range(0, LIMIT + STEP, STEP):
        yield value, to_hex(colormaps[COLOURS](value / LIMIT))


def write_style(folder: Path) -> Path:
    """Write a map's style, whole or not at all, and return the file."""
    root = Element("qgis", version="3.22.0", styleCategories="Symbology")
    pipe = SubElement(root, "pipe")
    renderer = SubElement(
        pipe,
        "rasterrenderer",
        type="singlebandpseudocolor",
        band="1",
        opacity="1",
        alphaBand="-1",
        nodataColor="",
        classificationMin="0",
        classificationMax=str(LIMIT),
    )
    SubElement(renderer, "rasterTransparency")
    origin = SubElement(renderer, "minMaxOrigin")
    for tag, text in (("limits", "None"), ("extent", "WholeRaster"), ("statAccuracy", "Estimated")):
        SubElement(origin, tag).text = text
    _add_shader(SubElement(renderer, "rastershader"))
    SubElement(pipe, "brightnesscontrast", brightness="0", contrast="0", gamma="1")
    SubElement(pipe, "huesaturation", saturation="0", grayscaleMode="0", colorizeOn="0")
    SubElement(pipe, "rasterresampler", maxOversampling="2")
    SubElement(root, "blendMode").text = "0"
    indent(root)
    path = folder / STYLE
    write_whole(path, DOCTYPE + tostring(root) + b"\n")
    return path


def _add_shader(parent: Element) -> None:
    shader = SubElement(
        parent,
        "colorrampshader",
        colorRampType="INTERPOLATED",
        classificationMode="1",
        clip="0",
        minimumValue="0",
        maximumValue=str(LIMIT),
        labelPrecision="0",
    )
    _add_ramp(shader)
    for value, colour in list_colours():
        more = " and more" if value == LIMIT else ""
        label = f"{value} {UNITS}{more}"
        SubElement(shader, "item", value=str(value), label=label, color=colour, alpha="255")


def _add_ramp(shader: Element) -> None:
    """Add the ramp from which QGIS makes other classes, should one ask for them."""
    first, *inner, last = (
        (value / LIMIT, ",".join(f"{round(255 * part)}" for part in to_rgb(colour)) + ",255")
        for value, colour in list_colours()
    )
    ramp = SubElement(shader, "colorramp", type="gradient", name="[source]")
    options = SubElement(ramp, "Option", type="Map")
    for name, value in (
        ("color1", first[1]),
        ("color2", last[1]),
        ("discrete", "0"),
        ("rampType", "gradient"),
        ("stops", ":".join(f"{share:.6g};{colour}" for share, colour in inner)),
    ):
        SubElement(options, "Option", type="QString", name=name, value=value)
