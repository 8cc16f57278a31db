"""Fake quantization: values rounded to the levels of a few bits in training, gradients passed through.

Why neither library of the field: torchao 0.18 trains ``Linear`` layers quantized, but has no form of
``Conv2d``, of which these networks consist.  Brevitas 0.13 has all layers and both bit widths, but pins
``setuptools<81`` and ``dependencies==2.0.1``.  Activations are rounded here, by operations that are vectorised
on a CPU as well, and weights, of which there are few, by ``torch.fake_quantize_per_channel_affine``.  Tests
compare levels and gradients with torch's operators, and the levels of weights with those that brevitas gave.

* Gradients: straight-through (Bengio et al., 2013): 1 within the range, 0 where a value was clipped.
* Weights: symmetric, one scale per output channel, the largest magnitude at the last level: -7..7 at 4 bits,
  -127..127 at 8.  Batch norm stays unfolded in training.  Folding it into a convolution multiplies an output
  channel by a constant, and so that channel's scale alone: the integers that would be deployed are those
  trained here.
* Activations: one scale per tensor; unsigned (0..15, 0..255) with a ReLU6 in it, else symmetric signed.  The
  range is the one of least squared error on values drawn from all images, channels and pixels of the batch
  (a wide one wastes levels, a narrow one clips), averaged over training; evaluation uses the average.
* 32 bits are floating point: nothing is rounded.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import TrainingError

FLOAT_BITS = 32
"""Bits that mean floating point."""

MIN_BITS, MAX_BITS = 2, 16
"""Integer widths that the quantizers can be asked for."""

_TINY = 1e-8
_CEILING = 6.0
"""Of ReLU6."""
_SAMPLE = 2048
"""Values of a tensor that its range is fitted to."""
_RATIOS = tuple(i / 20 for i in range(3, 21))
"""Ranges tried, over the largest magnitude: 0.15 to 1."""
_REFIT_EVERY = 8
"""Training passes between two fits of a range."""
_KEPT = 0.8
"""Weight of the range before, in the average."""


def quantized_weight(weight: Tensor, bits: int) -> Tensor:
    """Weights rounded to symmetric levels per output channel.

    Args:
        weight: (out, ...) of a convolution or a linear layer.
        bits: 2 to 16, or 32 for none.

    Returns:
        The same shape; its gradient reaches ``weight`` unchanged.
    """
    if bits >= FLOAT_BITS:
        return weight
    largest_level = 2 ** (bits - 1) - 1
    largest = weight.detach().abs().flatten(1).amax(dim=1)
    scale = (largest / largest_level).clamp_(min=_TINY)
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -largest_level, largest_level)


class _Rounding(torch.autograd.Function):
    """Rounds to the levels lowest..highest of one scale; the gradient passes where nothing was clipped."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, lowest: int, highest: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.inside = (lowest - 0.5) * scale, (highest + 0.5) * scale
        return torch.mul(x, 1.0 / scale).round_().clamp_(lowest, highest).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(gradients[0], x, *ctx.inside), None, None, None


class ActivationQuantizer(nn.Module):
    """Rounds activations to the levels of one scale per tensor, whose range it learns while training.

    Attributes:
        bits: of the levels; 32: nothing is rounded.
        signed: whether negative values have levels; without them it is a ReLU6 as well.
        limit: largest value that is not clipped; NaN before the first training pass.
    """

    def __init__(self, bits: int, *, signed: bool) -> None:
        super().__init__()
        self.bits = bits
        self.signed = signed
        self.limit = float("nan")
        self._highest = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
        self._lowest = -self._highest if signed else 0
        self._n_passes = 0

    def extra_repr(self) -> str:
        return f"bits={self.bits}, signed={self.signed}"

    def forward(self, x: Tensor) -> Tensor:
        """Values of any shape, rounded; float32 whatever the precision outside.

        Raises:
            TrainingError: in evaluation, before the first training pass has given it a range.
        """
        if self.bits >= FLOAT_BITS:
            return x if self.signed else functional.relu6(x)
        x = x.float()
        if self.training:
            self._follow(x.detach())
        elif self._n_passes == 0 and math.isnan(self.limit):
            raise TrainingError(
                f"a quantizer of activations to {self.bits} bits has no range yet: train the network, or set its limit"
            )
        rounded: Tensor = _Rounding.apply(
            x, max(self.limit, _TINY) / self._highest, self._lowest, self._highest
        )
        return rounded

    def _follow(self, x: Tensor) -> None:
        if self._n_passes % _REFIT_EVERY == 0:
            limit = self._fitted_limit(x)
            self.limit = limit if self._n_passes == 0 else _KEPT * self.limit + (1.0 - _KEPT) * limit
        self._n_passes += 1

    def _fitted_limit(self, x: Tensor) -> float:
        """The range of least squared error among :data:`_RATIOS` of the largest magnitude."""
        sample = self._sample(x)
        lowest, highest = x.aminmax()
        if self.signed:
            largest = torch.maximum(-lowest, highest)
        else:
            largest, sample = highest.clamp(0.0, _CEILING), sample.clamp(0.0, _CEILING)
        limits = largest * x.new_tensor(_RATIOS)
        scale = (limits / self._highest).clamp_(min=_TINY)[:, None]
        levels = (sample / scale).round_().clamp_(self._lowest, self._highest)
        error = (levels * scale - sample).square_().sum(dim=1)
        return float(limits[error.argmin()])

    def _sample(self, x: Tensor) -> Tensor:
        """Values drawn from everywhere in a tensor, elsewhere at every fit; all of them where they are few.

        Drawn, because steps of one length fall into step with rows and maps: they would see the padded border alone.
        """
        n = x.numel()
        if n <= _SAMPLE:
            return x.reshape(-1)
        generator = torch.Generator().manual_seed(self._n_passes)
        return x.take(torch.randint(n, (_SAMPLE,), generator=generator).to(x.device))
