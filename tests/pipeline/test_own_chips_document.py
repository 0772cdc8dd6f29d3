"""docs/own-chips.md, followed as it is written: its files are made by rasterio alone."""

import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
from workspace import Workspace, make_tiny_workspace

from biomassters.store.chips import ChipStore
from repository_copy import ROOT

PAGE = (ROOT / "docs/own-chips.md").read_text()
BLOCKS = dict(re.findall(r"^```(python|sh)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = make_tiny_workspace(tmp_path_factory.mktemp("own") / "checkout")
    workspace.run("python", "-W", "error", "-c", BLOCKS["python"])
    workspace.run("bash", "-ec", BLOCKS["sh"])
    return workspace


def test_page_leads_to_maps_that_lie_where_the_chips_do(followed: Workspace) -> None:
    maps = sorted((followed.folder / "predictions").glob("*.tif"))
    assert [path.name for path in maps] == ["own-6_agbm.tif", "own-7_agbm.tif"]
    with rasterio.open(maps[1]) as dataset:
        assert dataset.crs == "EPSG:3067"
        assert tuple(dataset.transform)[:6] == (10, 0, 400_000 + 7 * 640, 0, -10, 7_000_000)
        assert np.isfinite(dataset.read(1)).all()


def test_declared_nodata_of_the_targets_is_none_of_their_values(followed: Workspace) -> None:
    store = ChipStore.open(followed.folder / "chips/train.zarr")
    target = store.read_target(0)
    assert np.isnan(target[:8]).all()
    assert 0 <= target[8:].min() < target[8:].max() <= 200
    assert store.s2_present.sum(axis=1).tolist() == [10] * 6


def test_page_is_found_from_the_others() -> None:
    for page in ("README.md", "docs/data.md"):
        assert "own-chips.md" in Path(ROOT / page).read_text()
