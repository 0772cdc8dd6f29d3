"""Right values pass in every month; each wrong kind is seen, on real and on simulated chips."""

import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from example_chips import read_real_files
from raster_examples import store_chip

from biomassters.dataset.chip_tiffs import decode_chip_tiff
from biomassters.errors import SceneError
from biomassters.params.sections import CleaningName
from biomassters.scenes.radiometry import (
    FINDINGS,
    Claim,
    Samples,
    check_radiometry,
    find_in_pixels,
    read_claims,
)
from biomassters.simulator.chip import simulate_chip
from biomassters.store.bands import CLP, S1_STORED_NODATA, S2_STORED_NODATA
from biomassters.store.chips import Chip
from biomassters.store.cleaning import clean_chip

REAL = ("0060c0a5", "288afc34")
SIMULATED = ("snow", "water")
CHIPS = (*REAL, *SIMULATED)


@cache
def read_chip(chip_id: str, shared: Path) -> Chip:
    """Return a real or simulated chip, as a store has it."""
    if chip_id in SIMULATED:
        chip = simulate_chip(chip_id, 96)
        pixels = store_chip(chip.s1, chip.s2)
        return Chip(chip_id, *pixels, chip.s2_present, None)
    files = read_real_files(shared, chip_id)
    s1, s2 = (
        np.stack(
            [
                decode_chip_tiff(
                    files[f"{chip_id}_{sensor}_{month:02}.tif"],
                    n_bands=n_bands,
                    dtype=dtype,
                    chip_size=256,
                ).bands
                for month in range(12)
            ]
        )
        for sensor, n_bands, dtype in (("S1", 4, np.float32), ("S2", 11, np.uint16))
    )
    part = store_chip(s1, s2).cut(slice(160), slice(160))  # quicker
    return Chip(chip_id, *part, np.ones(12, np.bool_), None)


def sample_chip(chip: Chip) -> Samples:
    s1 = np.where(chip.s1 == S1_STORED_NODATA, np.nan, chip.s1 / np.float32(100))
    s2 = np.where(chip.s2 == S2_STORED_NODATA, np.nan, chip.s2)
    return Samples(
        *(a.astype(np.float32).reshape(12, -1, a[0, 0].size)[..., ::3] for a in (s1, s2))
    )


def change(samples: Samples, add: float, factor: float = 1, months=range(12)) -> Samples:
    """Return samples with other reflectance."""
    s2 = samples.s2.copy()
    for month in months:
        s2[month, :CLP] = s2[month, :CLP] * factor + add
    return samples._replace(s2=s2)


def drop_clouds(samples: Samples) -> Samples:
    s2 = samples.s2.copy()
    s2[:, CLP] = np.nan
    return samples._replace(s2=s2)


def name_findings(samples: Samples) -> set[str]:
    return {finding.name for finding in find_in_pixels(samples)}


@pytest.fixture(params=CHIPS)
def samples(request, shared_folder: Path) -> Samples:
    return sample_chip(read_chip(request.param, shared_folder))


def test_right_values_pass(samples: Samples) -> None:
    assert name_findings(samples) == set()
    assert name_findings(drop_clouds(samples)) == set()
    check_radiometry(samples, "a.yaml: radiometry")


def test_right_values_of_any_month_alone_pass(samples: Samples) -> None:
    for month in range(12):
        alone = Samples(*(np.full_like(array, np.nan) for array in samples))
        for one, array in zip(alone, samples, strict=True):
            one[month] = array[month]
        assert name_findings(alone) == set()


@pytest.mark.parametrize("cleaning", ["winner", "second", "third"])
@pytest.mark.parametrize("chip_id", CHIPS)
def test_cleaned_values_pass(chip_id: str, cleaning: CleaningName, shared_folder: Path) -> None:
    chip = clean_chip(read_chip(chip_id, shared_folder), cleaning)
    assert name_findings(sample_chip(chip)) == set()


def test_backscatter_in_other_units_is_seen(samples: Samples) -> None:
    for factor, name in ((10, "linear_backscatter"), (20, "amplitude_backscatter")):
        wrong = samples._replace(s1=10 ** (samples.s1 / factor))
        assert name_findings(wrong) == {name}
    for s1 in (400 * 10 ** (samples.s1 / 20), 100 * samples.s1):
        assert name_findings(samples._replace(s1=s1)) == {"backscatter_numbers"}


