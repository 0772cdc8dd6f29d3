from pathlib import Path
from typing import Any

import pytest

from biomassters.commands.map_scene import map_scene
from biomassters.errors import BiomasstersError, ParamsError, SceneError
from repository_copy import ROOT

DEFAULTS: dict[str, Any] = {
    "tile_size": 1024,
    "workers": 1,
    "shard": None,
    "dask": None,
    "memory": None,
    "zones": None,
}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"workers": 0}, "one of --workers (1 or more), --shard and --dask, got --workers 0"),
        ({"workers": 2, "shard": "0/2"}, "got --workers and --shard, at the command line"),
        ({"shard": "0/2", "dask": "tcp://a:1"}, "got --shard and --dask, at the command line"),
        ({"shard": "2/2"}, "a shard i/n with i of 0...n - 1, got '2/2', at --shard"),
        ({"tile_size": 100}, "a positive multiple of 16 pixels, got 100, at --tile-size"),
        ({"memory": "plenty"}, "an amount of memory such as 2GiB, got 'plenty', at --memory"),
    ],
    ids=str,
)
def test_option_that_cannot_be_is_refused_before_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], told: str
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(ParamsError) as refused:
        map_scene(Path("scenes/lakeland.yaml"), tmp_path / "map", **{**DEFAULTS, **options})
    assert told in str(refused.value)
    assert not (tmp_path / "map").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "expected a scene's YAML, got no file, at "),
        ("source: [", "expected YAML in "),
        ("source: satellites", "expected one of rasters, stac, synthetic, got 'satellites'"),
        ("source: synthetic\nlandscape: a\nyear: 2020\ncrs: EPSG:3067", "bounds: expected a value"),
        (
            "source: synthetic\nlandscape: a\nyear: 2020\ncrs: EPSG:3067\nbounds: [0, 0, 1, 1]"
            "\na: 1",
            "a: unknown key; mend its spelling or remove it",
        ),
        (
            "source: synthetic\nlandscape: a\nyear: 2020\ncrs: here\nbounds: [0, 0, 1, 1]",
            "expected a CRS such as EPSG:3067, got 'here'",
        ),
    ],
)
def test_scene_that_is_none_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, told: str
) -> None:
    monkeypatch.chdir(ROOT)
    scene = tmp_path / "bad.yaml"
    if text is not None:
        scene.write_text(text)
    with pytest.raises(SceneError) as refused:
        map_scene(scene, tmp_path / "map", **DEFAULTS)
    assert told in str(refused.value)
    assert str(scene) in str(refused.value)


def test_outside_a_project_it_says_where_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BiomasstersError, match=r"params\.yaml, got none; run in the repository"):
        map_scene(ROOT / "scenes/lakeland.yaml", tmp_path / "map", **DEFAULTS)
