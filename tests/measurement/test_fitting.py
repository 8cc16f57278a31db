"""Fits recover what made-up sweeps were made of, and hold on the public ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hadas.measurement.hardware.simulation.fitting import (
    LayerLatency,
    ModulePower,
    WholeNetworkLatency,
    fit_layers,
    fit_module_power,
    fit_sum,
    fit_whole_network,
    mean_absolute_percentage_error,
    p_norm,
    torchvision_layers,
)

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data" / "measurements"
GPU, EMC, CPU = (
    clock.ravel()
    for clock in np.meshgrid(
        np.linspace(0.1, 1.3, 9), [1.06, 1.33, 1.6, 1.87], [0.5, 1.2, 2.0], indexing="ij"
    )
)
TWO_CLOCKS = CPU == 2.0


def _scatter(n: int, seed: int = 0) -> np.ndarray:
    return np.exp(0.002 * np.random.default_rng(seed).standard_normal(n))


def test_p_norm_is_a_sum_at_one_and_the_larger_far_above() -> None:
    a, b = np.array([3.0, 1.0, 0.0]), np.array([4.0, 5.0, 2.0])
    np.testing.assert_allclose(p_norm(a, b, 1.0), [7.0, 6.0, 2.0])
    np.testing.assert_allclose(p_norm(a, b, 2.0), [5.0, np.sqrt(26.0), 2.0])
    np.testing.assert_allclose(p_norm(a, b, 300.0), [4.0, 5.0, 2.0], rtol=1e-3)


@pytest.mark.parametrize("exponent", [1.8, 3.0, 4.5])
def test_whole_network_fit_recovers_what_a_sweep_was_made_of(exponent: float) -> None:
    true = WholeNetworkLatency(60.0, 80.0, 0.0, 2.0, exponent)
    gpu, emc = GPU[TWO_CLOCKS], EMC[TWO_CLOCKS]
    found = fit_whole_network(true(gpu, emc) * _scatter(len(gpu)), gpu, emc)
    assert found.arithmetic == pytest.approx(60.0, rel=0.01)
    assert found.memory == pytest.approx(80.0, rel=0.02)
    assert found.exponent == pytest.approx(exponent, rel=0.06)
    assert found.offset_ms == pytest.approx(2.0, abs=0.7)


def test_a_network_that_waits_for_the_processor_is_told_from_one_that_adds_it() -> None:
    hidden = WholeNetworkLatency(20.0, 30.0, 40.0, 1.0, 3.0)(GPU, EMC, CPU) * _scatter(len(GPU))
    found = fit_whole_network(hidden, GPU, EMC, CPU)
    assert found.processor == pytest.approx(40.0, rel=0.02)
    assert mean_absolute_percentage_error(found(GPU, EMC, CPU), hidden) < 0.5
    added = fit_whole_network(hidden, GPU, EMC, CPU, additive=True)
    assert mean_absolute_percentage_error(added(GPU, EMC, CPU), hidden) > 5


def test_one_spoilt_point_moves_a_fit_little() -> None:
    gpu, emc = GPU[TWO_CLOCKS], EMC[TWO_CLOCKS]
    latency_ms = WholeNetworkLatency(60.0, 80.0, 0.0, 2.0, 3.0)(gpu, emc)
    spoilt = latency_ms.copy()
    spoilt[5] *= 1.3
    found = fit_whole_network(spoilt, gpu, emc)
    others = np.arange(len(gpu)) != 5
    assert mean_absolute_percentage_error(found(gpu, emc)[others], latency_ms[others]) < 0.3


def test_sum_fit_recovers_coefficients_and_keeps_them_positive() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.uniform(1, 100, 50), rng.uniform(1, 100, 50)
    assert fit_sum([x, y], 2.0 * x + 0.3 * y) == pytest.approx([2.0, 0.3])
    assert fit_sum([x, y], 5.0 * x - 0.01 * y)[1] == 0.0


def test_layer_fit_recovers_both_efficiencies() -> None:
    layers = torchvision_layers("resnet18")
    gpu, emc = GPU[TWO_CLOCKS], EMC[TWO_CLOCKS]
    true = LayerLatency(0.4, 0.2, 0.5, 3.0, 1024, 32)
    latency_ms = true(layers, gpu, emc) * _scatter(len(gpu))
    found = fit_layers(latency_ms, layers, gpu, emc, flop_per_cycle=1024, bytes_per_cycle=32)
    assert found.efficiency_compute == pytest.approx(0.4, rel=0.02)
    assert found.efficiency_memory == pytest.approx(0.2, rel=0.03)
    assert found.offset_ms == pytest.approx(0.5, abs=0.3)


def test_power_fit_recovers_what_always_flows_and_what_switches() -> None:
    ghz = np.linspace(0.1, 1.3, 13)
    v_squared = 1 + np.maximum(0.0, ghz - 0.6) * 1.5
    latency_ms = 60 / ghz + 20
    true = ModulePower(3.0, 300.0, 1.5, 120.0)
    found = fit_module_power(true(ghz, v_squared, latency_ms), ghz, v_squared, latency_ms)
    assert (found.base_w, found.arithmetic_mj) == pytest.approx((3.0, 300.0), rel=1e-3)
    assert (found.cycle_w_per_ghz, found.traffic_mj) == pytest.approx((1.5, 120.0), rel=1e-3)


@pytest.mark.parametrize(
    ("name", "gmac", "million_weights"), [("resnet50", 4.09, 25.5), ("vgg19", 19.63, 143.65)]
)
def test_layers_are_those_of_the_published_networks(name: str, gmac: float, million_weights: float) -> None:
    """Against the published counts; biases and batch norms are not layers of their own."""
    layers = torchvision_layers(name)
    assert sum(layer.macs for layer in layers) / 1e9 == pytest.approx(gmac, rel=2e-3)
    assert sum(layer.params for layer in layers) / 1e6 == pytest.approx(million_weights, rel=2e-3)
    assert layers[0].in_shape == (3, 224, 224)
    assert layers[-1].out_shape == (1000, 1, 1)
    first = layers[0]
    moved = np.prod(first.in_shape) + np.prod(first.out_shape) + first.params
    assert first.bytes_moved == 2 * moved


def _benchmark(*options: str) -> dict[str, object]:
    command = [sys.executable, str(ROOT / "benchmarks" / "simulator_fit.py"), "--quick", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_public_sweeps_hold_the_limits() -> None:
    if not DATA.exists():
        pytest.skip("the public measurements are not beside the repository")
    result = _benchmark()
    assert result["holds"] is True
    figures = result["figures"]
    assert isinstance(figures, dict)
    networks = ("inception_v4", "resnet50", "tiny-yolov3", "vgg19")
    assert all(0.1 < figures[f"whole_network_mape/{name}"] <= 1 for name in networks)
    assert all(
        2 * figures[f"whole_network_mape/{name}"] < figures[f"whole_network_sum_mape/{name}"]
        for name in networks
    )
    assert figures["efficiency_compute/resnet50"] == pytest.approx(0.378, rel=0.02)
    assert figures["efficiency_compute/vgg19"] == pytest.approx(0.677, rel=0.02)
    assert figures["vgg19_energy_measured_minimum_mj"] == pytest.approx(1011, abs=1)


def test_without_the_sweeps_nothing_is_claimed(tmp_path: Path) -> None:
    result = _benchmark("--data", str(tmp_path))
    assert result["holds"] is None
    assert len(result["not_judged"]) == 3  # type: ignore[arg-type]
