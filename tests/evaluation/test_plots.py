import numpy as np
import pytest

from biomassters.evaluation.plots import (
    Panel,
    choose_summer_month,
    draw_coverage,
    draw_density,
    draw_error_by_bin,
    draw_histograms,
    draw_panels,
    true_colour,
)
from biomassters.prediction.metrics import BIN_NAMES
from biomassters.store.bands import CLP, S1_STORED_NODATA

JUNE, JULY = 9, 10


def make_panel(**changes: object) -> Panel:
    random = np.random.default_rng(0)
    target = random.gamma(2, 40, (32, 32)).astype(np.float32)
    values = {
        "chip_id": "0003d2eb",
        "s1": random.integers(-2500, -500, (12, 4, 32, 32)).astype(np.int16),
        "s2": random.integers(100, 3000, (12, 11, 32, 32)).astype(np.uint16),
        "s2_present": np.ones(12, bool),
        "target": target,
        "prediction": target + 5,
    }
    return Panel(**{**values, **changes})


def test_summer_month_is_the_clearest_that_is_present() -> None:
    panel = make_panel()
    panel.s2[:, CLP] = 50
    panel.s2[JUNE, CLP] = 5
    panel.s2[JULY, CLP] = 1
    assert choose_summer_month(panel.s2, panel.s2_present) == JULY
    panel.s2_present[JULY] = False
    assert choose_summer_month(panel.s2, panel.s2_present) == JUNE
    assert choose_summer_month(panel.s2, np.zeros(12, bool)) is None


def test_true_colour_is_red_green_blue_and_keeps_a_dark_forest_dark() -> None:
    s2 = np.zeros((11, 8, 8), np.uint16)
    s2[2] = 400  # B4, red
    image = true_colour(s2)
    assert image.shape == (8, 8, 3)
    assert (image[..., 0] > 0).all()
    assert (image[..., 1:] == 0).all()
    assert image.max() < 0.7


def test_panels_have_a_row_a_chip_and_name_its_rmse() -> None:
    figure = draw_panels([make_panel(), make_panel(chip_id="other")])
    titles = [axes.get_title() for axes in figure.axes]
    assert titles.count("prediction minus target (t/ha), RMSE 5.0") == 2
    assert figure.axes[0].get_ylabel() == "0003d2eb"


def test_backscatter_shows_its_bulk_and_says_its_range() -> None:
    s1 = np.full((12, 4, 32, 32), -1000, np.int16)
    s1[:, 0, :16] = -1500
    s1[:, 0, 0, :4] = [-4000, 500, -4000, 500]  # water and roofs
    radar = draw_panels([make_panel(s1=s1)]).axes[1]
    assert radar.get_title() == "S1 VV, median, -15…-10 dB"
    assert radar.images[0].get_clim() == pytest.approx((-15, -10))


@pytest.mark.parametrize(
    "changes",
    [
        {"s2_present": np.zeros(12, bool)},
        {"target": np.full((32, 32), np.nan, np.float32)},
        {"s1": np.full((12, 4, 32, 32), S1_STORED_NODATA, np.int16)},
    ],
    ids=["no S2", "no target", "no S1"],
)
def test_panels_of_incomplete_chips_can_be_drawn(changes: dict[str, object]) -> None:
    draw_panels([make_panel(**changes)]).canvas.draw()


def test_density_has_targets_to_the_right_and_predictions_upwards() -> None:
    counts = np.zeros((4, 4))
    counts[3, 0] = 7  # a high target, predicted low
    figure = draw_density(counts, np.arange(5), "test")
    mesh = figure.axes[0].collections[0]
    drawn = np.asarray(mesh.get_array()).reshape(4, 4)
    assert drawn[0, 3] == 7


def by_bin(rmse: float) -> dict[str, object]:
    intervals = dict.fromkeys(BIN_NAMES, (rmse - 1, rmse + 2))
    return {
        "rmse_by_bin": dict.fromkeys(BIN_NAMES, rmse) | {"400+": None},
        "ci95": {"rmse_by_bin": intervals | {"300-400": None, "400+": None}},
    }


def test_error_by_bin_leaves_empty_bins_out() -> None:
    axes = draw_error_by_bin({"model": by_bin(3), "baseline": by_bin(9)}, "test").axes[0]
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == list(BIN_NAMES[:-1])


def test_error_by_bin_names_what_predicted_and_has_the_model_last() -> None:
    summary = {"model": by_bin(3), "baseline": by_bin(9), "trees": by_bin(4)}
    legend = draw_error_by_bin(summary, "test").axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["training mean", "trees", "model"]


def test_error_by_bin_shows_the_intervals_that_there_are() -> None:
    axes = draw_error_by_bin({"model": by_bin(3)}, "test").axes[0]
    [container] = [c for c in axes.containers if hasattr(c, "has_yerr")]
    lines = container.lines[2][0].get_segments()
    assert [line[:, 1].tolist() for line in lines if line.size] == [[2, 5]] * 6


def test_each_histogram_names_its_band_and_unit() -> None:
    bins = [(0.0, 0.25), (1.0, 0.75)]
    names = ("VV ascending", "B2", "CLP", "AGBM")
    figure = draw_histograms(dict.fromkeys(names, bins))
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["VV ascending (dB)", "B2 (DN)", "CLP (%)", "AGBM (t/ha)"]


def test_coverage_is_drawn_by_decile_and_by_area_beside_the_naive() -> None:
    area = {"coverage": 0.9, "width": 40.0, "naive": {"coverage": 0.3}}
    ends = {"coverage": [0.8, 1.0], "naive": {"coverage": [0.1, 0.4]}}
    areas = ("block_1ha", "chip")
    absent = {"coverage": None, "width": None, "naive": {"coverage": None}}
    intervals = {
        "level": 0.9,
        "pixel": {"coverage": 0.9, "width": 80.0, "coverage_by_decile": [0.9] * 10},
        **dict.fromkeys(areas, area),
        "block_16ha": absent,
        "ci95": {
            "pixel": {"coverage": [0.85, 0.95], "coverage_by_decile": [[0.8, 0.95]] * 9 + [None]},
            **dict.fromkeys(areas, ends),
            "block_16ha": absent,
        },
    }
    figure = draw_coverage(intervals, "test")
    figure.canvas.draw()
    left, right = figure.axes
    assert [text.get_text() for text in left.get_xticklabels()] == [str(n) for n in range(1, 11)]
    labels = [text.get_text() for text in right.get_xticklabels()]
    assert labels == ["pixel\n80 t/ha", "1 ha\n40 t/ha", "16 ha\n-", "chip\n40 t/ha"]
    [nominal] = [line for line in right.lines if line.get_linestyle() == "--"]
    assert list(nominal.get_ydata()) == [0.9, 0.9]
