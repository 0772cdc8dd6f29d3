"""What catalogues call the bands of both sensors.

Source: items of Earth Search (Element 84; `sentinel-2-l2a`, `sentinel-2-c1-l2a`), of Microsoft's
Planetary Computer (`sentinel-2-l2a`, `sentinel-1-rtc`) and of the Copernicus Data Space Ecosystem
(`sentinel-2-l2a`).
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

import pystac

from biomassters.errors import SceneError
from biomassters.scenes.stac.description import StacS2
from biomassters.scenes.stac.search_results import list_assets

REFLECTANCE_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "B2": ("B02", "blue", "B02_10m", "B2"),
    "B3": ("B03", "green", "B03_10m", "B3"),
    "B4": ("B04", "red", "B04_10m", "B4"),
    "B5": ("B05", "rededge1", "B05_20m", "B5"),
    "B6": ("B06", "rededge2", "B06_20m", "B6"),
    "B7": ("B07", "rededge3", "B07_20m", "B7"),
    "B8": ("B08", "nir", "B08_10m", "B8"),
    "B8A": ("B8A", "nir08", "B8A_20m"),
    "B11": ("B11", "swir16", "B11_20m"),
    "B12": ("B12", "swir22", "B12_20m"),
}

POLARISATION_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "VV": ("vv", "VV"),
    "VH": ("vh", "VH"),
}

PROBABILITY_NAMES: Final = ("cloud", "CLD_20m", "CLD", "CLP", "cloud_probability")
CLASSES_NAMES: Final = ("SCL", "scl", "SCL_20m")

CloudsKind = Literal["probability", "classes", "none"]


class CloudsAsset(NamedTuple):
    """Where an item says how cloudy a pixel is.

    Attributes:
        kind: A probability, Sen2Cor's scene classification, or nothing.
        name: Of the asset.
    """

    kind: CloudsKind
    name: str


def choose_assets(
    item: pystac.Item, given: Mapping[Any, str], known: Mapping[str, tuple[str, ...]]
) -> dict[str, str]:
    """Return the names of an item's assets by band, of the bands that it has.

    Args:
        item: Whose assets.
        given: Names that the scene's YAML gives, by band.
        known: Names that catalogues give, by band, the first first.
    """
    chosen = {}
    for band, names in known.items():
        wanted = (given[band],) if band in given else names
        found = next((name for name in wanted if name in item.assets), None)
        if found is not None:
            chosen[band] = found
    return chosen


def choose_clouds(item: pystac.Item, section: StacS2, where: str) -> CloudsAsset:
    """Return where an item says how cloudy a pixel is.

    Args:
        item: Of Sentinel-2.
        section: What the scene's YAML says.
        where: The scene's file, for errors.

    Raises:
        SceneError: The item does not say it, or not under the name that is given.
    """
    if section.clouds == "none":
        return CloudsAsset("none", "")
    if section.clouds != "auto":
        kinds: dict[CloudsKind, tuple[str, ...]] = {
            "classes" if section.clouds in CLASSES_NAMES else "probability": (section.clouds,)
        }
    else:
        kinds = {"probability": PROBABILITY_NAMES, "classes": CLASSES_NAMES}
    for kind, names in kinds.items():
        found = next((name for name in names if name in item.assets), None)
        if found is not None:
            return CloudsAsset(kind, found)
    raise SceneError(
        f"expected a cloud probability or a scene classification, got assets {list_assets(item)},"
        f" at {where}: item {item.id}; name it in `s2: {{clouds: ...}}`, or write `clouds: none`"
        " and map with a model that has no CLP (model.bands)"
    )
