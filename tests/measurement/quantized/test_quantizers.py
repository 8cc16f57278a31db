"""Fake quantization: the levels, the gradients and the ranges."""

import numpy as np
import pytest
import torch

from hadas.errors import TrainingError
from hadas.measurement.quantized.quantizers import ActivationQuantizer, quantized_weight


def fitted(bits: int, signed: bool, x: torch.Tensor) -> ActivationQuantizer:
    quantizer = ActivationQuantizer(bits, signed=signed)
    quantizer(x)
    return quantizer.eval()


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("shape", [(6, 3, 3, 3), (6, 1, 3, 3), (5, 20)])
def test_weights_lie_on_symmetric_levels_of_their_channel(bits: int, shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(bits))
    rounded = quantized_weight(weight, bits).numpy().reshape(shape[0], -1)
    top = 2 ** (bits - 1) - 1
    for before, after in zip(weight.numpy().reshape(shape[0], -1), rounded, strict=True):
        scale = np.abs(before).max() / top
        levels = after / scale
        assert np.allclose(levels, np.rint(levels), atol=1e-4)
        assert np.abs(np.rint(levels)).max() == top  # the largest weight is exact
        assert np.abs(after - before).max() <= scale / 2 * 1.0001


def test_weights_pass_their_gradient_on() -> None:
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    slope = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    (quantized_weight(weight, 4) * slope).sum().backward()
    assert torch.equal(weight.grad, slope)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("signed", [True, False])
def test_activations_and_gradients_are_those_of_torch(bits: int, signed: bool) -> None:
    x = torch.randn(7, 5, 6, 6, generator=torch.Generator().manual_seed(bits)) * 2.0
    quantizer = fitted(bits, signed, x)
    low, high = (-(2 ** (bits - 1)) + 1, 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    x = x * 2.0  # so that some are clipped
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    slope = torch.randn(x.shape, generator=torch.Generator().manual_seed(9))
    found = quantizer(ours)
    expected = torch.fake_quantize_per_tensor_affine(theirs, quantizer.limit / high, 0, low, high)
    (found * slope).sum().backward()
    (expected * slope).sum().backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert bool((ours.grad == 0).any())


def test_the_range_is_the_one_of_least_error_among_those_tried() -> None:
    x = torch.randn(2048, generator=torch.Generator().manual_seed(3))
    x[0] = 12.0
    quantizer = fitted(4, True, x)

    def error(limit: float) -> float:
        rounded = torch.fake_quantize_per_tensor_affine(x, limit / 7, 0, -7, 7)
        return float((rounded - x).square().sum())

    tried = [12.0 * i / 20 for i in range(3, 21)]
    assert quantizer.limit == pytest.approx(min(tried, key=error))
    assert quantizer.limit < 12.0


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bits", [4, 8])
def test_the_range_fits_the_whole_of_a_large_map_whose_border_differs(
    bits: int, memory_format: torch.memory_format
) -> None:
    """Zero padding makes borders small; a range that is fitted to them alone clips everything else."""
    x = torch.randn(16, 24, 16, 16, generator=torch.Generator().manual_seed(4)).abs_() + 0.5
    x[:, :, [0, -1]] *= 0.05
    x[:, :, :, [0, -1]] *= 0.05
    x[0, 0, 8, 8] = 6.0
    x = x.contiguous(memory_format=memory_format)
    quantizer = fitted(bits, False, x)
    top = 2**bits - 1

    def error(limit: float) -> float:
        rounded = torch.fake_quantize_per_tensor_affine(x, limit / top, 0, 0, top)
        return float((rounded - x).square().mean())

    least = min(error(6.0 * i / 20) for i in range(3, 21))
    assert error(quantizer.limit) < 2.0 * least
    border = torch.cat([x[:, :, 0].flatten(), x[:, :, :, 0].flatten()])
    on_border = fitted(bits, False, torch.cat([border, torch.tensor([6.0])]))
    assert error(on_border.limit) > 10 * least


def test_other_values_are_looked_at_in_the_next_fit() -> None:
    """The average over fits is over samples, too, and the same in every run."""
    x = torch.randn(32, 8, 16, 16, generator=torch.Generator().manual_seed(5))
    limits = []
    for _ in range(2):
        quantizer = ActivationQuantizer(8, signed=True)
        quantizer(x)
        seen = [quantizer.limit]
        for _ in range(40):
            quantizer(x)
        limits.append([*seen, quantizer.limit])
    assert limits[0] == limits[1]
    assert limits[0][0] != limits[0][1]


def test_evaluation_before_any_training_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"to 4 bits has no range yet: train the network"):
        ActivationQuantizer(4, signed=True).eval()(torch.ones(3))
    # 32 bits need none.
    assert ActivationQuantizer(32, signed=True).eval()(torch.ones(3)).tolist() == [1.0] * 3


def test_a_range_follows_in_training_and_rests_in_evaluation() -> None:
    generator = torch.Generator().manual_seed(0)
    quantizer = ActivationQuantizer(8, signed=True)
    quantizer(torch.randn(1000, generator=generator))
    first = quantizer.limit
    for _ in range(30):
        quantizer(torch.randn(1000, generator=generator) * 3.0)
    followed = quantizer.limit
    assert followed > 1.5 * first
    quantizer.eval()
    quantizer(torch.randn(1000, generator=generator) * 100.0)
    assert quantizer.limit == followed


def test_thirty_two_bits_are_floating_point() -> None:
    x = torch.randn(50, generator=torch.Generator().manual_seed(0)) * 9.0
    assert torch.equal(ActivationQuantizer(32, signed=True)(x), x)
    assert torch.equal(ActivationQuantizer(32, signed=False)(x), x.clamp(0.0, 6.0))
    assert quantized_weight(x, 32) is x


BREVITAS_LEVELS = {
    4: [[-7, -2, 3, -6, 0, 5, -4, 1, 6], [-3, 3, -7, -1, 4, -6, 0, 6, -4], [1, 7, -3, 3, -7, -1, 4, -5, 0]],
    8: [
        [-127, -33, 61, -102, -8, 86, -76, 18, 112], [-54, 46, -127, -27, 73, -100, 0, 100, -73],
        [27, 127, -46, 54, -119, -19, 81, -92, 8],
    ],
}  # fmt: skip
"""Integers that brevitas 0.13.0 (with torch 2.15.0) gave for the weights of the test below, by these lines:

    layer = brevitas.nn.QuantConv2d(
        3, 3, 3, groups=3, weight_quant=brevitas.quant.Int8WeightPerChannelFloat, weight_bit_width=bits
    )
    with torch.no_grad():
        layer.weight.copy_(weight)
    quantized = layer.quant_weight()
    print(quantized.int().flatten(1).tolist(), quantized.scale.flatten().tolist())

It pins other versions of packages that this project uses, so it is in no environment of the tests.
"""

BREVITAS_SCALES = {
    4: [0.1428571492433548, 0.04028571397066116, 0.33571428060531616],
    8: [0.007874015718698502, 0.002220472553744912, 0.018503936007618904],
}


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_are_those_of_brevitas(bits: int) -> None:
    spread = (torch.arange(27.0) * 37 % 101 - 50) / 50
    weight = spread.reshape(3, 1, 3, 3) * torch.tensor([1.0, 0.3, 2.5]).reshape(3, 1, 1, 1)
    levels = torch.tensor(BREVITAS_LEVELS[bits]).reshape(weight.shape)
    expected = levels * torch.tensor(BREVITAS_SCALES[bits]).reshape(3, 1, 1, 1)
    torch.testing.assert_close(quantized_weight(weight, bits), expected)
