from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logit
from threadpoolctl import threadpool_limits

from hadas.errors import ModelError
from hadas.surrogates.exit_inputs import ExitInputs, exit_rows, network_rows
from hadas.surrogates.joint_exits import ErrorCorrelation, JointExitModel

MACS = np.array([2.0, 7.0, 15.0, 25.0, 40.0, 80.0, 195.0])
N_SAMPLES = 4000


def networks(n, seed, thresholds=False):
    """Random exits, head types and bits; the final exit is the last of ``MACS``."""
    rng = np.random.default_rng([7, seed])
    n_exits, macs, layers, steps, head_bits = [], [], [], [], []
    for _ in range(n):
        used = np.append(np.flatnonzero(rng.uniform(size=len(MACS) - 1) < 0.5), len(MACS) - 1)
        n_exits.append(len(used))
        macs.append(MACS[used])
        layers.append(rng.integers(1, 3, len(used)))
        steps.append(np.full(len(used), 2.0 ** -rng.choice([4.0, 8.0])))
        head_bits.append(np.full(len(used), rng.choice([4, 8])))
    threshold = rng.choice([0.7, 0.8, 0.9, 0.95], n) if thresholds else None
    flat = [np.concatenate(part).astype(float) for part in (macs, layers, steps, head_bits)]
    return ExitInputs(np.array(n_exits), *flat, threshold)


def truth(inputs):
    """Accuracy (n,) and shares (n, e_max) of a world in which what leaves is a matter of depth, head and bits."""
    threshold = np.full(len(inputs), 0.85) if inputs.threshold is None else inputs.threshold
    ease = 3.0 + 0.9 * np.log(inputs.backbone_macs / MACS[-1]) + 0.2 * inputs.head_layers
    ease += 0.3 * np.log2(-np.log2(inputs.segment_step) / 8.0) - 0.6 * logit(threshold)[inputs.network]
    left = np.where(inputs.is_early, expit(ease), 1.0)
    shares = np.diff(inputs.padded(left, 1.0), axis=1, prepend=0.0)
    early = shares[np.arange(len(inputs)), inputs.n_exits - 1]
    accuracy = 0.8 + 0.1 * early + 0.02 * logit(threshold)
    return accuracy, shares


def measured(inputs, seed):
    """The truth, seen on ``N_SAMPLES`` samples."""
    rng = np.random.default_rng([8, seed])
    accuracy, shares = truth(inputs)
    counts = np.stack([rng.multinomial(N_SAMPLES, row / row.sum()) for row in shares])
    return rng.binomial(N_SAMPLES, accuracy) / N_SAMPLES, counts / N_SAMPLES


def fitted(n=40, seed=0, thresholds=False, **given):
    inputs = networks(n, seed, thresholds)
    return JointExitModel(seed=3, **given).fit(inputs, *measured(inputs, seed), np.full(n, N_SAMPLES))


@pytest.fixture(scope="module")
def model():
    return fitted()


def test_segments_and_indices_of_ragged_networks():
    inputs = ExitInputs(
        np.array([1, 3]), np.array([10.0, 2.0, 5.0, 10.0]), np.ones(4), np.full(4, 2.0**-8), np.full(4, 8.0)
    )
    assert inputs.network.tolist() == [0, 1, 1, 1]
    assert inputs.index.tolist() == [0, 0, 1, 2]
    assert inputs.is_early.tolist() == [False, True, True, False]
    assert inputs.segment_macs.tolist() == [10.0, 2.0, 3.0, 5.0]
    assert inputs.padded(np.arange(4.0), -1.0).tolist() == [[0.0, -1.0, -1.0], [1.0, 2.0, 3.0]]


def test_features_of_a_network_do_not_depend_on_the_others():
    inputs = networks(12, 5)
    together, whole = exit_rows(inputs), network_rows(inputs)
    start = 0
    for k in range(len(inputs)):
        alone = inputs.take(np.array([k]))
        stop = start + int(alone.n_exits[0]) - 1
        np.testing.assert_allclose(exit_rows(alone), together[start:stop], atol=1e-12)
        np.testing.assert_allclose(network_rows(alone)[0], whole[k], atol=1e-12)
        start = stop


def test_placement_tells_mounting_points_apart_and_nothing_else():
    inputs = networks(60, 6)
    other_heads = replace(inputs, head_layers=3.0 - inputs.head_layers)
    np.testing.assert_array_equal(inputs.placement(), other_heads.placement())
    used = [tuple(inputs.backbone_macs[inputs.network == k]) for k in range(len(inputs))]
    same = inputs.placement()[:, None] == inputs.placement()
    np.testing.assert_array_equal(same, [[a == b for a in used] for b in used])


