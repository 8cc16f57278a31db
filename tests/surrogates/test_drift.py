"""The drift test keeps its level, finds what is there, and says how large it is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hadas.surrogates.drift import LEVEL, PredictionErrors, drift_test

NETWORKS, ROWS_EACH, DRAWS = 12, 6, 300


def _world(
    seed: int, *, shift: float = 0.0, network_sd: float = 0.03, row_sd: float = 0.01, common_sd: float = 0.01,
    claimed: float = 1.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Measured values, draws and networks; predictors err in common, per network and per row.

    Args:
        shift: of the device, log scale.
        claimed: the predictors' own standard deviations over the true ones.
    """
    rng = np.random.default_rng([7, seed])
    networks = np.repeat(np.arange(NETWORKS), ROWS_EACH)
    n = len(networks)

    def errors(size: int, scale: float) -> np.ndarray:
        common = rng.standard_normal((size, 1)) * common_sd
        own = (rng.standard_normal((size, NETWORKS)) * network_sd)[:, networks]
        return scale * (common + own + rng.standard_normal((size, n)) * row_sd)

    predicted = rng.uniform(1.0, 5.0, n)
    measured = np.exp(predicted + errors(1, 1.0)[0] + shift)
    return measured, np.exp(predicted + errors(DRAWS, claimed)), networks


def _share_found(n_seeds: int, **world: float) -> float:
    return float(np.mean([drift_test(*_world(seed, **world)).found for seed in range(n_seeds)]))


# Of 200 devices a share of 0.05 may come out as 0.09 by chance (three standard errors).
MOST_BY_CHANCE = LEVEL + 3 * math.sqrt(LEVEL * (1 - LEVEL) / 200)


@pytest.mark.parametrize(
    "world",
    [
        {},
        {"common_sd": 0.0},  # networks err independently
        {"network_sd": 0.0, "common_sd": 0.02},  # all networks err alike, which rows cannot show
        {"common_sd": 0.0, "claimed": 0.3},  # predictors too sure of themselves
        {"claimed": 3.0},  # and too unsure
    ],
)
def test_devices_that_have_not_moved_are_rarely_accused(world: dict[str, float]) -> None:
    assert _share_found(200, **world) <= MOST_BY_CHANCE


def test_forty_devices_that_have_not_moved_give_no_more_alarms_than_the_level_allows() -> None:
    assert _share_found(40) <= 3 / 40


def test_a_shift_of_five_percent_is_found_and_sized() -> None:
    tests = [drift_test(*_world(seed, shift=math.log(1.05))) for seed in range(40)]
    assert np.mean([test.found for test in tests]) >= 0.9
    assert np.mean([test.low_percent <= 5.0 <= test.high_percent for test in tests]) >= 0.9
    assert np.mean([test.shift_percent for test in tests]) == pytest.approx(5.0, abs=0.6)


def test_rows_of_one_network_are_one_piece_of_evidence() -> None:
    """Counted one by one, 72 rows would accuse a device whose networks merely err."""
    rows_alone = []
    for seed in range(100):
        measured, draws, networks = _world(seed, common_sd=0.0, network_sd=0.05, row_sd=0.001)
        residual = np.log(measured) - np.log(draws).mean(axis=0)
        naive = abs(residual.mean()) / (residual.std(ddof=1) / math.sqrt(len(residual)))
        rows_alone.append((naive > 1.96, drift_test(measured, draws, networks).found))
    naive_share, found_share = np.mean(rows_alone, axis=0)
    assert naive_share > 0.3
    assert found_share <= 0.12


def test_a_tiny_shift_in_many_rows_is_found_and_called_small() -> None:
    test = drift_test(*_world(0, shift=0.01, network_sd=0.001, row_sd=0.001, common_sd=0.0005))
    assert test.found
    assert not test.drifted
    assert test.shift_percent == pytest.approx(1.0, abs=0.3)
    assert test.verdict("energy").startswith("shift found but small: energy +")


def test_verdicts_say_what_was_found() -> None:
    drifted = drift_test(*_world(1, shift=math.log(1.12)))
    assert drifted.drifted
    words = drifted.verdict("energy")
    assert words.startswith(f"drift: energy {drifted.shift_percent:+.1f} % (95 % interval ")
    none = drift_test(*_world(2)).verdict("latency")
    assert none.startswith("no drift found: latency ")
    assert "know these networks too little" not in none
    unsure = drift_test(*_world(2, common_sd=0.2, network_sd=0.3)).verdict("latency")
    assert unsure.startswith("no drift found: latency ")
    assert "know these networks too little" in unsure


def test_one_network_is_not_enough_to_tell() -> None:
    measured, draws, networks = _world(0, shift=0.2)
    test = drift_test(measured[:6], draws[:, :6], networks[:6])
    assert math.isnan(test.p_shift)
    assert not test.found
    assert test.verdict("latency").startswith("cannot tell")


def test_scatter_is_told_from_a_shift() -> None:
    """Some networks faster, some slower: no shift, but not the device that was measured before."""
    measured, draws, networks = _world(3, common_sd=0.0)
    shaken = measured * np.exp(0.15 * np.where(networks % 2 == 0, 1.0, -1.0))
    test = drift_test(shaken, draws, networks)
    assert not test.drifted
    assert test.p_scatter < 0.01
    assert test.scatter > 3
    assert "times as much as predicted" in test.verdict("latency")
    alarms = [drift_test(*_world(seed)).p_scatter < 0.01 for seed in range(40)]
    assert sum(alarms) <= 3


def test_networks_weigh_alike_however_many_rows_they_have() -> None:
    draws = np.exp(0.001 * np.random.default_rng(0).standard_normal((200, 12)))
    measured = np.array([1.10] * 10 + [1.0] * 2)
    networks = np.array([0] * 10 + [1, 2])
    assert drift_test(measured, draws, networks).shift_percent == pytest.approx(
        100 * (1.10 ** (1 / 3) - 1), abs=0.1
    )


def test_units_and_order_of_rows_do_not_matter() -> None:
    measured, draws, networks = _world(5, shift=0.03)
    order = np.random.default_rng(0).permutation(len(measured))
    one = drift_test(measured, draws, networks)
    other = drift_test(1000 * measured[order], 1000 * draws[:, order], networks[order] + 40)
    assert [getattr(other, name) for name in ("shift_percent", "p_shift", "scatter")] == pytest.approx(
        [one.shift_percent, one.p_shift, one.scatter]
    )


def test_errors_are_in_percent_of_what_was_predicted() -> None:
    draws = np.tile(np.linspace(90.0, 110.0, 201)[:, None], (1, 3))
    errors = PredictionErrors.of(np.array([110.0, 105.0, 94.0]), draws)
    assert (errors.mape, errors.bias) == (pytest.approx(7.0), pytest.approx(3.0))
    assert errors.coverage_90 == pytest.approx(2 / 3)
