"""Fits of the simulator's equations to measured sweeps: what latency and power follow, and how well.

All fits minimise relative errors (residuals of logarithms), because a sweep spans a factor of ten.
Arrays are (n,) over the points of a sweep; GHz, ms, W, mJ, as the names say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares, nnls

from ....spaces import Layer
from ....spaces.workload import LayerKind, Shape

FloatArray = NDArray[np.float64]

_SOFT = 0.005  # relative error from which on a point counts as an outlier of a sweep
_STARTS = (1.5, 3.0, 6.0)  # norm exponents that a fit starts from: the error has flat valleys in q


def mean_absolute_percentage_error(predicted: FloatArray, measured: FloatArray) -> float:
    """MAPE in percent."""
    return 100.0 * float(np.mean(np.abs(predicted / measured - 1.0)))


def p_norm(a: FloatArray, b: FloatArray, q: float) -> FloatArray:
    """(a^q + b^q)^(1/q): a sum for q = 1, the larger of the two as q grows."""
    larger = np.maximum(np.maximum(a, b), 1e-300)
    total: FloatArray = larger * ((a / larger) ** q + (b / larger) ** q) ** (1.0 / q)
    return total


@dataclass(frozen=True, slots=True)
class WholeNetworkLatency:
    """``max(c / f_cpu, ((a / f_gpu)^q + (b / f_emc)^q)^(1/q)) + d``.

    Attributes:
        arithmetic, memory, processor: a, b, c in ms GHz; c is 0 where the CPU's clock was not swept.
        offset_ms: d.
        exponent: q; 1 makes the first two add up.
        is_additive: whether the processor's part adds up too, instead of hiding the rest.
    """

    arithmetic: float
    memory: float
    processor: float
    offset_ms: float
    exponent: float
    is_additive: bool = False

    def __call__(
        self, gpu_ghz: FloatArray, emc_ghz: FloatArray, cpu_ghz: FloatArray | None = None
    ) -> FloatArray:
        """Latency (n,), ms."""
        device = p_norm(self.arithmetic / gpu_ghz, self.memory / emc_ghz, self.exponent)
        host = np.zeros_like(device) if cpu_ghz is None else self.processor / cpu_ghz
        joined: FloatArray = (
            host + device if self.is_additive else np.maximum(host, device)
        ) + self.offset_ms
        return joined


def fit_whole_network(
    latency_ms: FloatArray, gpu_ghz: FloatArray, emc_ghz: FloatArray, cpu_ghz: FloatArray | None = None, *,
    additive: bool = False,
) -> WholeNetworkLatency:  # fmt: skip
    """Fit a, b, d and q (and c, with CPU clocks) of one network to a sweep.

    Args:
        additive: fit the usual sum ``a / f_gpu + b / f_emc + c / f_cpu + d`` instead.
    """
    if additive:
        return _fit_sum(latency_ms, gpu_ghz, emc_ghz, cpu_ghz)
    fastest = float(latency_ms.min())
    guesses = [fastest * float(gpu_ghz.max()), fastest * float(emc_ghz.max()), 0.03 * fastest]
    if cpu_ghz is not None:
        guesses.append(0.7 * fastest * float(cpu_ghz.max()))

    def model(x: FloatArray) -> WholeNetworkLatency:
        a, b, d, *c = np.exp(np.clip(x[:-1], -40.0, 40.0))
        q = 1.0 + float(np.exp(np.clip(x[-1], -20.0, 4.0)))
        return WholeNetworkLatency(float(a), float(b), float(c[0]) if c else 0.0, float(d), q)

    def residuals(x: FloatArray) -> FloatArray:
        return np.asarray(np.log(model(x)(gpu_ghz, emc_ghz, cpu_ghz) / latency_ms))

    starts = [np.array([*np.log(guesses), np.log(q - 1.0)]) for q in _STARTS]
    return model(_best(residuals, starts))


def _fit_sum(
    latency_ms: FloatArray, gpu_ghz: FloatArray, emc_ghz: FloatArray, cpu_ghz: FloatArray | None
) -> WholeNetworkLatency:
    terms = [1.0 / gpu_ghz, 1.0 / emc_ghz, np.ones_like(gpu_ghz)]
    if cpu_ghz is not None:
        terms.append(1.0 / cpu_ghz)
    a, b, d, *c = fit_sum(terms, latency_ms)
    return WholeNetworkLatency(a, b, c[0] if c else 0.0, d, 1.0, is_additive=True)


def _best(residuals: Callable[[FloatArray], FloatArray], starts: Sequence[FloatArray]) -> FloatArray:
    """The best of several least-squares fits that outliers weigh little in."""
    fits = [least_squares(residuals, start, loss="soft_l1", f_scale=_SOFT) for start in starts]
    return np.asarray(min(fits, key=lambda found: float(found.cost)).x, dtype=np.float64)


def fit_sum(terms: Sequence[FloatArray], measured: FloatArray) -> list[float]:
    """Coefficients, none negative, of a sum of terms (n,) that meets n measured values; least relative squares."""
    relative = np.stack(terms, axis=1) / measured[:, None]
    scale = np.maximum(np.sqrt((relative**2).mean(axis=0)), 1e-300)
    solution, _ = nnls(relative / scale, np.ones(len(measured)))
    return [float(value) for value in solution / scale]


@dataclass(frozen=True, slots=True)
class LayerLatency:
    """``sum over layers of ((F / (eff_c peak))^q + (B / (eff_m bandwidth))^q)^(1/q) + d``.

    Attributes:
        efficiency_compute, efficiency_memory: shares of the peaks that layers reach.
        offset_ms: d.
        exponent: q, given.
        flop_per_cycle, bytes_per_cycle: the peaks, per cycle of the GPU's and of the memory's clock.
    """

    efficiency_compute: float
    efficiency_memory: float
    offset_ms: float
    exponent: float
    flop_per_cycle: float
    bytes_per_cycle: float

    def __call__(self, layers: Sequence[Layer], gpu_ghz: FloatArray, emc_ghz: FloatArray) -> FloatArray:
        """Latency (n,), ms."""
        flops = np.array([2.0 * layer.macs for layer in layers])[:, None]
        moved = np.array([float(layer.bytes_moved) for layer in layers])[:, None]
        arithmetic_ms = flops / (self.efficiency_compute * self.flop_per_cycle * gpu_ghz * 1e6)
        memory_ms = moved / (self.efficiency_memory * self.bytes_per_cycle * emc_ghz * 1e6)
        return np.asarray(
            p_norm(arithmetic_ms, memory_ms, self.exponent).sum(axis=0) + self.offset_ms, dtype=np.float64
        )


def fit_layers(
    latency_ms: FloatArray, layers: Sequence[Layer], gpu_ghz: FloatArray, emc_ghz: FloatArray, *,
    flop_per_cycle: float, bytes_per_cycle: float, exponent: float = 3.0,
) -> LayerLatency:  # fmt: skip
    """Fit the two efficiencies and the offset of one network whose layers are known."""

    def model(x: FloatArray) -> LayerLatency:
        compute, memory, offset = (float(v) for v in np.exp(np.clip(x, -40.0, 40.0)))
        return LayerLatency(compute, memory, offset, exponent, flop_per_cycle, bytes_per_cycle)

    def residuals(x: FloatArray) -> FloatArray:
        return np.asarray(np.log(model(x)(layers, gpu_ghz, emc_ghz) / latency_ms))

    return model(_best(residuals, [np.log([0.5, 0.2, 0.01 * float(latency_ms.min())])]))


@dataclass(frozen=True, slots=True)
class ModulePower:
    """Power of a board while it runs one network: ``p0 + p1 V^2(f) / t + p2 f V^2(f) + p3 / t``.

    The terms: what always flows; arithmetic, a fixed energy per inference at the lowest voltage;
    cycles of the compute clock; memory traffic, a fixed energy per inference at any voltage.

    Attributes:
        base_w: p0.
        arithmetic_mj: p1.
        cycle_w_per_ghz: p2.
        traffic_mj: p3.
    """

    base_w: float
    arithmetic_mj: float
    cycle_w_per_ghz: float
    traffic_mj: float

    def __call__(
        self, compute_ghz: FloatArray, voltage_squared: FloatArray, latency_ms: FloatArray
    ) -> FloatArray:
        """W (n,)."""
        total: FloatArray = (
            self.base_w
            + (self.arithmetic_mj * voltage_squared + self.traffic_mj) / latency_ms
            + self.cycle_w_per_ghz * compute_ghz * voltage_squared
        )
        return total


def fit_module_power(
    power_w: FloatArray, compute_ghz: FloatArray, voltage_squared: FloatArray, latency_ms: FloatArray
) -> ModulePower:
    """Fit the four terms, none negative, to a sweep of the compute clock at one memory clock."""
    terms = [
        np.ones_like(power_w), voltage_squared / latency_ms, compute_ghz * voltage_squared, 1.0 / latency_ms,
    ]  # fmt: skip
    return ModulePower(*fit_sum(terms, power_w))


def torchvision_layers(name: str, *, px: int = 224, dtype_bytes: int = 2) -> tuple[Layer, ...]:
    """Convolutions, linear layers and poolings of a published architecture, without any weights.

    The network is built on PyTorch's meta device, which knows shapes alone, and run once.

    Args:
        name: a classification network of torchvision, e.g. ``resnet50``.
        px: height and width of the image.
        dtype_bytes: of weights and activations; 2 = half precision.
    """
    import torch
    import torchvision

    with torch.device("meta"):
        network = torchvision.models.get_model(name, weights=None).eval()
    found: list[Layer] = []

    def shape(tensor: torch.Tensor) -> Shape:
        channels, height, width = (*tensor.shape[1:], 1, 1)[:3]
        return int(channels), int(height), int(width)

    def note(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if isinstance(module, torch.nn.Conv2d):
            kind: LayerKind = "depthwise" if module.groups == module.in_channels > 1 else "conv"
            weights, positions = module.weight.numel(), output.shape[2] * output.shape[3]
        elif isinstance(module, torch.nn.Linear):
            kind, weights, positions = "linear", module.weight.numel(), 1
        else:
            kind, weights, positions = "pool", 0, 0
        moved = (inputs[0].numel() + output.numel() + weights) * dtype_bytes
        found.append(Layer(kind, weights * positions, weights, moved, shape(inputs[0]), shape(output)))

    counted = (torch.nn.Conv2d, torch.nn.Linear, torch.nn.MaxPool2d, torch.nn.AdaptiveAvgPool2d)
    for module in network.modules():
        if isinstance(module, counted):
            module.register_forward_hook(note)
    with torch.no_grad():
        network(torch.zeros(1, 3, px, px, device="meta"))
    return tuple(found)
