from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits
from tiny_training import IDS, pack_chips

from biomassters.baselines.trees import Samples, fit_trees, sample_pixels, write_maps
from biomassters.errors import StoreError
from biomassters.params.sections import BaselinesParams
from biomassters.prediction.maps import read_prediction
from biomassters.store.chips import ChipStore

PARAMS = BaselinesParams(pixels=900, max_iter=8, seed=0)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ChipStore:
    return pack_chips(tmp_path_factory.mktemp("chips"), *IDS[:3])


@pytest.fixture(scope="module")
def samples(store: ChipStore) -> Samples:
    return sample_pixels(store, PARAMS)


def read_maps(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_each_chip_gives_as_many_pixels_and_all_of_them_the_number_asked_for(
    samples: Samples,
) -> None:
    assert np.bincount(samples.chip_index).tolist() == [300, 300, 300]
    assert samples.composites.shape == (900, 84)


def test_chip_never_gives_a_pixel_twice(store: ChipStore) -> None:
    everything = sample_pixels(store, PARAMS.model_copy(update={"pixels": 10**9}))
    assert np.bincount(everything.chip_index).tolist() == [1024] * 3
    for index in range(3):
        drawn = everything.targets[everything.chip_index == index]
        np.testing.assert_array_equal(np.sort(drawn), np.sort(store.read_target(index).ravel()))


def test_more_chips_than_pixels_asked_for_give_one_each(store: ChipStore) -> None:
    few = sample_pixels(store, PARAMS.model_copy(update={"pixels": 1}))
    assert few.chip_index.tolist() == [0, 1, 2]


def test_draw_depends_on_the_seed_and_the_chips_own_name(
    store: ChipStore, samples: Samples, tmp_path: Path
) -> None:
    other = sample_pixels(store, PARAMS.model_copy(update={"seed": 1}))
    assert not np.array_equal(other.targets, samples.targets)
    alone = sample_pixels(pack_chips(tmp_path, IDS[2]), PARAMS.model_copy(update={"pixels": 300}))
    np.testing.assert_array_equal(alone.targets, samples.targets[samples.chip_index == 2])


def test_trees_never_see_a_held_out_chip(samples: Samples) -> None:
    held_out = samples.chip_index == 2
    changed = samples._replace(targets=np.where(held_out, 400, samples.targets))
    of_both = [fit_trees(s, [0, 1], PARAMS).predict(samples.composites) for s in (samples, changed)]
    np.testing.assert_array_equal(*of_both)
    with_it = fit_trees(changed, range(3), PARAMS).predict(samples.composites)
    assert with_it[held_out].mean() > of_both[0][held_out].mean() + 50


def test_trees_find_biomass_where_the_mean_finds_none(samples: Samples) -> None:
    predicted = fit_trees(samples, range(3), PARAMS).predict(samples.composites)
    assert np.corrcoef(predicted, samples.targets)[0, 1] > 0.8


def test_maps_are_the_same_bytes_on_any_number_of_threads(
    store: ChipStore, samples: Samples, tmp_path: Path
) -> None:
    for threads in (1, 2):
        with threadpool_limits(limits=threads):
            trees = fit_trees(samples, [0, 1], PARAMS)
            write_maps(trees, store, [2, 0], tmp_path / str(threads), {"FOLD": "0"})
    assert read_maps(tmp_path / "1") == read_maps(tmp_path / "2")
    assert set(read_maps(tmp_path / "1")) == {f"{IDS[i]}_agbm.tif" for i in (0, 2)}


def test_map_is_that_of_the_chip_and_not_negative(
    store: ChipStore, samples: Samples, tmp_path: Path
) -> None:
    low = samples._replace(targets=samples.targets - 60)
    write_maps(fit_trees(low, [0, 1], PARAMS), store, [2], tmp_path, {"FOLD": "0"})
    agbm, tags, _ = read_prediction(tmp_path, IDS[2])
    assert (tags["MODELS"], tags["FOLD"]) == ("trees", "0")
    assert agbm.shape == (32, 32)
    assert agbm.min() == 0
    assert np.corrcoef(agbm.ravel(), store.read_target(2).ravel())[0, 1] > 0.5


def test_orbit_that_no_train_chip_has_is_no_obstacle(samples: Samples) -> None:
    composites = samples.composites.copy()
    composites.reshape(-1, 6, 14)[:, :, 2:4] = np.nan
    predicted = fit_trees(samples._replace(composites=composites), range(3), PARAMS).predict(
        samples.composites
    )
    assert np.isfinite(predicted).all()


def test_train_chips_without_targets_are_refused(tmp_path: Path) -> None:
    store = pack_chips(tmp_path, IDS[0], target=False)
    with pytest.raises(StoreError, match=r"expected targets .* got none; add their targets"):
        fit_trees(sample_pixels(store, PARAMS), [0], PARAMS)
