"""A map as one picture: AGBM, and beside it how far to trust it, with legends and a scale bar."""

import io
import math
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import rasterio
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray
from PIL import Image

from biomassters.mapping.pixel_areas import measure_sides
from biomassters.mapping.qgis_style import COLOURS
from biomassters.mapping.virtual_raster import VRT
from biomassters.prediction.maps import UNITS
from biomassters.processes.writing import write_whole
from biomassters.scenes.grid import Grid

PREVIEW: Final = "preview.png"
"""The file's name in the folder of a map."""

MOST_PIXELS: Final = 1200
"""Of the longer side of the map as it is read."""

PANELS: Final = (
    (f"above-ground biomass ({UNITS})", COLOURS),
    (f"its standard deviation, pixel by pixel ({UNITS})", "Purples"),
)
"""What the first bands are, and matplotlib's names of their colours."""

NODATA_COLOUR: Final = "#c8c8c8"

WIDTH: Final = 9.0
DPI: Final = 160
"""Inches at most, and pixels an inch: a README shows it at half its size."""

MOST_HEIGHT: Final = 6.5
"""Of a panel, inches; a longer map is drawn narrower."""

N_COLOURS: Final = 128

LEAST_WIDTH: Final = 3.2
"""Of a panel with its legend, inches."""

TITLE: Final = 0.62
LEGEND: Final = 0.72
EDGE: Final = 0.1
GAP: Final = 0.25
"""Heights of the title and of the legends; widths around all and between panels, inches."""

ROUND: Final = 25
"""Legends end at a multiple of this, t/ha, above 98 % of the pixels."""

BAR_SHARE: Final = 0.3
"""Of the map's width, that its scale bar does not exceed."""


class _Place(NamedTuple):
    """A rectangle of the page, inches from its lower left corner."""

    left: float
    bottom: float
    width: float
    height: float

    def on(self, figure: Figure) -> tuple[float, float, float, float]:
        """Return it in shares of the page, as matplotlib has them."""
        width, height = figure.get_size_inches()
        return self.left / width, self.bottom / height, self.width / width, self.height / height


def draw_preview(folder: Path, grid: Grid, *, name: str, period: tuple[str, str]) -> Path:
    """Draw a map that is written, whole or not at all.

    It is read coarsely, from the tiles' overviews, so that memory does not grow with the map. Law:
    equal maps give equal bytes, of one version of matplotlib.

    Args:
        folder: The map's, with its VRT.
        grid: The map's pixels.
        name: Of the scene.
        period: Its first and last day.

    Returns:
        The file.
    """
    shrink = max(1.0, max(grid.extent.shape) / MOST_PIXELS)
    height, width = (max(1, round(length / shrink)) for length in grid.extent.shape)
    with rasterio.open(folder / VRT) as raster:
        bands = list(range(1, min(raster.count, len(PANELS)) + 1))
        images = raster.read(bands, out_shape=(len(bands), height, width))
    page = io.BytesIO()
    figure = _draw_page(images, grid, name, f"{period[0]} to {period[1]}; {_describe(grid)}")
    figure.savefig(page, format="png", dpi=DPI, metadata={"Software": None})
    with Image.open(page) as drawn, io.BytesIO() as small:
        # A map is nearly noise to PNG: with few colours it takes a fifth of the bytes.
        drawn.convert("RGB").quantize(N_COLOURS).save(small, "png", optimize=True)
        write_whole(folder / PREVIEW, small.getvalue())
    return folder / PREVIEW


def choose_bar(width_m: float) -> tuple[float, str]:
    """Return the length of a scale bar, m, and its label: 1, 2 or 5 of a power of 10."""
    most = BAR_SHARE * width_m
    power = 10.0 ** math.floor(math.log10(most))
    length = max(step * power for step in (1, 2, 5) if step * power <= most)
    return length, f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"


