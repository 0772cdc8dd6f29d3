"""Endless landscapes: the same pixels however they are cut, and with the figures of chips."""

import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest

from biomassters.simulator.area import LandscapeArea
from biomassters.simulator.chip import SimulatedChip, simulate_chip
from biomassters.simulator.forest import _STAND_SPACING_PX, _draw_cells, grow_land
from biomassters.simulator.landscape import (
    LANDSCAPE_VERSION,
    simulate_landscape,
    simulate_landscape_agbm,
)
from biomassters.simulator.noise import EndlessNoise, Shape, Window
from biomassters.simulator.weather import draw_weather
from biomassters.store.bands import CLP, CLP_NODATA, S1_NODATA_DB

Floats = npt.NDArray[np.float64]

IMAGES = ("s1", "s2", "agbm")


def _cut(chip: SimulatedChip, rows: slice, columns: slice) -> list[bytes]:
    return [getattr(chip, name)[..., rows, columns].tobytes() for name in IMAGES]


@pytest.mark.parametrize("name", ["konnevesi", "lakeland-3"])
@pytest.mark.parametrize("origin", [(-689_700, 44_773), (-30, -40), (999_970, -1_000_003)])
def test_a_pixel_is_the_same_in_whatever_rectangle(name: str, origin: Shape) -> None:
    row, column = origin
    one = simulate_landscape(name, origin, (70, 90))
    other = simulate_landscape(name, (row + 37, column - 61), (53, 101))
    assert _cut(one, slice(37, 70), slice(0, 40)) == _cut(other, slice(0, 33), slice(61, 101))


def test_pixels_one_by_one_are_those_of_all_together() -> None:
    together = simulate_landscape("konnevesi", (-689_000, 45_000), (3, 2))
    for row, column in np.ndindex(3, 2):
        alone = simulate_landscape("konnevesi", (-689_000 + row, 45_000 + column), (1, 1))
        assert _cut(alone, slice(1), slice(1)) == _cut(
            together, slice(row, row + 1), slice(column, column + 1)
        )


def test_biomass_alone_is_that_of_the_whole_simulation() -> None:
    chip = simulate_landscape("konnevesi", (-5, 7), (33, 20))
    alone = simulate_landscape_agbm("konnevesi", (-5, 7), (33, 20))
    assert alone.dtype == chip.agbm.dtype
    assert alone.tobytes() == chip.agbm.tobytes()


def test_threads_simulate_the_same() -> None:
    origins = [(row, 0) for row in range(0, 160, 40)]
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda at: simulate_landscape("a", at, (40, 40)), origins))
    whole = simulate_landscape("a", (0, 0), (160, 40))
    assert np.concatenate([part.s2 for part in parts], axis=2).tobytes() == whole.s2.tobytes()


def test_every_machine_simulates_these_bytes() -> None:
    # Where these change, so does LANDSCAPE_VERSION: maps of old pixels must not be taken for new.
    chip = simulate_landscape("golden", (-689_664, 44_800), (40, 60))
    little_endian = (chip.s1.astype("<f4"), chip.s2.astype("<u2"), chip.agbm.astype("<f4"))
    sums = tuple(zlib.crc32(image.tobytes()) for image in little_endian)
    assert (LANDSCAPE_VERSION, sums) == (1, GOLDEN)


GOLDEN = (2450166507, 3100261535, 7546993)


def test_another_name_is_another_landscape() -> None:
    one, other = (simulate_landscape_agbm(name, (0, 0), (64, 64)) for name in "ab")
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.3


def test_land_goes_on_over_every_border() -> None:
    # Steps over 38 lines that blocks of a power of 2 would end at; a line's mean varies by 15 %.
    agbm = grow_land(LandscapeArea("seams", (-304, -304), (608, 608))).agbm
    down, right = (np.abs(np.diff(agbm, axis=axis)).mean(axis=1 - axis) for axis in (0, 1))
    lines = np.arange(16, 608, 32) - 1
    on_lines = np.concatenate([down[lines], right[lines]]).mean()
    assert on_lines == pytest.approx(np.concatenate([down, right]).mean(), rel=0.08)


def test_all_months_of_a_landscape_have_one_weather() -> None:
    for column in (0, 400_000):
        chip = simulate_landscape("weather", (0, column), (16, 16))
        weather = draw_weather("weather", grow_land(LandscapeArea("weather", (9, 9), (1, 1))).north)
        assert np.array_equal(chip.s2_present, weather.s2_present)
        has_s1 = (chip.s1 != S1_NODATA_DB).all(axis=(2, 3))
        assert np.array_equal(has_s1[:, ::2], weather.s1_present)


