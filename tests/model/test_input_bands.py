from typing import Any

import pytest
import torch
from example_models import build
from torch import Tensor

from biomassters.model.input_bands import ALL_BANDS, choose_bands, pick_channels
from biomassters.model.trial import try_prediction, try_training
from biomassters.store.bands import BANDS, S1_BANDS, S2_BANDS

NO_CLP = BANDS[:-1]
SUBSETS = {
    "without CLP": NO_CLP,
    "S1": S1_BANDS,
    "RGB": ("B4", "B3", "B2"),
    "VV and CLP": BANDS[::14],
}


def draw_chips(n_chips: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Return chips as stored, with an absent month and nodata in all bands."""
    generator = torch.Generator().manual_seed(0)
    shape = (n_chips, 12, 4, 32, 32)
    s1 = torch.randint(-2500, 0, shape, generator=generator).to(torch.int16)
    s2 = torch.randint(0, 9000, (n_chips, 12, 11, 32, 32), generator=generator)
    s1[:, 3, :, 4] = -32768
    s2[:, 4, :, 5] = 65535
    present = torch.ones(n_chips, 12, dtype=torch.bool)
    present[0, 7] = False
    return s1, s2.to(torch.int32).to(torch.uint16), present


def predict(model: Any, s1: Tensor, s2: Tensor, present: Tensor) -> Tensor:
    with torch.no_grad():
        prediction: Tensor = model.eval()(
            model.normalise(s1, s2, present), model.ignore_months(present)
        )
    return prediction


def test_all_bands_are_those_of_a_chip() -> None:
    assert ALL_BANDS.n_bands == 15
    assert ALL_BANDS.pick(BANDS) == list(BANDS)
    assert choose_bands(BANDS) == ALL_BANDS


def test_chosen_bands_are_in_the_stores_order_whatever_the_list_says() -> None:
    bands = choose_bands(("CLP", "B2", "VH ascending"))
    assert (bands.s1, bands.s2, bands.n_bands) == ((1,), (0, 10), 3)
    assert bands.pick(BANDS) == ["VH ascending", "B2", "CLP"]


def test_channels_of_all_bands_are_no_copy() -> None:
    s1, _, _ = draw_chips()
    assert pick_channels(s1, range(4)) is s1
    assert torch.equal(pick_channels(s1, (1, 3)), s1[:, :, [1, 3]])
    assert pick_channels(s1, ()).shape == (2, 12, 0, 32, 32)


@pytest.mark.parametrize("normalisation", ["minmax", "zscore", "percentile"])
@pytest.mark.parametrize("names", SUBSETS.values(), ids=SUBSETS)
def test_images_of_some_bands_are_those_of_all_without_the_others(
    names: tuple[str, ...], normalisation: str
) -> None:
    some, every = (
        build(bands=bands, normalisation=normalisation).normalise(*draw_chips())
        for bands in (names, "all")
    )
    kept = [index for index, name in enumerate(BANDS) if name in names]
    assert torch.equal(some, every[:, :, kept])


def test_model_of_all_bands_has_the_tensors_that_it_always_had() -> None:
    first, listed = build().state_dict(), build(bands=BANDS).state_dict()
    assert {name: t.shape for name, t in first.items() if name.startswith("norm")} == {
        "normalisation.offset": (15,),
        "normalisation.scale": (15,),
    }
    assert first.keys() == listed.keys()
    assert all(torch.equal(tensor, listed[name]) for name, tensor in first.items())


def test_model_without_clp_predicts_the_same_whatever_clp_holds() -> None:
    s1, s2, present = draw_chips()
    other = s2.to(torch.int32)
    other[:, :, S2_BANDS.index("CLP")] = 65535
    other = other.to(torch.uint16)
    without, every = build(bands=NO_CLP), build()
    assert torch.equal(predict(without, s1, s2, present), predict(without, s1, other, present))
    assert not torch.equal(predict(every, s1, s2, present), predict(every, s1, other, present))


@pytest.mark.parametrize("missing_months", ["zero", "nearest", "mask"])
def test_model_of_s1_alone_looks_at_months_without_s2_as_at_any(missing_months: Any) -> None:
    s1, s2, present = draw_chips()
    model = build(bands=S1_BANDS, missing_months=missing_months)
    assert model.ignore_months(present) is None
    found = predict(model, s1, s2, present)
    assert torch.equal(found, predict(model, s1, s2, torch.zeros_like(present)))
    assert torch.equal(found, predict(model, s1, torch.zeros_like(s2), present))


def test_model_of_s2_alone_still_masks_months_without_it() -> None:
    present = draw_chips()[2]
    model = build(bands=S2_BANDS, missing_months="mask")
    assert torch.equal(model.ignore_months(present), ~present)


@pytest.mark.parametrize("names", SUBSETS.values(), ids=SUBSETS)
def test_model_of_some_bands_runs_and_all_its_weights_learn(names: tuple[str, ...]) -> None:
    model = build(bands=names)
    try_prediction(model, 32, precision="fp32")
    try_training(model, 32, n_chips=2, n_months=1, precision="fp32")
    images = model.train().normalise(*draw_chips())
    model(images).square().mean().backward()
    stem = model.network.encoder.model.conv_stem.weight
    assert stem.shape[1] == len(names)
    assert stem.grad.abs().amax((0, 2, 3)).min() > 0  # of every band
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)
