from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import rasterio
from example_tiles import grow_forest, lay_degrees, lay_metres, write_tiles
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from biomassters.mapping import preview
from biomassters.mapping.preview import choose_bar, draw_preview
from biomassters.mapping.virtual_raster import write_vrt
from biomassters.prediction.maps import Map
from biomassters.scenes.grid import Grid

PERIOD = ("2020-09-01", "2021-08-31")


def draw(folder: Path, grid: Grid, agbm: Map, *, calibrated: bool = True) -> Path:
    write_vrt(folder, grid, write_tiles(folder, grid, agbm, 64, calibrated=calibrated))
    return draw_preview(folder, grid, name="keski-suomi", period=PERIOD)


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Hold the pages that are drawn."""
    pages: list[Figure] = []

    class Held(Figure):
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **options)  # type: ignore[arg-type]
            pages.append(self)

    monkeypatch.setattr(preview, "Figure", Held)
    return pages


def read_texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text)]


@pytest.mark.parametrize(
    ("width_m", "expected"),
    [
        (10_240, (2000, "2 km")),
        (640, (100, "100 m")),
        (3334, (1000, "1 km")),
        (3333, (500, "500 m")),
        (1_200_000, (200_000, "200 km")),
        (30, (5, "5 m")),
    ],
)
def test_bar_is_one_two_or_five_and_under_a_third_of_the_map(
    width_m: float, expected: tuple[float, str]
) -> None:
    assert choose_bar(width_m) == expected


def test_page_says_what_it_shows(tmp_path: Path, page: list[Figure]) -> None:
    draw(tmp_path, lay_metres(90, 130), grow_forest(90, 130))
    texts = read_texts(page[0])
    for text in (
        "keski-suomi",
        "2020-09-01 to 2021-08-31; EPSG:3067, pixels of 10 m",
        "above-ground biomass (t/ha)",
        "its standard deviation, pixel by pixel (t/ha)",
        "no data",
        "200 m",
    ):
        assert text in texts


def test_map_that_is_not_calibrated_has_one_panel(tmp_path: Path, page: list[Figure]) -> None:
    draw(tmp_path, lay_metres(90, 130), grow_forest(90, 130), calibrated=False)
    assert "above-ground biomass (t/ha)" in read_texts(page[0])
    assert not any("deviation" in text for text in read_texts(page[0]))


@pytest.mark.parametrize("shape", [(90, 130), (200, 60), (30, 300)])
@pytest.mark.parametrize("geographic", [True, False])
def test_nothing_on_the_page_overlaps(
    tmp_path: Path, page: list[Figure], shape: tuple[int, int], geographic: bool
) -> None:
    """No text crosses another one, nor the edge of the page."""
    grid = lay_degrees(*shape) if geographic else lay_metres(*shape)
    draw(tmp_path, grid, grow_forest(*shape))
    renderer = FigureCanvasAgg(page[0]).get_renderer()
    texts = [text for text in page[0].findobj(Text) if text.get_text() and text.get_visible()]
    boxes = [text.get_window_extent(renderer) for text in texts]
    width, height = page[0].bbox.size
    for number, box in enumerate(boxes):
        assert 0 <= box.x0 < box.x1 <= width
        assert 0 <= box.y0 < box.y1 <= height
        crossed = [texts[i].get_text() for i in range(number) if box.overlaps(boxes[i])]
        assert (texts[number].get_text(), crossed) == (texts[number].get_text(), [])


def test_pixels_of_degrees_are_drawn_as_long_as_they_are(tmp_path: Path) -> None:
    """At 62 degrees north a degree of longitude is less than half as long as one of latitude."""
    square = matplotlib.image.imread(draw(tmp_path, lay_degrees(90, 90), grow_forest(90, 90)))
    flat = matplotlib.image.imread(draw(tmp_path, lay_metres(90, 90), grow_forest(90, 90)))
    assert square.shape[0] / square.shape[1] > 1.3 * flat.shape[0] / flat.shape[1]


def test_large_map_is_read_coarsely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: list[Figure]
) -> None:
    monkeypatch.setattr(preview, "MOST_PIXELS", 60)
    draw(tmp_path, lay_metres(90, 130), grow_forest(90, 130))
    (image,) = page[0].axes[0].images
    assert image.get_size() == (42, 60)
    assert np.ma.mean(image.get_array()) == pytest.approx(
        np.nanmean(grow_forest(90, 130)), rel=0.05
    )


def test_map_of_nothing_but_nodata_is_drawn(tmp_path: Path) -> None:
    path = draw(tmp_path, lay_metres(90, 130), np.full((90, 130), np.nan, np.float32))
    assert path.stat().st_size > 1000


def test_picture_is_the_same_each_time(tmp_path: Path) -> None:
    grid, agbm = lay_metres(90, 130), grow_forest(90, 130)
    first = draw(tmp_path, grid, agbm).read_bytes()
    assert draw(tmp_path / "again", grid, agbm).read_bytes() == first
    assert not list(tmp_path.glob(".*"))
    with rasterio.Env(GDAL_CACHEMAX=1):
        assert draw_preview(tmp_path, grid, name="keski-suomi", period=PERIOD).read_bytes() == first