def test_swaths_leave_narrow_gaps() -> None:
    # 75 of each 10,000 pixels of a row: as few as chips lack, of which 1.5 % are cut in the middle.
    parts = [simulate_landscape("swaths", (5, at), (1, 2500)).s2 for at in range(0, 10_000, 2500)]
    probability = np.concatenate(parts, axis=-1)[:, CLP, 0]
    for month in np.flatnonzero(draw_weather("swaths", 0).s2_present):
        missing = probability[month] == CLP_NODATA
        assert missing.sum() == 75
        assert np.flatnonzero(np.diff(missing)).size <= 2


def test_a_point_of_a_lattice_has_one_number() -> None:
    def draw(window: Window) -> Floats:
        noise = EndlessNoise((0, 0), "points")
        return np.concatenate([noise.normals_at(window, 2), noise.uniforms_at(window)])

    around = draw(Window(-3, -1_000_002, 7, 9))
    np.testing.assert_array_equal(draw(Window(-1, -1_000_000, 2, 3)), around[:, 2:4, 2:5])
    assert np.unique(around).size == around.size


def test_numbers_of_neighbouring_points_do_not_correlate() -> None:
    points = EndlessNoise((0, 0), "moments").normals_at(Window(-150, -150, 300, 300), 2)
    assert points.mean() == pytest.approx(0, abs=0.01)
    assert points.std() == pytest.approx(1, abs=0.01)
    for step in (1, 2, 64, 128):
        below = (points[:, step:] * points[:, :-step]).mean()
        beside = (points[:, :, step:] * points[:, :, :-step]).mean()
        assert max(abs(below), abs(beside)) < 0.015
    assert abs((points[0] * points[1]).mean()) < 0.015


def test_no_warp_reaches_beyond_the_sites() -> None:
    # The greatest normals of all: 3.47 on each knot, over the spline's deviation.
    farthest = (5.0 + 0.4 * 2.0) * (2 * 65535.0 / (65536.0 / 3**0.5)) / (151 / 315)
    assert farthest / _STAND_SPACING_PX < EndlessNoise.site_margin


def test_a_stand_has_one_site() -> None:
    def find_sites(origin: Shape, shape: Shape) -> npt.NDArray[np.intp]:
        noise = EndlessNoise(origin, "stands")
        cells = _draw_cells(noise, shape, _STAND_SPACING_PX, warp_px=5.0)
        row, column = np.divmod(cells.number, cells.sites.width)
        return np.stack([row + cells.sites.row, column + cells.sites.column])

    whole = find_sites((-200, 300), (200, 300))
    np.testing.assert_array_equal(find_sites((-77, 333), (50, 1)), whole[:, 123:173, 33:34])


def _measure(chips: list[SimulatedChip]) -> Floats:
    """Give the mean and the deviation of each band's valid pixels, then of the AGBM, (16, 2)."""
    s1 = np.stack([chip.s1 for chip in chips]).swapaxes(0, 2).reshape(4, -1)
    s2 = np.stack([chip.s2 for chip in chips]).swapaxes(0, 2).reshape(11, -1)
    valid = [*(band[band != S1_NODATA_DB] for band in s1), *s2[:, s2[CLP] != CLP_NODATA]]
    valid.append(np.stack([chip.agbm for chip in chips]))
    return np.array([(band.mean(dtype=float), band.std(dtype=float)) for band in valid])


def test_landscapes_have_the_figures_of_chips() -> None:
    # 64 of each: the standard errors of the means are some 0.1 dB, 3 % and 5 t/ha.
    chips = _measure([simulate_chip(f"figures-{i}", 64) for i in range(64)])
    boxes = [
        simulate_landscape(f"figures-{i}", (-690_000 - 977 * i, 40_000 + 611 * i), (64, 64))
        for i in range(64)
    ]
    landscapes = _measure(boxes)
    np.testing.assert_allclose(landscapes[:4], chips[:4], rtol=0, atol=0.6)
    np.testing.assert_allclose(landscapes[4:14], chips[4:14], rtol=0.12)
    np.testing.assert_allclose(landscapes[14], chips[14], rtol=0, atol=5)
    np.testing.assert_allclose(landscapes[15], chips[15], rtol=0, atol=12)
