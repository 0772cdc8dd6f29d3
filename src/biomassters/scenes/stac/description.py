"""The YAML of scenes that are made of STAC items."""

import re
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, field_validator

from biomassters.params.sections import Positive, Section
from biomassters.scenes.description import SceneDescription

ReflectanceName: TypeAlias = Literal["B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12"]
PolarisationName: TypeAlias = Literal["VV", "VH"]


class StacS1(Section):
    """What the items of Sentinel-1 hold.

    Attributes:
        assets: What the items call the polarisations; one that is not named is looked for by the
            names that catalogues give it.
        unit: Of the files: linear power, or dB.
    """

    assets: dict[PolarisationName, str] = Field(default_factory=dict)
    unit: Literal["linear", "db"] = "linear"


class StacS2(Section):
    """What the items of Sentinel-2 hold.

    Attributes:
        assets: What the items call the bands; one that is not named is looked for by the names
            that catalogues give it.
        clouds: The asset of the cloud probability, or of the scene classification; auto = by name,
            a probability first; none = there is neither.
        clearest: What the clearest of a month is: each pixel by its own clouds, or each item by
            its `eo:cloud_cover`.
        scale: What makes DN of the files' values: 10,000 for reflectance of 0-1.
        offset: Added to DN: -1000 for baselines from 04.00 on whose files have it still; auto =
            as each item's metadata say, held against its pixels.
        offsets: The same for single items, by id.
    """

    assets: dict[ReflectanceName, str] = Field(default_factory=dict)
    clouds: str = Field(default="auto", min_length=1)
    clearest: Literal["pixel", "image"] = "pixel"
    scale: Positive = 1.0
    offset: Literal["auto"] | int = "auto"
    offsets: dict[str, int] = Field(default_factory=dict)


class StacDescription(SceneDescription):
    """A year of acquisitions, as found by a search.

    Attributes:
        items: Files with the items that a search found, from the YAML's folder: a
            FeatureCollection each, or one item.
        start: The September that the scene begins with, such as 2020-09.
        s1: What is said of Sentinel-1.
        s2: What is said of Sentinel-2.
    """

    source: Literal["stac"]
    items: Annotated[tuple[str, ...], Field(min_length=1, strict=False)]
    start: str
    s1: StacS1 = StacS1()
    s2: StacS2 = StacS2()

    @field_validator("items", mode="before")
    @classmethod
    def _list_files(cls, items: object) -> object:
        return [items] if isinstance(items, str) else items

    @field_validator("start")
    @classmethod
    def _check_start(cls, start: str) -> str:
        if not re.fullmatch(r"[0-9]{4}-09", start) or not 1 <= int(start[:4]) <= 9998:
            raise ValueError(f"expected the September it begins with, such as 2020-09, got {start}")
        return start

    @property
    def year(self) -> int:
        """Of the first September."""
        return int(self.start[:4])
