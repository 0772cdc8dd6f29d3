from functools import partial
from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import save_file

from biomassters.errors import ModelError
from biomassters.model.encoder import Encoder


def test_encoder_returns_five_levels_of_the_declared_channels_and_reductions() -> None:
    encoder = Encoder(backbone="mobilenetv3_small_050", pretrained=False)
    assert encoder.channels == (16, 8, 16, 24, 288)
    assert encoder.reductions == (2, 4, 8, 16, 32)
    features = encoder(torch.rand(2, 15, 64, 96))
    assert [level.shape[1] for level in features] == [16, 8, 16, 24, 288]
    assert [level.shape[2:] for level in features] == [
        (64 // r, 96 // r) for r in (2, 4, 8, 16, 32)
    ]


def test_backbone_of_another_family_is_an_encoder_too() -> None:
    features = Encoder(backbone="resnet10t", pretrained=False)(torch.rand(2, 15, 32, 32))
    assert [level.shape[-1] for level in features] == [16, 8, 4, 2, 1]


def test_unknown_backbone_names_the_closest() -> None:
    with pytest.raises(ModelError, match=r"got 'tf_efficientnetv2_x', .*tf_efficientnetv2_[bmls]"):
        Encoder(backbone="tf_efficientnetv2_x", pretrained=False)


def test_backbone_with_four_levels_is_refused() -> None:
    with pytest.raises(ModelError, match=r"5 feature levels .* got 4 levels .* of convnext_atto"):
        Encoder(backbone="convnext_atto", pretrained=False)


def test_backbone_whose_levels_are_not_halvings_is_refused() -> None:
    with pytest.raises(ModelError, match="vit_tiny_patch16_224"):
        Encoder(backbone="vit_tiny_patch16_224", pretrained=False)


def test_weights_that_cannot_be_downloaded_are_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="published weights of mobilenetv3_small_050") as caught:
        Encoder(backbone="mobilenetv3_small_050", pretrained=True)
    assert "set model.pretrained to false" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_backbone_without_published_weights_says_so() -> None:
    with pytest.raises(
        ModelError, match=r"weights of efficientnet_b6, .*name a backbone with weights"
    ):
        Encoder(backbone="efficientnet_b6", pretrained=True)


def test_published_weights_are_adapted_to_fifteen_bands(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As timm does it: red, green and blue over and over, scaled by 3 / 15."""
    name = "mobilenetv3_small_050"
    torch.manual_seed(1)
    published = timm.create_model(name).state_dict()
    save_file(published, tmp_path / "published.safetensors")
    overlay = {"file": str(tmp_path / "published.safetensors")}
    monkeypatch.setattr(
        timm, "create_model", partial(timm.create_model, pretrained_cfg_overlay=overlay)
    )
    adapted = Encoder(backbone=name, pretrained=True).model.state_dict()
    first = adapted.pop("conv_stem.weight")
    assert first.shape == (16, 15, 3, 3)
    for band in range(15):
        expected = published["conv_stem.weight"][:, band % 3] * 3 / 15
        torch.testing.assert_close(first[:, band], expected)
    assert all(torch.equal(value, published[key]) for key, value in adapted.items())


def test_frozen_encoder_is_in_evaluation_mode_whatever_is_asked() -> None:
    encoder = Encoder(backbone="mobilenetv3_small_050", pretrained=False).train()
    encoder.freeze(True)
    assert not any(module.training for module in encoder.train().modules())
    assert not any(level.requires_grad for level in encoder(torch.rand(1, 15, 32, 32)))
    encoder.freeze(False)
    assert all(module.training for module in encoder.train().modules())
