import pytest
import timm
import torch

from biomassters.commands.backbone_search import Shapes, count_differences, rank_backbones


def list_shapes(backbone: str) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = timm.create_model(backbone, features_only=True, in_chans=15)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def list_fitting(shapes: Shapes) -> list[str]:
    return [name for n_differing, name in rank_backbones(shapes) if n_differing == 0]


def test_all_backbones_that_fit_are_found_among_all_of_timm() -> None:
    twins = ["efficientnetv2_l", "tf_efficientnetv2_l"]
    assert list_fitting(list_shapes("tf_efficientnetv2_l")) == twins
    assert list_fitting(list_shapes("resnet50")) == ["resnet50", "resnetaa50", "resnetblur50"]


def test_search_finds_what_building_each_backbone_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    known = ["efficientnet_lite0", "mobilenetv3_small_050", "resnet18", "resnet34", "regnetx_002"]
    known += ["efficientnet_b0", "tf_efficientnet_b0", "mobilenetv3_small_075", "resnetblur18"]
    monkeypatch.setattr(timm, "list_models", lambda *_: known)
    shapes = {name: list_shapes(name) for name in known}
    for name in known:
        same = [other for other in known if shapes[other] == shapes[name]]
        assert list_fitting(shapes[name]) == sorted(same)


@pytest.mark.parametrize("lost", ["conv_stem.weight", "blocks.1.0.bn1.weight"])
def test_backbone_of_all_but_one_tensor_is_the_nearest(lost: str) -> None:
    shapes = list_shapes("mobilenetv3_small_050")
    del shapes[lost]
    assert rank_backbones(shapes)[0] == (1, "mobilenetv3_small_050")


def test_tensors_of_no_backbone_are_near_none() -> None:
    assert rank_backbones({f"layers.{n}.weight": (8, 7, 5, 3) for n in range(300)}) == []
    assert rank_backbones({}) == []


def test_differences_are_names_of_one_alone_and_other_shapes() -> None:
    one = {"same": (1,), "other": (2,), "lost": (3,)}
    assert count_differences(one, {"same": (1,), "other": (2, 1), "new": (3,)}) == 3
