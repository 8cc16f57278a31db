import numpy as np
import pytest

from hadas.errors import ConfigError
from hadas.search.hadas_objectives import Hadas2D
from hadas.search.objectives import Expected, all_masks, evaluate, objective_by_name
from hadas.search.tables import Tables
from hadas.spaces import mini_space


def toy_tables() -> Tables:
    """One backbone, two exit positions, two settings, four samples: small enough for paper."""
    space = mini_space()
    segment = np.array([[[1.0, 2.0], [3.0, 5.0], [4.0, 8.0]]])
    head = np.array([[[0.5, 1.0], [0.25, 0.5]]])
    correct = np.array([[[1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 1, 1]]], dtype=bool)
    leaves = np.array([[[1, 0, 0, 1], [1, 1, 0, 1], [1, 1, 1, 1]]], dtype=bool)
    return Tables(
        (space.smallest,),
        np.array([2]),
        segment,
        2 * segment,
        head,
        2 * head,
        correct,
        leaves,
        1,
        np.array([True]),
    )


def values(objective, mask, setting):
    tables = toy_tables()
    return evaluate(objective, tables, np.array([0]), np.array([mask], dtype=bool), np.array([setting]))[0]


def test_expected_by_hand():
    # Both exits: samples 0, 3 leave first (one right), sample 1 second (right), sample 2 ends (right).
    # Reach 1, 1/2, 1/4; latency = 1*(1+.5) + .5*(3+.25) + .25*4 = 4.125 at setting 0.
    assert values(Expected(with_latency=True), [1, 1], 0) == pytest.approx([0.25, 8.25, 4.125])
    # Second exit only: its head is paid by all, the first head by nobody.
    assert values(Expected(), [0, 1], 1) == pytest.approx([0.25, 2 * (2 + 5 + 0.5 + 0.25 * 8)])
    assert values(Expected(), [0, 0], 0) == pytest.approx([0.25, 16.0])


def test_hadas_2d_by_hand():
    # N = .5, .75; dissim = 1, 1 - .5. E_b = 2*(2+5+8) = 30 at the default setting 1.
    # Setting 0: E_1 = 2*(1+.5) = 3; E_2 = 3 + 2*(3+.25) = 9.5; mean share = 6.25 / 30.
    assert values(Hadas2D(gamma=1.0), [1, 1], 0) == pytest.approx([-(0.5 + 0.75 * 0.5) / 2, 6.25 / 30])
    assert values(Hadas2D(gamma=2.0), [1, 1], 0)[0] == pytest.approx(-(0.5 + 0.75 * 0.25) / 2)
    # The first exit in use has dissim 1, wherever it stands, and an unused head costs nothing.
    assert values(Hadas2D(), [0, 1], 1) == pytest.approx([-0.75, 2 * (2 + 5 + 0.5) / 30])


def test_gamma_zero_is_the_plain_mean_of_exit_fractions():
    assert values(Hadas2D(gamma=0.0), [1, 1], 0)[0] == pytest.approx(-(0.5 + 0.75) / 2)


def test_without_an_energy_counter_latency_takes_its_place(random_tables):
    tables = random_tables(1, energy=False)
    assert not tables.has_energy
    columns = [column.name for column in Expected(with_latency=True).columns(tables.has_energy)]
    assert columns == ["error", "latency_ms"]
    masks, rows = np.zeros((2, 4), dtype=bool), np.array([0, 1])
    points = evaluate(Expected(), tables, rows, masks, rows)
    assert points[:, 1] == pytest.approx([tables.segment_latency_ms[b, :, b].sum() for b in rows])


@pytest.mark.parametrize("objective", [Expected(with_latency=True), Hadas2D(gamma=1.5)])
@pytest.mark.parametrize("seed", range(5))
def test_vectorised_objectives_equal_loops_over_samples(random_tables, objective, seed):
    tables = random_tables(seed)
    rng = np.random.default_rng(seed)
    for backbone in (0, 1):
        p = int(tables.n_positions[backbone])
        for _ in range(6):
            mask = np.zeros(4, dtype=bool)
            mask[:p] = rng.random(p) < 0.5
            if objective.needs_exit:
                mask[0] = True
            setting = int(rng.integers(5))
            got = evaluate(objective, tables, np.array([backbone]), mask[None], np.array([setting]))[0]
            loop = _expected_loop if isinstance(objective, Expected) else _hadas_loop
            assert got == pytest.approx(loop(tables, backbone, mask, setting))


def _path_cost(segment, head, mask, until):
    return sum(segment[j] + (head[j] if j < len(mask) and mask[j] else 0.0) for j in range(until + 1))


def _expected_loop(tables, b, mask, f):
    wrong, energy, latency = 0, 0.0, 0.0
    for sample in range(tables.n_samples):
        at = next((j for j in range(4) if mask[j] and tables.leaves[b, j, sample]), 4)
        wrong += not tables.correct[b, at, sample]
        energy += _path_cost(tables.segment_energy_mj[b, :, f], tables.head_energy_mj[b, :, f], mask, at)
        latency += _path_cost(tables.segment_latency_ms[b, :, f], tables.head_latency_ms[b, :, f], mask, at)
    return [wrong / tables.n_samples, energy / tables.n_samples, latency / tables.n_samples]


def _hadas_loop(tables, b, mask, f):
    fractions, best, scores, shares = tables.correct[b].mean(axis=1), 0.0, [], []
    alone = tables.segment_energy_mj[b, :, tables.default_setting].sum()
    for j in np.flatnonzero(mask):
        scores.append(fractions[j] * (1 - best) ** 1.5)
        best = max(best, fractions[j])
        cost = _path_cost(tables.segment_energy_mj[b, :, f], tables.head_energy_mj[b, :, f], mask, j)
        shares.append(cost / alone)
    return [-np.mean(scores), np.mean(shares)]


@pytest.mark.parametrize("objective", [Expected(), Hadas2D()])
def test_enumerated_terms_equal_those_of_a_population(random_tables, objective):
    tables = random_tables(7)
    for backbone in (0, 1):
        p = int(tables.n_positions[backbone])
        masks = np.zeros((1 << p, 4), dtype=bool)
        masks[:, :p] = all_masks(p)
        population = objective.mask_terms(tables, np.full(1 << p, backbone), masks)
        listed = objective.enumerate_terms(tables, backbone)
        used = np.flatnonzero(masks.any(axis=1) | (not objective.needs_exit))
        assert listed.loss[used] == pytest.approx(population.loss[used])
        assert listed.weight[used] == pytest.approx(population.weight[used][:, [*range(p), -1]])


def test_unknown_objective_is_named():
    with pytest.raises(ConfigError, match="no objective 'accuracy'"):
        objective_by_name("accuracy")