@pytest.mark.parametrize("thresholds", [False, True])
def test_beats_the_mean_by_far_on_networks_not_seen(thresholds):
    inputs = networks(30, 1, thresholds)
    accuracy, shares = truth(inputs)
    found, found_shares = fitted(thresholds=thresholds).mean(inputs)
    assert np.abs(found - accuracy).mean() < 0.4 * np.abs(accuracy - accuracy.mean()).mean()
    by_count = np.stack([shares[inputs.n_exits == count].mean(axis=0) for count in inputs.n_exits])
    assert np.abs(found_shares - shares).sum() < 0.4 * np.abs(by_count - shares).sum()


def test_shares_add_up_to_one_and_end_with_the_network(model):
    inputs = networks(25, 2)
    _, mean = model.mean(inputs)
    draws = model.draws(inputs, 30, 0, noise=True)
    past = np.arange(inputs.n_exits.max()) >= inputs.n_exits[:, None]
    for shares in (mean, draws.shares):
        np.testing.assert_allclose(shares.sum(axis=-1), 1.0, atol=1e-12)
        assert (shares >= 0).all()
        assert (shares[..., past] == 0).all()


def test_a_network_without_early_exits_keeps_all_samples(model):
    static = ExitInputs(np.array([1]), MACS[-1:], np.ones(1), np.full(1, 2.0**-8), np.full(1, 8.0))
    assert model.mean(static)[1].tolist() == [[1.0]]
    assert (model.draws(static, 5, 0).shares == 1.0).all()
    accuracy = model.draws(static, 50, 0).accuracy
    assert 0.5 < accuracy.min() < accuracy.max() < 1.0


def test_a_draw_is_a_function_of_the_network(model):
    inputs = networks(20, 3)
    some = np.array([4, 11, 17])
    together, alone = model.draws(inputs, 16, 5), model.draws(inputs.take(some), 16, 5)
    np.testing.assert_allclose(alone.accuracy, together.accuracy[:, some], atol=1e-9)
    width = alone.shares.shape[2]
    np.testing.assert_allclose(alone.shares, together.shares[:, some, :width], atol=1e-9)
    assert np.abs(model.draws(inputs, 16, 6).accuracy - together.accuracy).max() > 1e-4


def test_draws_scatter_about_the_means(model):
    inputs = networks(15, 4)
    (accuracy, shares), draws = model.mean(inputs), model.draws(inputs, 1500, 1, noise=True)
    accuracy_sd, shares_sd = draws.accuracy.std(axis=0), draws.shares.std(axis=0)
    assert np.abs(draws.accuracy.mean(axis=0) - accuracy).max() < 0.2 * accuracy_sd.max()
    assert np.abs(draws.shares.mean(axis=0) - shares).max() < 0.3 * shares_sd.max()


def test_intervals_hold_measurements_not_seen(model):
    inputs = networks(80, 9)
    accuracy, shares = measured(inputs, 9)
    draws = model.draws(inputs, 400, 2, noise=True)
    used = (np.arange(shares.shape[1]) < inputs.n_exits[:, None]) & (inputs.n_exits > 1)[:, None]
    for drawn, real in ((draws.accuracy, accuracy), (draws.shares[:, used], shares[used])):
        low, high = np.quantile(drawn, [0.05, 0.95], axis=0)
        assert np.mean((low <= real) & (real <= high)) > 0.78


def test_correlation_of_errors_is_found_and_drawn_again():
    rng = np.random.default_rng(0)
    network = np.repeat(np.arange(4000), 3)
    common, own = rng.standard_normal(4000), rng.standard_normal(len(network))
    shared = rng.standard_normal(4000)
    left = 0.6 * common[network] + 0.4 * shared[network] + np.sqrt(1 - 0.36 - 0.16) * own
    found = ErrorCorrelation.of(common, left, network)
    assert found.with_accuracy == pytest.approx(0.6, abs=0.03)
    assert found.within_network == pytest.approx(0.52, abs=0.03)
    model, inputs = fitted(), networks(30, 4)
    model.correlation = ErrorCorrelation(0.8, 0.8)
    draws = model.draws(inputs, 600, 0)
    early = draws.shares[:, :, 0][:, inputs.n_exits > 1]
    accuracy = draws.accuracy[:, inputs.n_exits > 1]
    together = [np.corrcoef(a, b)[0, 1] for a, b in zip(accuracy.T, early.T, strict=True)]
    assert np.median(together) == pytest.approx(0.8, abs=0.1)