def test_one_month_of_linear_backscatter_is_seen(samples: Samples) -> None:
    s1 = samples.s1.copy()
    s1[11] = 10 ** (s1[11] / 10)
    assert name_findings(samples._replace(s1=s1)) == {"linear_backscatter"}


def test_reflectance_of_0_to_1_is_seen(samples: Samples) -> None:
    assert name_findings(change(samples, 0, 1e-4)) == {"reflectance_fraction"}


def test_offset_that_is_left_is_seen(samples: Samples) -> None:
    assert name_findings(change(samples, 1000)) == {"offset_not_applied"}
    assert name_findings(drop_clouds(change(samples, 1000))) == {"offset_not_applied"}


def test_offset_taken_twice_is_seen_whether_clipped_or_not(samples: Samples) -> None:
    wrong = change(samples, -1000)
    assert "offset_applied_twice" in name_findings(wrong)
    clipped = wrong._replace(s2=np.maximum(wrong.s2, 0))
    assert "offset_applied_twice" in name_findings(clipped)


def test_mixed_baselines_are_seen(samples: Samples) -> None:
    """As in a scene that 25 January 2022 lies in."""
    wrong = change(samples, 1000, months=range(5, 12))
    assert name_findings(wrong) == {"offset_mixed"}


def test_same_image_for_two_months_is_seen(samples: Samples) -> None:
    s1 = samples.s1.copy()
    s1[4] = s1[3]
    assert name_findings(samples._replace(s1=s1)) == {"same_pixels"}


def test_flag_that_lies_is_named(samples: Samples) -> None:
    claims = [Claim("offset applied", "S2", 10, "july.tif")]
    with pytest.raises(SceneError, match=r"1,000.*though july.tif says `offset applied`.*July"):
        check_radiometry(change(samples, 1000), "a.yaml: radiometry", (), claims)
    check_radiometry(samples, "a.yaml: radiometry", (), claims)  # pixels are believed, not flags


def test_gamma0_is_told_by_names_alone(samples: Samples) -> None:
    claims = [Claim("gamma0", "S1", 0, "s1_gamma0.tif")]
    with pytest.raises(SceneError, match=r"expected sigma0, got gamma0 by the name s1_gamma0.tif"):
        check_radiometry(samples, "a.yaml: radiometry", (), claims)
    check_radiometry(samples, "a.yaml: radiometry", ["gamma0"], claims)


def test_message_says_what_to_write_and_findings_are_accepted(samples: Samples) -> None:
    wrong = change(samples._replace(s1=10 ** (samples.s1 / 10)), 1000)
    with pytest.raises(SceneError) as told:
        check_radiometry(wrong, "a.yaml: radiometry")
    message = str(told.value)
    assert "\n" not in message
    assert "write `S1: {unit: linear}` under radiometry" in message
    assert "write `S2: {offset: -1000}` under radiometry" in message
    names = re.findall(r"accept: \[(\w+)\]", message)
    assert names == ["linear_backscatter", "offset_not_applied"]
    assert set(names) <= set(FINDINGS)
    check_radiometry(wrong, "a.yaml: radiometry", names)


def test_few_or_no_pixels_are_not_judged() -> None:
    nothing = Samples(np.full((12, 4, 900), np.nan), np.full((12, 11, 900), np.nan))
    assert name_findings(nothing) == set()
    few = Samples(nothing.s1.copy(), nothing.s2.copy())
    few.s1[0, 0, :10], few.s2[0, :, :10] = 0.1, 0.2
    assert name_findings(few) == set()


def test_claims_are_read_from_names_and_tags() -> None:
    assert read_claims("S1_gamma-0_VV.tif", {}) == {"gamma0"}
    assert read_claims("S1_sigma0.tif", {}) == set()
    flag = "earthsearch:boa_offset_applied"
    assert read_claims("B02.tif", {flag: "True"}) == {"offset applied"}
    assert read_claims("B02.tif", {flag: "false"}) == {"offset not applied"}
