import logging
from dataclasses import replace
from pathlib import Path

import pytest
import rasterio.env
import torch
from example_scenes import PREDICT, ArrayScene, make_job

from biomassters.errors import ChipDataError, ModelError, SceneError
from biomassters.mapping.job import MapJob, Mapper, describe_job, fingerprint_code
from biomassters.mapping.memory import LEAST_CACHE
from biomassters.params.map_sections import ChipSize, MapParams, MappedParams
from biomassters.scenes.grid import Box, Grid
from biomassters.scenes.scene import Pixels
from biomassters.store.bands import BANDS, S1_BANDS

CPU = torch.device("cpu")
BOX = Box(-688_700, 44_810, 40, 40)


def open_job(job: MapJob, missing: tuple[str, ...] = (), **changes: str) -> Mapper:
    scene = ArrayScene(Grid("EPSG:3067", 10.0, BOX), **changes)  # type: ignore[arg-type]
    scene.bands = tuple(name for name in BANDS if name not in missing)
    return Mapper(job, scene, CPU)


@pytest.mark.parametrize("missing", [("CLP",), ("B11", "B12"), S1_BANDS], ids=str)
def test_scene_that_never_has_a_band_of_the_model_is_refused(
    tmp_path: Path, missing: tuple[str, ...]
) -> None:
    with pytest.raises(SceneError, match=rf"a scene without {', '.join(missing)}, .*model\.bands"):
        open_job(make_job(tmp_path), missing)


def test_model_of_fewer_bands_maps_a_scene_without_the_others(tmp_path: Path) -> None:
    job = make_job(tmp_path, bands=("VV ascending", "B4", "B8"))
    assert open_job(job, ("CLP", "B11", "VH descending")).blocks.n_outputs == 1


def test_scene_of_one_orbit_is_told_and_mapped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        open_job(make_job(tmp_path), S1_BANDS[2:])
    assert "has no VV descending, VH descending in any month" in caplog.text


def test_models_that_are_not_there_are_told(tmp_path: Path) -> None:
    job = replace(make_job(tmp_path), models=tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"expected models at .*nowhere, got none; run `dvc"):
        open_job(job)


def test_calibration_that_is_not_there_is_told(tmp_path: Path) -> None:
    predict = PREDICT.model_copy(update={"calibration": str(tmp_path / "none.json")})
    with pytest.raises(ChipDataError, match=r"a calibration, got no file, at .*none\.json"):
        open_job(replace(make_job(tmp_path), predict=predict))


def test_fingerprint_is_that_of_what_decides_pixels(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    first = open_job(job).fingerprint
    same = replace(job, folder=tmp_path / "other", tile_size=512)
    tta = PREDICT.model_copy(update={"tta": "dihedral"})  # of `predict`; maps have their own
    assert open_job(same).fingerprint == open_job(replace(job, predict=tta)).fingerprint == first
    others = [
        open_job(job, identity="other"),
        open_job(replace(job, map=MapParams(overlap=0.125, tta="none"))),
        open_job(replace(job, predict=PREDICT.model_copy(update={"precision": "bf16"}))),
    ]
    assert len({first, *(mapper.fingerprint for mapper in others)}) == 4


def test_tile_says_what_made_it(tmp_path: Path) -> None:
    mapper = open_job(make_job(tmp_path))
    tags = mapper.tags(BOX)
    assert tags["MODELS"] == f"one:{mapper.weights['one']}"
    assert tags["SCENE"] == "arrays:0123456789abcdef"
    assert tags["PERIOD"] == "2020-09-01/2021-08-31"
    assert tags["WINDOW"] == "64 pixels, overlapping by 16"
    assert tags["CODE"] == fingerprint_code()
    assert mapper.tags(BOX.grow(1))["MAP_FINGERPRINT"] != tags["MAP_FINGERPRINT"]


def test_job_in_absolute_paths_is_the_same_job() -> None:
    job = describe_job(
        Path("scenes/a.yaml"),
        Path("maps/a"),
        MappedParams(
            cleaning="none",
            data=ChipSize(chip_size=64),
            predict=PREDICT.model_copy(update={"calibration": "calibration.json"}),
            map=MapParams(overlap=0.25, tta="none"),
        ),
    )
    located = job.locate()
    assert located.scene == Path.cwd() / "scenes/a.yaml"
    assert located.models == Path.cwd() / "models/final"
    assert located.predict.calibration == str(Path.cwd() / "calibration.json")
    assert located.windows == job.windows


def test_window_that_settles_engines_leaves_little_in_gdals_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GDAL's own bound is a twentieth of the machine, taken before the memory is planned."""
    bounds: list[int] = []
    read = ArrayScene.read

    def watch(scene: ArrayScene, box: Box) -> Pixels:
        bounds.append(rasterio.env.getenv()["GDAL_CACHEMAX"])
        return read(scene, box)

    monkeypatch.setattr(ArrayScene, "read", watch)
    open_job(make_job(tmp_path)).settle_engines()
    assert bounds == [LEAST_CACHE]