def test_what_another_measurement_differs_by_goes_together_likewise():
    model, inputs = fitted(), networks(40, 4)
    many = inputs.n_exits > 2

    def noise(correlation):
        """What measuring adds to the accuracy and to what has left by the first two exits, (s, n) each."""
        model.correlation = correlation
        sure, seen = (model.draws(inputs, 600, 0, noise=noisy) for noisy in (False, True))
        left = [np.clip(np.cumsum(d.shares, axis=-1)[:, many, :2], 1e-9, 1 - 1e-9) for d in (sure, seen)]
        of_exits = logit(left[1]) - logit(left[0])
        return (logit(seen.accuracy) - logit(sure.accuracy))[:, many], of_exits[..., 0], of_exits[..., 1]

    def together(a, b):
        return np.median([np.corrcoef(x, y)[0, 1] for x, y in zip(a.T, b.T, strict=True)])

    accuracy, one, two = noise(ErrorCorrelation(0.8, 0.9))
    assert together(accuracy, one) == pytest.approx(0.8, abs=0.05)
    assert together(one, two) == pytest.approx(0.9, abs=0.05)
    accuracy, one, two = noise(ErrorCorrelation(0.0, 0.5))
    assert together(accuracy, one) == pytest.approx(0.0, abs=0.05)
    assert together(one, two) == pytest.approx(0.5, abs=0.07)


def test_a_training_told_twice_counts_once(model):
    inputs = networks(40, 0)
    accuracy, shares = measured(inputs, 0)
    twice = np.concatenate([np.arange(40), np.arange(10, 30)])
    again = JointExitModel(seed=3).fit(
        inputs.take(twice), accuracy[twice], shares[twice], np.full(60, N_SAMPLES)
    )
    asked = networks(10, 2)
    np.testing.assert_array_equal(again.draws(asked, 20, 0).accuracy, model.draws(asked, 20, 0).accuracy)
    assert again.correlation == model.correlation


def test_the_step_of_a_backbone_is_the_mean_over_its_work():
    inputs = ExitInputs(
        np.array([2, 2]), np.tile([2.0, 9.0], 2), np.ones(4), np.array([2.0**-4, 2.0**-4, 2.0**-4, 2.0**-8]), np.ones(4)
    )  # fmt: skip
    np.testing.assert_allclose(network_rows(inputs)[:, 9], [2.0**-4, (2 * 2.0**-4 + 7 * 2.0**-8) / 9])
    np.testing.assert_array_equal(exit_rows(inputs)[:, 3], [2.0**-4, 2.0**-4])


def test_an_exit_is_told_how_many_chances_to_leave_there_were_before():
    inputs = ExitInputs(
        np.array([1, 4]), np.array([40.0, 2.0, 5.0, 10.0, 40.0]), np.array([1.0, 2.0, 1.0, 1.0, 1.0]),
        np.full(5, 2.0**-8), np.full(5, 8.0),
    )  # fmt: skip
    rows = exit_rows(inputs)
    np.testing.assert_allclose(rows[:, 1], [0.0, 2 / 5, 5 / 10])  # where the exit before stands
    np.testing.assert_allclose(rows[:, 5], [0.0, 2 / 5, (2 + 5) / 10])  # work of all before
    np.testing.assert_allclose(rows[:, 6], [0.0, 1.0, 1 / 2])  # of those before, heads of two layers
    np.testing.assert_allclose(rows[:, 7], [2.0, 1.0, 0.0])  # early exits behind it


def test_few_networks_are_enough_to_start_with():
    inputs = networks(3, 11)
    model = JointExitModel(seed=0).fit(inputs, *measured(inputs, 11), np.full(3, N_SAMPLES))
    draws = model.draws(networks(10, 12), 50, 0, noise=True)
    assert np.isfinite(draws.accuracy).all()
    assert np.isfinite(draws.shares).all()
    assert (draws.accuracy.std(axis=0) > 0).all()


def test_results_do_not_depend_on_threads():
    inputs = networks(50, 13)
    found = []
    for limit in (1, 2):
        with threadpool_limits(limits=limit):
            draws = fitted(25).draws(inputs, 20, 0)
            found.append((draws.accuracy, draws.shares))
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)


def test_bad_input_is_named(model):
    inputs = networks(6, 14)
    accuracy, shares = measured(inputs, 14)
    wrong = shares.copy()
    wrong[2, 0] += 0.01
    with pytest.raises(ModelError, match="network 2: shares"):
        JointExitModel().fit(inputs, accuracy, wrong, np.full(6, N_SAMPLES))
    with pytest.raises(ModelError, match="network 1: 'accuracy'"):
        JointExitModel().fit(
            inputs, np.where(np.arange(6) == 1, 87.0, accuracy), shares, np.full(6, N_SAMPLES)
        )
    with pytest.raises(ModelError, match="must rise"):
        replace(inputs, backbone_macs=np.full_like(inputs.backbone_macs, 5.0))
    with pytest.raises(ModelError, match="n_exits"):
        replace(inputs, n_exits=inputs.n_exits[:-1])
    with pytest.raises(ModelError, match="without thresholds, asked about networks with"):
        model.mean(replace(inputs, threshold=np.full(6, 0.9)))
    with pytest.raises(ModelError, match="call fit first"):
        JointExitModel().mean(inputs)
