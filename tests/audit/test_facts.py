import math
from pathlib import Path

import numpy as np
import pytest
from audit_examples import PIXELS, decode_real_chip, make_chip, remove_s2

from biomassters.audit.facts import gather_audit_facts
from biomassters.packing.staging import gather_facts
from biomassters.store.bands import CLP, S1_STORED_NODATA, S2_BANDS
from biomassters.store.layout import AUDIT_FACTS

B11, B12 = S2_BANDS.index("B11"), S2_BANDS.index("B12")
COUNTS = (
    *("s1_nodata", "s1_zero", "s1_outside", "s2_nodata", "s2_cloudy", "s2_zero", "s2_block"),
    *("agbm_nodata", "agbm_negative", "agbm_extreme"),
)


def list_counted(facts: dict[str, object]) -> dict[str, object]:
    """Return the counts other than 0, by name and by their place (month, band)."""
    found = {}
    for name in COUNTS:
        for place in np.argwhere(np.atleast_1d(facts[name])):
            found[name, *place.tolist()] = np.atleast_1d(facts[name])[tuple(place)]
    return found


def test_sound_chip_has_nothing_to_count() -> None:
    assert list_counted(gather_audit_facts(make_chip())) == {}


def test_facts_are_those_that_the_store_has() -> None:
    chip = make_chip()
    facts = gather_audit_facts(chip)
    assert list(facts) == [layout.name for layout in AUDIT_FACTS]
    assert facts.items() <= gather_facts(chip).items()
    sizes = {"month": 12, "s1_band": 4, "swir_band": 2}
    for layout in AUDIT_FACTS:
        assert np.shape(facts[layout.name]) == tuple(sizes[d] for d in layout.dimensions[1:])


def test_each_s1_defect_is_counted_in_its_month_and_band() -> None:
    chip = make_chip()
    chip.s1[1, 2] = S1_STORED_NODATA
    chip.s1[3, 0, 0, :5] = S1_STORED_NODATA
    chip.s1[3, 0, 1, :7] = 0
    chip.s1[4, 1, 0, :6] = [-5001, -5000, -5002, 3000, 3001, -32767]
    assert list_counted(gather_audit_facts(chip)) == {
        ("s1_nodata", 1, 2): PIXELS,
        ("s1_nodata", 3, 0): 5,
        ("s1_zero", 3, 0): 7,
        ("s1_outside", 4, 1): 4,
    }


def test_each_s2_defect_is_counted_in_its_month() -> None:
    chip = make_chip()
    chip.s2[0, CLP, 0, :6] = [50, 51, 100, 101, 254, 65535]
    chip.s2[2] = 0  # present, and nothing in it
    chip.s2[3, :CLP, 0, :3] = 0
    chip.s2[4, 0, :10] = 0  # dark in B2 alone: a measured value
    chip.s2[4, 0, 10:12] = 65535  # nodata in B2 alone
    chip.s2[6, :, 1, :8] = 65535
    remove_s2(chip, 5)
    assert list_counted(gather_audit_facts(chip)) == {
        ("s2_cloudy", 0): 4,
        ("s2_nodata", 0): 1,
        ("s2_zero", 2): PIXELS,
        ("s2_zero", 3): 3,
        ("s2_nodata", 6): 8,
        ("s2_zero", 6): 8,
    }


def test_constant_block_is_counted_in_its_month_and_swir_band() -> None:
    chip = make_chip()
    chip.s2[6, B11, :5, :6] = 1234  # 30 of 1,024 pixels: 2.9 %
    chip.s2[7, B11, :4, :8] = 1234  # 32: over 3 %
    chip.s2[8, B12, :8, :8] = 0  # its other bands are not 0
    chip.s2[9, :CLP, :8, :8] = 0  # no measurement, which is another defect
    chip.s2[10, B11 - 1] = 7  # no SWIR band
    assert list_counted(gather_audit_facts(chip)) == {
        ("s2_block", 7, 0): 32,
        ("s2_block", 8, 1): 64,
        ("s2_zero", 9): 64,
    }


def test_targets_are_counted_and_bounded() -> None:
    chip = make_chip()
    chip.agbm[0, :5] = [-0.5, -3, 400, 516.4, 399.99]
    chip.agbm[1, :9] = np.nan
    facts = gather_audit_facts(chip)
    assert list_counted(facts) == {
        ("agbm_nodata", 0): 9,
        ("agbm_negative", 0): 2,
        ("agbm_extreme", 0): 2,
    }
    assert (facts["agbm_min"], facts["agbm_max"]) == (-3, np.float32(516.4))


@pytest.mark.parametrize("has_agbm", [True, False])
def test_absent_target_has_no_bounds(has_agbm: bool) -> None:
    chip = make_chip(target=has_agbm)
    if has_agbm:
        chip.agbm[:] = np.nan
    facts = gather_audit_facts(chip)
    assert math.isnan(facts["agbm_min"])
    assert math.isnan(facts["agbm_max"])
    assert facts["agbm_nodata"] == PIXELS


REAL_COUNTS = {
    "0060c0a5": {("agbm_extreme", 0): 79},
    "288afc34": {
        **{("s1_nodata", month, band): 65536 for month in range(11) for band in (2, 3)},
        # Zeros come in both polarisations of an orbit: they are no measurements.
        **{("s1_zero", 2, band): 8 for band in (0, 1)},
        **{("s1_zero", 4, band): 6 for band in (0, 1)},
        **{("s1_zero", 7, band): 2 for band in (0, 1)},
        **{("s1_zero", 11, band): 1212 for band in (2, 3)},
        ("s1_outside", 2, 1): 1,
        ("s2_zero", 0): 4,
        ("agbm_extreme", 0): 220,
    },
}
REAL_CLOUDY = {
    "0060c0a5": [62, 54, 7289, 34372, 204, 0, 2, 31, 0, 1, 0, 27669],
    "288afc34": [1261, 4996, 4652, 3224, 7393, 291, 7792, 0, 0, 0, 4, 0],
}


@pytest.mark.parametrize("chip_id", REAL_COUNTS)
def test_facts_of_the_real_chips(shared_folder: Path, chip_id: str) -> None:
    facts = gather_audit_facts(decode_real_chip(shared_folder, chip_id))
    assert facts.pop("s2_cloudy") == REAL_CLOUDY[chip_id]
    assert list_counted({**facts, "s2_cloudy": 0}) == REAL_COUNTS[chip_id]
