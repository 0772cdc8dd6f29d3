"""The JSON of a search: its items, with addresses that can be opened from anywhere."""

import json
import re
from pathlib import Path
from typing import Any, Final

import pystac

from biomassters.errors import SceneError, name_few

_QUERY: Final = re.compile(r"\?[^\s'\",;)]*")


def redact(text: str) -> str:
    """Return a text without what follows the question marks of addresses: signatures, tokens."""
    return _QUERY.sub("", text)


def read_items(path: Path) -> list[pystac.Item]:
    """Read the items of a file; relative addresses of assets count from its folder.

    Args:
        path: A FeatureCollection, as an API answers and pystac-client saves, or one item.

    Raises:
        SceneError: It is absent, no such JSON, or has no item.
    """
    features = _list_features(_read_json(path), path)
    if not features:
        raise SceneError(f"expected STAC items, got none, at {path}; widen the search")
    return [_parse_item(feature, path) for feature in features]


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise SceneError(
            f"expected the items of a STAC search, got {error.strerror}, at {path}; name, in"
            " `items`, the file that the search was saved to"
        ) from None
    except ValueError as error:
        raise SceneError(
            f"expected the items of a STAC search, got no JSON ({error}), at {path}; save them"
            " again"
        ) from None


def _list_features(document: Any, path: Path) -> list[Any]:
    kind = document.get("type") if isinstance(document, dict) else None
    if kind == "FeatureCollection" and isinstance(document.get("features"), list):
        return list(document["features"])
    if kind == "Feature":
        return [document]
    raise SceneError(
        f"expected a FeatureCollection of STAC items, got"
        f" {'a ' + str(kind) if kind else 'other JSON'}, at {path}; save"
        " `search.item_collection()`, or an API's answer to /search"
    )


def _parse_item(feature: Any, path: Path) -> pystac.Item:
    named = feature.get("id") if isinstance(feature, dict) else None
    try:
        item = pystac.Item.from_dict(feature)
    except Exception as error:  # whatever a parser of others' JSON falls over
        raise SceneError(
            f"expected a STAC item, got {type(error).__name__} ({error}), at {path}: {named};"
            " take it out, or save the search again"
        ) from None
    for name, asset in item.assets.items():
        if not isinstance(asset.href, str) or not asset.href:
            raise SceneError(
                f"expected an address, got {asset.href!r}, at {path}: {item.id}: {name}; mend it"
            )
    return item


def find_address(href: str, folder: Path) -> str:
    """Return what GDAL opens for an asset's address.

    Args:
        href: As the item has it: http(s), s3, a path, or relative to `folder`.
        folder: Of the file that the item is in.
    """
    if "://" in href or href.startswith("/"):
        return href
    return str((folder / href).absolute())


def list_assets(item: pystac.Item) -> str:
    """Return the names of an item's assets, for a message."""
    return name_few(sorted(item.assets), most=30) or "none"
