import itertools

import numpy as np
import pytest

from hadas.errors import StudyError
from hadas.search.acquisition import UnitCosts, candidate_pool, covering_reference, suggest
from hadas.search.baselines import random_designs
from hadas.search.designs import Design
from hadas.search.metrics import HypervolumeReference
from hadas.search.objectives import Column
from hadas.search.outcomes import OutcomeLibrary
from hadas.search.outer import nested_search, search_settings
from hadas.search.world import design_draws

REFERENCE = HypervolumeReference(("error", "energy_mj"), (False, True), (0.6, float(np.log(20.0))))
MEASURED = np.array([[0.30, 4.0], [0.20, 8.0]])


@pytest.fixture
def pool(synthetic_world):
    """30 designs on 10 backbones."""
    table, space = synthetic_world.clock_table, synthetic_world.space
    designs = random_designs(space, table, 30, 3)
    return [
        Design(designs[i % 10].backbone, designs[i % 10].exits, table.settings[i // 10]) for i in range(30)
    ]


@pytest.fixture
def draws():
    rng = np.random.default_rng(2)
    centre = np.stack([rng.uniform(0.12, 0.4, 30), rng.uniform(2, 12, 30)], axis=1)
    return centre * np.exp(0.15 * rng.normal(size=(16, 30, 2)))


def volume(points):
    """Area under the reference, cell by cell between the points' coordinates."""
    logged = np.stack([points[:, 0], np.log(points[:, 1])], axis=1)
    xs = np.unique(np.append(logged[:, 0], REFERENCE.point[0]))
    total = 0.0
    for left, right in itertools.pairwise(xs):
        if right > REFERENCE.point[0]:
            break
        best = logged[logged[:, 0] <= left, 1].min(initial=np.inf)
        total += (right - left) * max(0.0, REFERENCE.point[1] - best)
    return total


def full_greedy(pool, draws, costs, known, n, extra=None):
    """Every gain anew at every step, straight from the definition."""
    sets = [MEASURED if extra is None else np.concatenate([MEASURED, extra[s]]) for s in range(len(draws))]
    paid, chosen = set(known), []
    for _ in range(n):
        best = None
        for j, design in enumerate(pool):
            if any(j == c[0] for c in chosen):
                continue
            gain = np.mean(
                [volume(np.vstack([base, draws[s, j]])) - volume(base) for s, base in enumerate(sets)]
            )
            cost = costs.device_s + (costs.accuracy_s if design.backbone.arch_id not in paid else 0.0)
            if best is None or gain / cost > best[1] / best[2] + 1e-15:
                best = (j, gain, cost)
        chosen.append(best)
        paid.add(pool[best[0]].backbone.arch_id)
        sets = [np.vstack([base, draws[s, best[0]]]) for s, base in enumerate(sets)]
    return chosen


@pytest.mark.parametrize("accuracy_s", [0.0, 40.0])
@pytest.mark.parametrize("with_pending", [False, True])
def test_lazy_greedy_equals_full_greedy_by_definition(pool, draws, accuracy_s, with_pending):
    costs, known = UnitCosts(20.0, accuracy_s), {pool[0].backbone.arch_id, pool[4].backbone.arch_id}
    pending = draws[:, [7]] * 0.9 if with_pending else None
    expected = full_greedy(pool, draws, costs, known, 6, pending)
    got = suggest(
        pool, draws, measured=MEASURED, reference=REFERENCE, measured_backbones=known, costs=costs,
        batch=6, pending_draws=pending, information_share=0.0, lookahead=1,
    )  # fmt: skip
    assert [s.design for s in got] == [pool[j] for j, _, _ in expected]
    assert [s.expected_gain for s in got] == pytest.approx([gain for _, gain, _ in expected])
    assert [s.cost_s for s in got] == [cost for _, _, cost in expected]


def test_a_pending_design_is_not_suggested_in_spirit_again(pool, draws):
    arguments = {
        "measured": MEASURED, "reference": REFERENCE, "measured_backbones": set(), "costs": UnitCosts(1, 0),
        "batch": 1, "information_share": 0.0,
    }  # fmt: skip
    first = suggest(pool, draws, **arguments)[0]
    best = pool.index(first.design)
    again = suggest(pool, draws, pending_draws=draws[:, [best]], **arguments)[0]
    assert again.design != first.design


def test_a_dear_accuracy_job_steers_to_measured_backbones(pool, draws):
    known = {pool[3].backbone.arch_id}

    def first(accuracy_s):
        return suggest(
            pool, draws, measured=MEASURED, reference=REFERENCE, measured_backbones=known,
            costs=UnitCosts(10, accuracy_s), batch=1, information_share=0.0,
        )[0]  # fmt: skip

    assert first(0.0).design.backbone.arch_id not in known
    assert first(1e6).design.backbone.arch_id in known
    assert first(1e6).cost_s == 10


@pytest.mark.parametrize(
    ("share", "batch", "n_information"), [(0.25, 4, 1), (0.25, 2, 0), (0.25, 6, 1), (0.5, 3, 1), (1.0, 3, 3)]
)
def test_information_share_is_rounded_down(pool, draws, share, batch, n_information):
    got = suggest(
        pool, draws, measured=MEASURED, reference=REFERENCE, measured_backbones=set(), costs=UnitCosts(1, 1),
        batch=batch, information_share=share,
    )  # fmt: skip
    assert len(got) == batch
    assert [s.why for s in got].count("information") == n_information


def test_when_nothing_improves_the_batch_is_filled_with_information(pool, draws):
    hopeless = draws * [1.0, 50.0]
    got = suggest(
        pool, hopeless, measured=MEASURED, reference=REFERENCE, measured_backbones=set(), costs=UnitCosts(1, 1),
        batch=3, information_share=0.0,
    )  # fmt: skip
    assert [s.why for s in got] == ["information"] * 3
    assert [s.expected_gain for s in got] == [0.0] * 3


def test_bad_costs_and_shares_are_named(pool, draws):
    with pytest.raises(StudyError, match="'accuracy_s' = nan"):
        UnitCosts(1.0, float("nan"))
    with pytest.raises(StudyError, match="all zero"):
        UnitCosts(0.0, 0.0)
    with pytest.raises(StudyError, match="information_share"):
        suggest(
            pool, draws, measured=MEASURED, reference=REFERENCE, measured_backbones=set(), costs=UnitCosts(1, 1),
            batch=1, information_share=1.5,
        )  # fmt: skip


def test_pool_holds_front_and_parents_of_every_search_but_nothing_excluded(synthetic_world):
    settings = search_settings("smoke")
    results = [nested_search(synthetic_world.space, synthetic_world, settings, seed) for seed in (0, 1)]
    pool = candidate_pool(results, set(), limit=60)
    assert len(pool) == len(set(pool)) <= 60
    for result in results:
        assert {d.backbone for d in pool} >= set(result.population)
    excluded = set(pool[:10])
    assert not excluded & set(candidate_pool(results, excluded, limit=60))


def test_an_empty_pool_suggests_nothing(synthetic_world, formula_predictors):
    library = OutcomeLibrary([synthetic_world.accuracy_record(synthetic_world.space.presets["m0"])])
    draws = formula_predictors.draws(4, 0)
    nothing = design_draws([], draws, synthetic_world.space, library, n_classes=10)
    got = suggest(
        [], nothing.objectives(["error", "energy_mj"]), measured=MEASURED, reference=REFERENCE,
        measured_backbones=set(), costs=UnitCosts(1, 1), batch=3,
    )  # fmt: skip
    assert got == ()


def test_gains_are_measured_to_a_reference_that_covers_candidates_that_keep_to_the_constraints():
    frozen = HypervolumeReference.from_front(
        np.array([[0.10, 40.0], [0.12, 30.0]]), (Column("error", log=False), Column("energy_mj", log=True))
    )
    measured = np.array([[0.10, 40.0], [0.12, 30.0]])
    cheap = np.array([[[0.3, 10.0]], [[0.32, 9.0]], [[0.9, 8.0]]])  # median (0.32, 9)
    moved = covering_reference(frozen, measured, cheap)
    assert moved.point[0] == pytest.approx(0.32 + 0.1 * 0.22)
    rarely, often = (np.array([[True], [keeps], [False]]) for keeps in (False, True))
    assert covering_reference(frozen, measured, cheap, rarely) == frozen
    assert covering_reference(frozen, measured, cheap, often) == moved
    assert covering_reference(frozen, measured[:0], cheap).point[0] > 0.32