def _draw_page(images: NDArray[np.float32], grid: Grid, title: str, note: str) -> Figure:
    """Draw panels side by side. Places are computed, so that none moves with a number."""
    tall, wide = (
        length * side
        for length, side in zip(grid.extent.shape, measure_sides(grid, grid.extent), strict=True)
    )
    most = (WIDTH - 2 * EDGE - GAP * (len(images) - 1)) / len(images)
    height = min(MOST_HEIGHT, most * tall / wide)
    width = height * wide / tall
    step = max(width, LEAST_WIDTH) + GAP
    page_height = TITLE + height + LEGEND
    figure = Figure((2 * EDGE + len(images) * step - GAP, page_height), dpi=DPI)
    for top, text, size, colour in ((0.2, title, 12, "black"), (0.45, note, 9, "0.35")):
        edge, *_ = _Place(EDGE, 0, 0, 0).on(figure)
        figure.text(edge, 1 - top / page_height, text, va="center", fontsize=size, color=colour)
    for number, (image, (label, colours)) in enumerate(zip(images, PANELS, strict=False)):
        place = _Place(EDGE + number * step, LEGEND, width, height)
        axes = figure.add_axes(place.on(figure))
        picture = _draw_map(axes, image, colours, (wide, tall))
        _draw_legend(figure, picture, place._replace(width=step - GAP), label, image)
        if number == 0:
            _draw_bar(axes, wide, place)
    return figure


def _describe(grid: Grid) -> str:
    metres, _ = measure_sides(grid, grid.extent)
    side = f"{grid.resolution:.6g}°" if grid.is_geographic else f"{metres:.6g} m"
    known = f"{grid.crs}, " if grid.crs.startswith("EPSG:") else ""
    return f"{known}pixels of {side}"


def _draw_map(
    axes: Axes, image: NDArray[np.float32], colours: str, size_m: tuple[float, float]
) -> AxesImage:
    """Draw a band on axes in metres."""
    wide, tall = size_m
    known = image[np.isfinite(image)]
    most = float(np.percentile(known, 98)) if known.size else 0.0
    picture = axes.imshow(
        np.ma.masked_invalid(image),
        cmap=colormaps[colours].with_extremes(bad=NODATA_COLOUR),
        vmin=0,
        vmax=ROUND * max(1, math.ceil(most / ROUND)),
        extent=(0, wide, 0, tall),
        interpolation="antialiased",
    )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_linewidth(0.5)
    return picture


def _draw_legend(
    figure: Figure, picture: AxesImage, place: _Place, label: str, image: NDArray[np.float32]
) -> None:
    """Draw a band's colours under its panel, and that of nodata beside them."""
    strip = _Place(place.left + 0.1, LEGEND - 0.22, 0.72 * place.width, 0.12)
    axes = figure.add_axes(strip.on(figure))
    exceeds = bool((image > picture.get_clim()[1]).any())
    bar = figure.colorbar(
        picture,
        cax=axes,
        orientation="horizontal",
        extend="max" if exceeds else "neither",
        extendfrac=0.04,
    )
    bar.set_label(label, fontsize=9, labelpad=2)
    axes.tick_params(labelsize=8, length=2.5, pad=2)
    if np.isnan(image).any():
        corner = _Place(place.left + place.width, LEGEND - 0.16, 0, 0).on(figure)[:2]
        figure.legend(
            handles=[Patch(facecolor=NODATA_COLOUR, label="no data")],
            loc="center right",
            bbox_to_anchor=corner,
            frameon=False,
            fontsize=8,
            borderaxespad=0,
            handlelength=1.2,
            handletextpad=0.5,
        )


def _draw_bar(axes: Axes, width_m: float, place: _Place) -> None:
    """Draw the scale bar into the lower left corner of a panel, at its place on the page."""
    length, label = choose_bar(width_m)
    inch = width_m / place.width
    transform = axes.get_xaxis_transform()  # along the map in metres, up it in shares
    for left, bottom, width, height, colour, alpha in (
        (0.08, 0.08, length / inch + 0.14, 0.28, "white", 0.8),
        (0.15, 0.13, length / inch, 0.05, "black", 1.0),
    ):
        corner = left * inch, bottom / place.height
        sides = width * inch, height / place.height
        axes.add_patch(
            Rectangle(corner, *sides, transform=transform, color=colour, alpha=alpha, linewidth=0)
        )
    middle = 0.15 * inch + length / 2
    axes.text(
        *(middle, 0.2 / place.height, label),
        transform=transform,
        ha="center",
        va="bottom",
        fontsize=8,
    )
