import logging
from pathlib import Path

import numpy as np
import pytest
from stac_examples import (
    BOUNDS,
    Raster,
    make_s1,
    make_s2,
    write_items,
    write_s1_item,
    write_s2_item,
)

from biomassters.errors import SceneError
from biomassters.scenes.stac.description import StacDescription
from biomassters.scenes.stac.stac_scene import StacScene, open_stac_scene


def open_scene(folder: Path, **changes: object) -> StacScene:
    described = {"source": "stac", "items": "items.json", "start": "2020-09", "crs": "EPSG:3067"}
    description = StacDescription.model_validate({**described, "bounds": BOUNDS, **changes})
    return open_stac_scene(description, folder / "a.yaml")


def write_s2(folder: Path, rasters: dict[str, Raster], **properties: object) -> None:
    item = write_s2_item(folder, "A", "2021-06-03", rasters, **properties)
    write_items(folder / "items.json", [item])


def change(rasters: dict[str, Raster], added: int) -> dict[str, Raster]:
    """Add to reflectance; what falls below 0 is cut off."""
    return {
        name: raster
        if name in ("SCL", "CLP")
        else raster._replace(
            values=np.clip(raster.values.astype(int) + added, 0, None).astype(np.uint16)
        )
        for name, raster in rasters.items()
    }


@pytest.mark.parametrize(
    ("raw", "properties", "told", "remedy"),
    [
        (1000, {"earthsearch__boa_offset_applied": True}, "still to be taken off", -1000),
        (1000, {"s2__processing_baseline": "03.01"}, "still to be taken off", -1000),
        (0, {"earthsearch__boa_offset_applied": False}, "taken off already", 0),
        (0, {}, "taken off already", 0),
    ],
)
def test_flags_that_lie_are_found_and_the_remedy_helps(
    tmp_path: Path, raw: int, properties: dict[str, object], told: str, remedy: int
) -> None:
    write_s2(tmp_path, make_s2(0, raw=raw), **{"s2__processing_baseline": "05.11", **properties})
    with pytest.raises(SceneError, match=rf"{told}, at .*item A; .*offset: {remedy}}}"):
        open_scene(tmp_path)
    assert open_scene(tmp_path, s2={"offset": remedy}).bands
    assert open_scene(tmp_path, s2={"offsets": {"A": remedy}}).bands


def test_what_the_scene_says_goes_before_pixels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_s2(tmp_path, make_s2(0))
    with caplog.at_level(logging.WARNING):
        open_scene(tmp_path, s2={"offset": -1000})
    assert "as the scene says" in caplog.text


def test_offset_taken_off_twice_is_found(tmp_path: Path) -> None:
    write_s2(tmp_path, change(make_s2(0), -1000), earthsearch__boa_offset_applied=True)
    with pytest.raises(SceneError, match=r"taken off twice, at .*item A; .*another catalogue"):
        open_scene(tmp_path)


def test_reflectance_of_0_to_1_is_found_and_the_remedy_helps(tmp_path: Path) -> None:
    rasters = {
        name: raster if name in ("SCL", "CLP") else raster._replace(
            values=(raster.values / 10_000).astype(np.float32)
        )
        for name, raster in make_s2(0).items()
    }  # fmt: skip
    write_s2(tmp_path, rasters)
    with pytest.raises(SceneError, match=r"reflectance of 0-1, at .*item A: B4.*scale: 10000"):
        open_scene(tmp_path)
    scene = open_scene(tmp_path, s2={"scale": 10_000.0})
    values = scene.read(scene.grid.extent).s2[9, 2]
    assert 250 <= np.median(values) < 370


def to_db(raster: Raster) -> Raster:
    return raster._replace(values=(10 * np.log10(raster.values)).astype(np.float32))


def test_units_of_backscatter_are_told_apart_and_the_remedy_helps(tmp_path: Path) -> None:
    moment = "2021-06-03"
    linear = make_s1(0)
    decibels = {name: to_db(raster) for name, raster in linear.items()}
    written = []
    for folder, rasters, right, wrong in (
        (tmp_path / "linear", linear, "linear", "db"),
        (tmp_path / "db", decibels, "db", "linear"),
    ):
        folder.mkdir()
        write_items(folder / "items.json", [write_s1_item(folder, "R", moment, rasters)])
        with pytest.raises(SceneError, match=rf"item R: VV; write `s1: {{unit: {right}}}`"):
            open_scene(folder, s1={"unit": wrong})
        scene = open_scene(folder, s1={"unit": right})
        written.append(scene.read(scene.grid.extent).s1)
    np.testing.assert_allclose(written[0], written[1], atol=1)


def test_uncalibrated_backscatter_is_refused(tmp_path: Path) -> None:
    rasters = {
        name: raster._replace(values=np.full(raster.values.shape, 180, np.float32))
        for name, raster in make_s1(0).items()
    }
    write_items(tmp_path / "items.json", [write_s1_item(tmp_path, "R", "2021-06-03", rasters)])
    with pytest.raises(SceneError, match=r"uncalibrated DN of GRD, at .*item R: VV"):
        open_scene(tmp_path)


def test_gamma0_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    item = write_s1_item(tmp_path, "R", "2021-06-03", make_s1(0))
    item.collection_id = "sentinel-1-rtc"
    write_items(tmp_path / "items.json", [item])
    with caplog.at_level(logging.WARNING):
        open_scene(tmp_path)
    assert "a.yaml: looks like gamma0" in caplog.text


def test_items_beside_the_map_are_not_looked_at(tmp_path: Path) -> None:
    write_s2(tmp_path, make_s2(0, raw=1000))
    with pytest.raises(SceneError, match="item A"):
        open_scene(tmp_path)
    beside = write_s2_item(tmp_path, "B", "2021-06-03", make_s2(0))
    aside = write_s2_item(tmp_path, "A", "2021-06-03", make_s2(0, raw=1000))
    assert aside.bbox is not None
    aside.bbox = [aside.bbox[2] + 0.01, aside.bbox[1], aside.bbox[2] + 0.02, aside.bbox[3]]
    write_items(tmp_path / "items.json", [aside, beside])
    assert open_scene(tmp_path).bands
