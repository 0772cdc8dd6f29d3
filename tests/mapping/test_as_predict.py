"""The map of a chip's footprint against what `predict` says of that chip."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from example_scenes import ArrayScene, make_job, map_scene
from tiny_training import CHIP_SIZE, IDS, pack_chips

from biomassters.batches.order import StoreOrder
from biomassters.batches.reading import open_batches
from biomassters.batches.symmetries import views
from biomassters.mapping.job import Mapper
from biomassters.params.map_sections import MapParams
from biomassters.prediction.inference import predict_batches
from biomassters.scenes.grid import Box, Grid
from biomassters.scenes.scene import Pixels
from biomassters.store.bands import S2_STORED_NODATA


@pytest.mark.parametrize("tta", ["none", "flips"])
def test_map_of_a_chip_is_its_prediction_in_its_interior(tmp_path: Path, tta: str) -> None:
    store = pack_chips(tmp_path / "chips", *IDS[:2])
    job = replace(make_job(tmp_path, window=CHIP_SIZE), map=MapParams(overlap=0.25, tta=tta))
    corner = Box(-28_000 * 24, 1_900 * 24, CHIP_SIZE, CHIP_SIZE)  # of a window
    scene = ArrayScene(Grid("EPSG:3067", 10.0, corner))
    mapper = Mapper(job, scene, torch.device("cpu"))
    predicted = predict_batches(
        mapper.blocks.predictors,
        open_batches(store, StoreOrder(range(2), 2)),
        views(tta),
        precision="fp32",
    )
    inside = slice(8, 24)
    for index, prediction, _, _ in predicted:
        chip = store.read_chip(index)
        s2 = np.where(chip.s2_present[:, None, None, None], chip.s2, np.uint16(S2_STORED_NODATA))
        scene.pixels = Pixels(chip.s1, s2)
        (agbm,) = map_scene(replace(job, folder=tmp_path / str(index)), scene, n_made=1)
        assert prediction[inside, inside].std() > 0
        np.testing.assert_allclose(
            agbm[inside, inside], prediction[inside, inside], rtol=1e-6, atol=1e-5
        )
