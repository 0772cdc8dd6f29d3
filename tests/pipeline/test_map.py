"""The stage `map`, and the command that makes the same."""

import json
from pathlib import Path

import pytest
import rasterio
from forked_scripts import run_script
from reruns import list_stages_run
from workspace import Workspace

COMMAND = "src/biomassters/__main__.py"
CORNERS = [[448_100, 6_886_500], [448_300, 6_886_500], [448_300, 6_886_800]]
ZONES = {
    "type": "FeatureCollection",
    "crs": {"type": "name", "properties": {"name": "EPSG:3067"}},
    "features": [
        {
            "type": "Feature",
            "id": "stand",
            "properties": {"owner": "city"},
            "geometry": {
                "type": "Polygon",
                "coordinates": [[*CORNERS, CORNERS[0]]],
            },
        }
    ],
}


def run_map(workspace: Workspace, *arguments: str):
    """Run the command in a workspace."""
    return run_script(
        workspace.folder, COMMAND, "map", *arguments, environment=workspace.environment
    )


def read_pixels(folder: Path) -> bytes:
    with rasterio.open(folder / "map.vrt") as raster:
        return bytes(raster.read().tobytes())


def test_stage_leaves_a_map_with_intervals_and_its_figures(pipeline: Workspace) -> None:
    folder = pipeline.folder / "maps/lakeland"
    with rasterio.open(folder / "map.vrt") as raster:
        assert (raster.count, raster.shape) == (4, (48, 64))
    figures = json.loads((pipeline.folder / "metrics/maps/lakeland.json").read_text())
    assert figures["area_ha"] == figures["mapped_ha"] == 64 * 48 / 100
    assert figures["agbm_mean_lower_t_ha"] <= figures["agbm_mean_t_ha"]
    assert figures["agbm_mean_t_ha"] <= figures["agbm_mean_upper_t_ha"]
    assert (pipeline.folder / "metrics/maps/images/lakeland.png").exists()
    assert "Whole scenes" in (pipeline.folder / "report/index.html").read_text()


def test_command_makes_the_map_of_the_stage_however_cut(pipeline: Workspace) -> None:
    scene, tiles = "scenes/lakeland.yaml", ("--tile-size", "16")
    first = run_map(pipeline, scene, "work/mine", *tiles, "--shard", "1/2")
    assert (first.returncode, first.stderr) == (0, "")
    assert "not all of the map is there yet" in first.stdout
    second = run_map(pipeline, scene, "work/mine", *tiles, "--memory", "8GiB")
    assert "of 12 tiles made" in second.stdout
    mine, stage = pipeline.folder / "work/mine", pipeline.folder / "maps/lakeland"
    assert read_pixels(mine) == read_pixels(stage)


def test_zones_are_added_beside_the_stages_map(pipeline: Workspace) -> None:
    zones = pipeline.folder / "work/zones.geojson"
    zones.write_text(json.dumps(ZONES))
    done = run_map(pipeline, "scenes/lakeland.yaml", "work/zoned", "--zones", str(zones))
    assert done.returncode == 0
    [zone] = json.loads((pipeline.folder / "work/zoned/zones.geojson").read_text())["features"]
    assert zone["properties"]["owner"] == "city"
    assert zone["properties"]["area_ha"] == 3.0
    mean, total = (zone["properties"][f"agbm_{of}"] for of in ("mean_t_ha", "total_t"))
    assert total == pytest.approx(3 * mean, abs=1e-4)


def test_lost_tile_alone_is_made_again(workspace: Workspace) -> None:
    folder = workspace.folder / "maps/lakeland"
    before = read_pixels(folder)
    [tile] = (folder / "tiles").glob("*.tif")
    tile.unlink()
    result = workspace.run("dvc", "repro", "map@lakeland")
    assert list_stages_run(result.stdout) <= {"map@lakeland"}
    assert read_pixels(folder) == before
    assert "up to date" in workspace.run("dvc", "repro").stdout


def test_scene_that_cannot_be_is_one_line_and_leaves_nothing(pipeline: Workspace) -> None:
    refused = run_map(pipeline, "scenes/nowhere.yaml", "work/nowhere")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: expected a scene's YAML, got no file, at scenes/now")
    assert refused.stderr.count("\n") == 1
    assert not (pipeline.folder / "work/nowhere").exists()
