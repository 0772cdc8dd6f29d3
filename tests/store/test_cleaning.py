import itertools
import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from tiny_training import pack_chips

from biomassters.model.normalisation import BandNormalisation
from biomassters.statistics.figures import publish_normalisation
from biomassters.store.chips import Chip, ChipStore
from biomassters.store.cleaning import clean_chip

NAMES = ("none", "winner", "second", "third")
NODATA = -32768
B12, CLP = 9, 10
BLANK = [65535] * 11


def make_chip() -> Chip:
    """Every month measured and clear; no two neighbours have the same B12."""
    s1 = np.full((12, 4, 32, 32), -1100, np.int16)
    s2 = np.full((12, 11, 32, 32), 2000, np.uint16)
    s2[:, B12] = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) + 500
    s2[:, CLP] = 10
    agbm = np.full((32, 32), 63, np.float32)
    return Chip("aa", s1, s2, np.ones(12, bool), agbm)


def draw_chip(seed: int) -> Chip:
    """Patches of clouds, of constant and dark SWIR, of nodata, and months without any image."""
    random = np.random.default_rng(seed)

    def draw(values: list[int], n_bands: int, side: int) -> np.ndarray:
        coarse = random.choice(values, (12, n_bands, 32 // side, 32 // side))
        return np.kron(coarse, np.ones((1, 1, side, side), int))

    s1 = draw([NODATA, -9000, -1100, 0, 3300], 4, 2).astype(np.int16)
    s2 = random.integers(0, 4, (12, 11, 32, 32)).astype(np.uint16)
    s2[:, B12] = draw([0, 0, 1, 700, 900], 1, 4)[:, 0]
    s2[:, CLP] = draw([0, 50, 51, 100, 101, 65535], 1, 2)[:, 0]
    blank = draw([0, 0, 0, 1], 1, 4)[:, 0] > 0
    s2.transpose(0, 2, 3, 1)[blank] = BLANK
    present = random.random(12) < 0.8
    s2[~present] = 0
    return Chip("aa", s1, s2, present, None)


CHIPS = [make_chip(), *map(draw_chip, range(12))]


def find_changes(before: np.ndarray, after: np.ndarray) -> list[tuple[int, ...]]:
    return [tuple(map(int, index)) for index in np.argwhere(before != after)]


@pytest.mark.parametrize("name", NAMES)
def test_cleaning_twice_is_cleaning_once(name: str) -> None:
    for chip in CHIPS:
        once = clean_chip(chip, name)
        twice = clean_chip(once, name)
        np.testing.assert_array_equal(twice.s1, once.s1)
        np.testing.assert_array_equal(twice.s2, once.s2)


@pytest.mark.parametrize("name", NAMES)
def test_absent_months_and_the_chip_that_was_given_stay_as_they_are(name: str) -> None:
    for chip in CHIPS:
        s1, s2 = chip.s1.copy(), chip.s2.copy()
        cleaned = clean_chip(chip, name)
        np.testing.assert_array_equal(chip.s1, s1)
        np.testing.assert_array_equal(chip.s2, s2)
        np.testing.assert_array_equal(cleaned.s2[~chip.s2_present], s2[~chip.s2_present])
        assert (cleaned.s1.dtype, cleaned.s2.dtype) == (np.int16, np.uint16)
        assert cleaned.s2_present is chip.s2_present
        assert cleaned.agbm is chip.agbm


@pytest.mark.parametrize("name", ["none", "second", "third"])
def test_nodata_stays_nodata(name: str) -> None:
    for chip in CHIPS:
        cleaned = clean_chip(chip, name)
        assert (cleaned.s1[chip.s1 == NODATA] == NODATA).all()
        pixels, before = cleaned.s2.transpose(0, 2, 3, 1), chip.s2.transpose(0, 2, 3, 1)
        assert (pixels[(before == BLANK).all(axis=-1)] == BLANK).all()


def test_none_hands_over_the_very_chip() -> None:
    assert clean_chip(CHIPS[1], "none") is CHIPS[1]


def test_winners_missing_cloud_probability_is_the_worst_cloud() -> None:
    """He divides all by 255: a pixel without a cloud probability is 1, as no cloud is."""
    chip = make_chip()
    chip.s2[3, CLP, 0, 0] = 65535
    chip.s2[4, :, 1, 1] = BLANK
    chip.s2[5] = 0
    cleaned = clean_chip(chip._replace(s2_present=np.arange(12) != 5), "winner")
    assert find_changes(chip.s2, cleaned.s2) == [(3, CLP, 0, 0), (4, CLP, 1, 1)]
    images = BandNormalisation.from_statistics("minmax", publish_normalisation())(
        *(torch.from_numpy(array)[None] for array in (cleaned.s1, cleaned.s2, cleaned.s2_present))
    )[0].numpy()
    assert images[3, 14, 0, 0] == 1
    assert images[4, 4:, 1, 1].tolist() == [0] * 10 + [1]
    assert (images[5, 4:] == 0).all()


@pytest.mark.parametrize(
    ("band", "low_db", "high_db"), [(0, -25, 30), (1, -63, 29), (2, -25, 32), (3, -70, 23)]
)
def test_second_place_clips_backscatter(band: int, low_db: int, high_db: int) -> None:
    chip = make_chip()
    chip.s1[0, band, 0, :5] = [low_db * 100 - 1, high_db * 100 + 1, NODATA, low_db * 100, 32767]
    cleaned = clean_chip(chip, "second")
    got = cleaned.s1[0, band, 0, :6].tolist()
    assert got == [low_db * 100, high_db * 100, NODATA, low_db * 100, high_db * 100, -1100]
    assert len(find_changes(chip.s1, cleaned.s1)) == 3


def test_second_place_takes_a_cloud_probability_over_100_for_0() -> None:
    chip = make_chip()
    chip.s2[2, CLP, 0, :4] = [100, 101, 65535, 0]
    chip.s2[2, :, 1, 1] = BLANK
    cleaned = clean_chip(chip, "second")
    assert cleaned.s2[2, CLP, 0, :4].tolist() == [100, 0, 0, 0]
    assert find_changes(chip.s2, cleaned.s2) == [(2, CLP, 0, 1), (2, CLP, 0, 2)]


def test_third_place_takes_backscatter_of_0_db_for_nodata() -> None:
    chip = make_chip()
    chip.s1[7, 3, 4, :3] = [-1, 0, 1]
    cleaned = clean_chip(chip, "third")
    assert find_changes(chip.s1, cleaned.s1) == [(7, 3, 4, 1)]
    assert cleaned.s1[7, 3, 4, 1] == NODATA


def find_lost(chip: Chip) -> list[tuple[int, ...]]:
    """Clean a chip; return month, row and column of what became nodata."""
    pixels = clean_chip(chip, "third").s2.transpose(0, 2, 3, 1)
    changed = (pixels != chip.s2.transpose(0, 2, 3, 1)).any(axis=-1)
    assert (pixels[changed] == BLANK).all()
    return [tuple(map(int, index)) for index in np.argwhere(changed)]


@pytest.mark.parametrize(("probability", "is_lost"), [(50, False), (51, True), (65535, True)])
def test_third_place_loses_a_cloud_and_some_pixels_about_its_core(
    probability: int, is_lost: bool
) -> None:
    """Rows 10-14 have their core in 11-13: with it go the 3 rows before and the 2 after."""
    chip = make_chip()
    chip.s2[6, CLP, 10:15, 20:25] = probability
    chip.s2[6, CLP, 25:27, 5:7] = probability  # 2 x 2 pixels have no core
    rows, columns = range(8, 16), range(18, 26)
    assert find_lost(chip) == (list(itertools.product([6], rows, columns)) if is_lost else [])


@pytest.mark.parametrize(("length", "n_lost"), [(31, 31), (30, 0)])
def test_third_place_loses_a_constant_block_of_over_3_percent(length: int, n_lost: int) -> None:
    """30.72 of 1,024 pixels; a line one pixel wide, so that no cloud grows from it."""
    chip = make_chip()
    chip.s2[1, B12, 5, :length] = 444
    assert find_lost(chip) == [(1, 5, column) for column in range(n_lost)]


def look(mask: np.ndarray, before: int, after: int, beyond: bool) -> np.ndarray:
    """Return what lies so many rows and columns about each pixel, (12, 32, 32, n, n)."""
    padded = np.pad(mask, ((0, 0), *[(before, after)] * 2), constant_values=beyond)
    return sliding_window_view(padded, (before + after + 1,) * 2, axis=(1, 2))


def test_third_place_clouds_are_those_of_their_definition() -> None:
    random = np.random.default_rng(0)
    for density in (0.02, 0.05, 0.3):
        chip = make_chip()
        clouds = look(random.random((12, 32, 32)) < density, 1, 1, False).any(axis=(3, 4))
        chip.s2[:, CLP][clouds] = 90
        cores = look(clouds, 1, 1, True).all(axis=(3, 4))
        grown = look(cores, 2, 3, False).any(axis=(3, 4))
        beside = look(~grown, 1, 1, False)[..., [0, 1, 1, 2], [1, 0, 2, 1]]  # of a hole's pixel
        ends = ~grown & (beside.sum(axis=3) == 1)
        pairs = ends & look(ends, 1, 1, False)[..., [0, 1, 1, 2], [1, 0, 2, 1]].any(axis=3)
        expected = grown | ~beside.any(axis=3) | pairs
        assert find_lost(chip) == [tuple(map(int, index)) for index in np.argwhere(expected)]


def test_store_cleans_what_it_reads_and_keeps_what_it_holds(tmp_path: Path) -> None:
    path = pack_chips(tmp_path, "5eed0011").path  # of which a month is cloudy by half
    plain, cleaned = (
        ChipStore.open(path, clean=partial(clean_chip, name=name)) for name in ("none", "third")
    )
    chip, expected = plain.read_chip(0), clean_chip(plain.read_chip(0), "third")
    assert (expected.s2 != chip.s2).any()
    copied: ChipStore = pickle.loads(pickle.dumps(cleaned))  # noqa: S301
    for store in (cleaned, copied):
        np.testing.assert_array_equal(store.read_chip(0).s2, expected.s2)
        np.testing.assert_array_equal(store.read_chip(0).s1, expected.s1)
    np.testing.assert_array_equal(ChipStore.open(path).read_chip(0).s2, chip.s2)
    np.testing.assert_array_equal(cleaned.read_target(0), chip.agbm)
