"""Fake quantization: the levels, the gradients and the ranges."""

import numpy as np
import pytest
import torch

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


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_are_those_of_brevitas(bits: int) -> None:
    nn = pytest.importorskip("brevitas.nn", reason="brevitas is not installed")
    from brevitas.quant import Int8WeightPerChannelFloat

    layer = nn.QuantConv2d(6, 6, 3, groups=6, weight_quant=Int8WeightPerChannelFloat, weight_bit_width=bits)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(1)))
    torch.testing.assert_close(quantized_weight(layer.weight, bits), layer.quant_weight().value)
