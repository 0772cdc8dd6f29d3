import math

import pytest
import torch
from torch import Tensor, nn

from biomassters.model.decoder import Decoder, DecoderBlock, ScseGates

ENCODER_CHANNELS = (4, 6, 8, 10, 12)
DECODER_CHANNELS = (16, 14, 12, 10, 5)


def make_levels(height: int, width: int) -> list[Tensor]:
    return [
        torch.randn(2, channels, height >> level, width >> level)
        for level, channels in enumerate(ENCODER_CHANNELS, start=1)
    ]


def make_decoder() -> Decoder:
    return Decoder(encoder_channels=ENCODER_CHANNELS, decoder_channels=DECODER_CHANNELS)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96), (160, 32)])
def test_decoder_returns_to_the_images_resolution(height: int, width: int) -> None:
    decoded = make_decoder().eval()(make_levels(height, width))
    assert decoded.shape == (2, 5, height, width)


def test_every_level_reaches_the_output() -> None:
    levels = [level.requires_grad_() for level in make_levels(32, 32)]
    make_decoder()(levels).square().sum().backward()
    assert all(level.grad is not None and level.grad.abs().sum() > 0 for level in levels)


def test_only_the_last_blocks_uncalled_attention_is_frozen_and_all_else_learns() -> None:
    decoder = make_decoder()
    decoder(make_levels(32, 32)).square().sum().backward()
    without = {name for name, parameter in decoder.named_parameters() if parameter.grad is None}
    frozen = {name for name, value in decoder.named_parameters() if not value.requires_grad}
    assert without == frozen
    assert {name.split(".attention.")[0] for name in frozen} == {"blocks.4.attention1"}


def test_scse_adds_the_channel_gate_and_the_pixel_gate() -> None:
    gates = ScseGates(channels=2)
    for parameter in gates.parameters():
        nn.init.zeros_(parameter)
    nn.init.constant_(gates.sSE[0].bias, torch.tensor(3.0).log().item())  # sigmoid = 3/4
    features = torch.tensor([8.0, -4.0]).reshape(1, 2, 1, 1)
    torch.testing.assert_close(gates(features), features * (0.5 + 0.75))


def test_scse_bottleneck_is_a_sixteenth_and_at_least_one_channel() -> None:
    assert ScseGates(channels=312).cSE[1].out_channels == 19
    assert ScseGates(channels=8).cSE[1].out_channels == 1


def test_upsampling_repeats_pixels() -> None:
    block = DecoderBlock(in_channels=1, skip_channels=0, out_channels=1).eval()
    block.conv1, block.conv2, block.attention2 = nn.Identity(), nn.Identity(), nn.Identity()
    features = torch.tensor([[[[1.0, 2.0]]]])
    assert block(features, None).tolist() == [[[[1, 1, 2, 2], [1, 1, 2, 2]]]]


def test_convolutions_start_from_he_s_uniform_distribution_without_bias() -> None:
    # Uniform to both sides up to sqrt(6 / inputs): a variance of 2 / inputs, which ReLU keeps.
    convolution = make_decoder().blocks[0].conv1[0]
    inputs = convolution.weight[0].numel()
    largest = convolution.weight.abs().max().item()
    assert 0.98 * math.sqrt(6 / inputs) < largest <= math.sqrt(6 / inputs)
    assert make_decoder().blocks[0].attention2.attention.sSE[0].bias.tolist() == [0]
