import json
from datetime import UTC, datetime
from pathlib import Path

import pystac
import pytest

from biomassters.errors import SceneError
from biomassters.scenes.stac.search_results import find_address, read_items, redact

ITEM = pystac.Item("A", None, None, datetime(2021, 6, 3, tzinfo=UTC), {}).to_dict()


def save(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document))
    return path


def test_collection_and_single_item_are_read(tmp_path: Path) -> None:
    path = save(tmp_path / "items.json", {"type": "FeatureCollection", "features": [ITEM, ITEM]})
    assert [item.id for item in read_items(path)] == ["A", "A"]
    assert [item.id for item in read_items(save(path, ITEM))] == ["A"]


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"type": "FeatureCollection", "features": []}, "got none"),
        ({"type": "Catalog", "id": "x"}, "got a Catalog"),
        ([ITEM], "got other JSON"),
        ({"type": "FeatureCollection", "features": [{"type": "Feature"}]}, "expected a STAC item"),
        ({"type": "FeatureCollection", "features": [7]}, "expected a STAC item"),
        ({**ITEM, "properties": {"datetime": "yesterday"}}, "items.json: A;"),
        ({**ITEM, "assets": {"red": {"href": ""}}}, "got '', at .*A: red"),
    ],
)
def test_other_json_is_refused_by_what_it_is(tmp_path: Path, document: object, told: str) -> None:
    with pytest.raises(SceneError, match=told) as raised:
        read_items(save(tmp_path / "items.json", document))
    assert "\n" not in str(raised.value)


def test_damaged_and_absent_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "items.json"
    with pytest.raises(SceneError, match=r"got No such file.*items\.json"):
        read_items(path)
    path.write_text(json.dumps(ITEM)[:100])
    with pytest.raises(SceneError, match=r"got no JSON.*items\.json"):
        read_items(path)


@pytest.mark.parametrize(
    ("href", "address"),
    [
        ("a/b.tif", "/data/a/b.tif"),
        ("/data/b.tif", "/data/b.tif"),
        ("s3://bucket/b.tif", "s3://bucket/b.tif"),
        ("https://host/b.tif?sig=1", "https://host/b.tif?sig=1"),
    ],
)
def test_relative_addresses_count_from_the_folder(href: str, address: str) -> None:
    assert find_address(href, Path("/data")) == address


def test_signatures_are_left_out_of_messages() -> None:
    told = "'/vsicurl/https://host/b.tif?st=1&sig=a%2F' failed; https://host/c.tif?sig=2, too"
    assert redact(told) == "'/vsicurl/https://host/b.tif' failed; https://host/c.tif, too"
