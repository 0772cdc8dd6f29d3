import itertools
from typing import get_args

import numpy as np
import pytest
import torch
from tiny_training import IDS, pack_chips

from biomassters.model.normalisation import BandNormalisation
from biomassters.params.bands import ConditionName
from biomassters.params.sections import RobustnessParams
from biomassters.robustness.conditions import (
    ABSENT_BANDS,
    PLAIN,
    Condition,
    list_conditions,
    open_without,
    remove_data,
)
from biomassters.store.bands import BANDS, CLP, N_S1
from biomassters.store.chips import Chip

S1_NODATA, S2_NODATA = -32768, 65535


def make_chip(chip_id: str = "aa", absent: tuple[int, ...] = ()) -> Chip:
    random = np.random.default_rng(0)
    s1 = random.integers(-2500, -500, (12, 4, 4, 4)).astype(np.int16)
    s2 = random.integers(100, 3000, (12, 11, 4, 4)).astype(np.uint16)
    s2[:, CLP] = 10
    present = ~np.isin(np.arange(12), absent)
    s2[~present] = 0
    return Chip(chip_id, s1, s2, present, np.zeros((4, 4), np.float32))


def name(condition: ConditionName) -> Condition:
    return Condition(condition, ABSENT_BANDS[condition])


def months(n: int) -> Condition:
    return Condition(f"months_{n}", months_removed=n)


def see(chip: Chip) -> np.ndarray:
    """Return what a model sees, (12, 15, H, W): no band of the chip is 0 after normalisation."""
    normalise = BandNormalisation(offset=[1e4] * 15, scale=[1.0] * 15)
    batch = (torch.from_numpy(array)[None] for array in (chip.s1, chip.s2, chip.s2_present))
    return normalise(*batch)[0].numpy()


def assert_equal(one: Chip, other: Chip) -> None:
    for field in ("s1", "s2", "s2_present", "agbm"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field))


@pytest.mark.parametrize("condition", get_args(ConditionName))
def test_model_sees_0_in_the_absent_bands_and_all_else_as_before(condition: ConditionName) -> None:
    chip = make_chip(absent=(3,))
    before, after = see(chip), see(remove_data(chip, name(condition), seed=0))
    absent = np.isin(BANDS, ABSENT_BANDS[condition])
    assert (after[:, absent] == 0).all()
    np.testing.assert_array_equal(after[:, ~absent], before[:, ~absent])
    assert (before[[0, 11]] != 0).all()


def test_conditions_lack_the_bands_that_their_names_say() -> None:
    sizes = {condition: len(bands) for condition, bands in ABSENT_BANDS.items()}
    assert sizes == {
        "no_s1": 4,
        "no_s2": 11,
        "no_ascending": 2,
        "no_descending": 2,
        "no_clp": 1,
        "no_swir": 2,
        "rgb_only": 12,
    }
    assert ABSENT_BANDS["no_ascending"] == ("VV ascending", "VH ascending")
    assert {"B2", "B3", "B4"}.isdisjoint(ABSENT_BANDS["rgb_only"])


def test_without_twelve_months_is_without_s2_and_its_months_are_absent() -> None:
    chip = make_chip()
    without = remove_data(chip, months(12), seed=0)
    assert_equal(without, remove_data(chip, name("no_s2"), seed=0))
    assert not without.s2_present.any()
    assert not without.s2.any()
    np.testing.assert_array_equal(without.s1, chip.s1)


@pytest.mark.parametrize("absent", [(), (0, 5, 6), tuple(range(11))])
def test_month_that_is_absent_without_k_is_absent_without_more(absent: tuple[int, ...]) -> None:
    chip = make_chip(absent=absent)
    left = [remove_data(chip, months(n), seed=0).s2_present for n in range(13)]
    counts = [int(present.sum()) for present in left]
    assert counts == [max(12 - len(absent) - n, 0) for n in range(13)]
    for more, fewer in itertools.pairwise(left):
        assert (fewer <= more).all()


def test_months_that_are_left_keep_their_images_and_the_others_hold_0() -> None:
    chip = make_chip(absent=(2,))
    fewer = remove_data(chip, months(4), seed=0)
    present = fewer.s2_present
    np.testing.assert_array_equal(fewer.s2[present], chip.s2[present])
    assert not fewer.s2[~present].any()


def test_what_is_absent_anyway_cannot_be_taken_away() -> None:
    blank = make_chip(absent=tuple(range(12)))
    for condition in (months(3), months(12), name("no_s2"), name("no_clp"), PLAIN):
        assert_equal(remove_data(blank, condition, seed=0), blank)
    chip = make_chip()
    chip.s1[:, :2] = S1_NODATA
    assert_equal(remove_data(chip, name("no_ascending"), seed=0), chip)


def test_months_are_drawn_by_seed_and_name_and_not_by_what_else_a_chip_lacks() -> None:
    def draw(chip: Chip, seed: int = 0) -> list[int]:
        return np.flatnonzero(remove_data(chip, months(6), seed).s2_present).tolist()

    assert draw(make_chip("aa")) == draw(make_chip("aa"))
    drawn = {tuple(draw(make_chip(f"{n:08x}"), seed)) for n in range(5) for seed in range(4)}
    assert len(drawn) == 20
    kept = draw(make_chip("aa"))
    assert draw(make_chip("aa", absent=tuple(kept[:1]))) == kept[1:]


def test_each_month_is_removed_from_some_chips() -> None:
    removed = [~remove_data(make_chip(f"{n:08x}"), months(1), seed=0).s2_present for n in range(99)]
    counts = np.sum(removed, axis=0)
    assert counts.sum() == 99
    assert counts.min() > 0


def test_chip_that_is_given_is_not_modified() -> None:
    chip, same = make_chip(), make_chip()
    for condition in (name("rgb_only"), months(5)):
        remove_data(chip, condition, seed=0)
    assert_equal(chip, same)


@pytest.mark.parametrize(("cleaning", "expected"), [("none", S2_NODATA), ("winner", 255)])
def test_data_are_taken_away_before_the_rest_is_cleaned(tmp_path, cleaning, expected) -> None:
    path = pack_chips(tmp_path, IDS[0]).path
    store = open_without(path, name("no_clp"), cleaning=cleaning, seed=0)
    chip = store.read_chip(0)
    assert chip.s2_present.any()
    assert (chip.s2[chip.s2_present][:, CLP] == expected).all()


def test_conditions_come_each_once_the_plain_one_first_and_months_in_order() -> None:
    params = RobustnessParams(
        chips=1,
        months_removed=(6, 1, 6),
        conditions=("no_s1", "rgb_only", "no_s1"),
        tta="none",
        seed=0,
    )
    names = [condition.name for condition in list_conditions(params)]
    assert names == ["plain", "months_1", "months_6", "no_s1", "rgb_only"]
    assert set(ABSENT_BANDS) == set(get_args(ConditionName))
    assert len(BANDS[:N_S1]) == 4
