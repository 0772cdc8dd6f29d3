import pytest
from pydantic import ValidationError

from biomassters.scenes.stac.description import StacDescription

LEAST = {
    "source": "stac",
    "items": "items.json",
    "start": "2020-09",
    "crs": "EPSG:3067",
    "bounds": [350_020, 6_809_000, 351_320, 6_810_400],
}


def test_least_description_takes_one_file_or_several() -> None:
    assert StacDescription.model_validate(LEAST).items == ("items.json",)
    several = StacDescription.model_validate({**LEAST, "items": ["s1.json", "s2.json"]})
    assert several.items == ("s1.json", "s2.json")
    assert several.year == 2020
    assert (several.s1.unit, several.s2.offset, several.s2.clouds) == ("linear", "auto", "auto")


@pytest.mark.parametrize(
    "changed",
    [
        {"start": "2020-08"},
        {"start": "0000-09"},
        {"start": "2020-09-01"},
        {"items": []},
        {"items": 3},
        {"s2": {"offset": "none"}},
        {"s2": {"offset": 0.5}},
        {"s2": {"scale": 0}},
        {"s2": {"assets": {"B1": "coastal"}}},
        {"s1": {"unit": "amplitude"}},
        {"s1": {"assets": {"HH": "hh"}}},
        {"month": 3},
    ],
)
def test_what_is_unknown_or_out_of_range_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        StacDescription.model_validate({**LEAST, **changed})
