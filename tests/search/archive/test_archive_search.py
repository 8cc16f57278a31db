import dataclasses
import json

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from hadas.errors import InfeasibleError, SpaceError, StudyError
from hadas.search.archive import (
    ArchiveSettings,
    Evaluation,
    Judgement,
    Proposals,
    archive_search,
    propose,
    seed_genomes,
)
from hadas.search.archive.searching import all_genomes, opinions
from hadas.search.metrics import HypervolumeReference
from hadas.search.strategies import STRATEGIES
from hadas.spaces import Variable


def within(evaluations):
    return {e.genome for e in evaluations}


def test_it_needs_far_fewer_evaluations_than_random_choice_for_nearly_the_whole_front(
    six_genes, small, known_world, exact
):
    settings = dataclasses.replace(small, generations=61, rounds=9)  # few enough designs to look through
    for seed in (0, 1):
        result = archive_search(six_genes, known_world(kind="gp"), settings, seed)
        whole = result.reference.hypervolume(exact)
        share = np.array(result.history) / whole
        order = np.random.default_rng(seed).permutation(len(exact))
        needed = 8 + 4 * int(np.argmax(share >= 0.99))
        assert share[-1] >= 0.99
        # Random choice is not there after three times as many.
        assert result.reference.hypervolume(exact[order[: 3 * needed]]) < 0.99 * whole
        # What counts are distinct designs, each evaluated once.
        assert len(within(result.evaluations)) == len(result.evaluations) == 8 + 4 * 9


def test_a_killed_search_goes_on_to_the_same_result_without_evaluating_anything_twice(
    six_genes, small, known_world
):
    in_one_go = archive_search(six_genes, known_world(), small, 1)
    killed = known_world(stop_after=14)
    with pytest.raises(KeyboardInterrupt):
        archive_search(six_genes, killed, small, 1)
    assert len(killed.kept) == 14
    # What comes in another order, and on another number of threads, changes nothing either.
    resumed = dataclasses.replace(killed, stop_after=None, backwards=True)
    with threadpool_limits(limits=2):
        again = archive_search(six_genes, resumed, small, 1)
    assert again == in_one_go
    assert len(killed.kept) == len(in_one_go.evaluations) == 8 + 3 * 4
    assert archive_search(six_genes, known_world(), small, 2).evaluations != in_one_go.evaluations


def test_plans_that_were_kept_are_not_made_again(six_genes, small, known_world):
    plans: dict[int, str] = {}
    result = archive_search(
        six_genes,
        known_world(),
        small,
        1,
        on_plan=lambda r, plan: plans.update({r: json.dumps(plan.to_json())}),
    )
    assert list(plans) == [1, 2, 3]
    kept = [Proposals.from_json(json.loads(plan)) for plan in plans.values()]
    world, made = known_world(), []
    world.fit = made.append  # nothing is fitted any more
    again = archive_search(six_genes, world, small, 1, planned=kept, on_plan=lambda r, _: made.append(r))
    assert again == result
    assert not made
    with pytest.raises(StudyError, match="not whole: 'n_pool'"):
        Proposals.from_json({"chosen": []})


def test_history_never_falls_and_rounds_keep_what_was_believed_before_they_came_out(
    six_genes, small, known_world, exact
):
    seen = []
    result = archive_search(six_genes, known_world(), small, 3, on_round=seen.append)
    assert seen == list(result.rounds)
    assert list(result.history) == sorted(result.history)
    done = list(result.rounds[0].evaluations)
    seeds = np.array([e.points for e in done])
    assert result.reference == HypervolumeReference.from_front(seeds, known_world.columns)
    hits = []
    for one in result.rounds[1:]:
        # The same batch, asked for with nothing but what was known then.
        beliefs = known_world().fit(done)
        genomes = np.array([p.genome for p in one.proposals.chosen])
        mean = beliefs.mean(genomes).points
        assert [e.genome for e in one.evaluations] == [tuple(g) for g in genomes.tolist()]
        for proposal, evaluation, expected in zip(one.proposals.chosen, one.evaluations, mean, strict=True):
            assert proposal.mean == pytest.approx(expected)
            assert proposal.low_90[0] < proposal.median[0] < proposal.high_90[0]
            assert proposal.low_90[1] == proposal.high_90[1] == pytest.approx(evaluation.points[1])
            hits.append(proposal.low_90[0] <= evaluation.points[0] <= proposal.high_90[0])
        done += one.evaluations
        points = np.array([e.points for e in done])
        assert one.hypervolume == pytest.approx(result.reference.hypervolume(points))
    # Energy is known, so it always comes out as believed.
    assert result.coverage_90() == (pytest.approx(np.mean(hits)), 1.0)
    points = np.array([e.points for e in result.evaluations])
    for member in result.front:
        better = (points <= member.points).all(axis=1) & (points < member.points).any(axis=1)
        assert not better.any()


def test_intervals_hold_the_noise_of_an_evaluation_where_beliefs_know_it(six_genes, small, known_world):
    class Noisy:
        def __init__(self, inner):
            self.mean, self.draws = inner.mean, inner.draws

        def outcomes(self, genomes, n_draws, seed):
            drawn = self.draws(genomes, n_draws, seed)
            noise = np.random.default_rng(seed).standard_normal(drawn.points.shape[:2])
            points = drawn.points.copy()
            points[..., 0] *= np.exp(0.5 * noise)
            return Judgement(points, drawn.excess)

    world, noisy = known_world(), known_world()
    noisy.fit = lambda evaluations: Noisy(world.fit(evaluations))
    plain, wide = (
        archive_search(six_genes, one, dataclasses.replace(small, rounds=1), 0).rounds[1].proposals.chosen
        for one in (world, noisy)
    )
    assert [p.genome for p in wide] == [p.genome for p in plain]
    assert [p.expected_gain for p in wide] == [p.expected_gain for p in plain]
    for narrow, other in zip(plain, wide, strict=True):
        assert other.high_90[0] / other.low_90[0] > 2.0 * narrow.high_90[0] / narrow.low_90[0]


def test_limits_are_kept_to_and_found_where_no_seed_meets_them(six_genes, small, known_world, exact):
    world = known_world(max_energy_mj=2.0)
    unlucky = [genome for genome in all_genomes(six_genes) if genome.min() >= 1][:8]
    seen = []
    settings = dataclasses.replace(small, rounds=4)
    result = archive_search(six_genes, world, settings, 0, initial=unlucky, on_round=seen.append)
    assert not any(e.feasible for e in seen[0].evaluations)
    assert {p.why for p in seen[1].proposals.chosen} == {"feasibility"}
    assert seen[0].hypervolume == 0.0 < result.history[-1]
    assert all(e.points[1] <= 2.0 for e in result.front)
    allowed = exact[exact[:, 1] <= 2.0]
    assert result.history[-1] >= 0.95 * result.reference.hypervolume(allowed)


def test_limits_that_nothing_meets_are_named_with_how_close_the_best_came(six_genes, small, known_world):
    seen = []
    with pytest.raises(
        InfeasibleError, match=r"energy at most 0.5 mJ \(the best misses it by 100 % of it\)"
    ) as found:
        archive_search(six_genes, known_world(max_energy_mj=0.5), small, 0, on_round=seen.append)
    assert found.value.constraints == ("energy at most 0.5 mJ",)
    assert "20 evaluated designs" in str(found.value)
    assert len(seen) == 4
    # The design that misses it least was found, though none meets it.
    assert (0,) * 6 in within(e for one in seen for e in one.evaluations)


def test_what_failed_stays_with_its_reason_and_is_not_asked_for_again(six_genes, small, known_world):
    whole = archive_search(six_genes, known_world(), small, 4)
    first_chosen = whole.rounds[1].evaluations[0].genome
    fails = frozenset({first_chosen, whole.evaluations[0].genome})
    result = archive_search(six_genes, known_world(fails=fails), small, 4)
    failed = [e for e in result.evaluations if e.failed]
    assert {e.genome for e in failed} >= {whole.evaluations[0].genome}
    assert {e.reason for e in failed} == {"diverged"}
    assert all(not e.points for e in failed)
    assert len(within(result.evaluations)) == len(result.evaluations)
    assert not within(result.front) & fails
    everything = frozenset(tuple(g) for g in all_genomes(six_genes).tolist())
    with pytest.raises(StudyError, match="all 8 seeds failed, the first with: diverged"):
        archive_search(six_genes, known_world(fails=everything), small, 4)


@dataclasses.dataclass
class Line:
    """A space of few designs."""

    n: int
    name: str = "line"

    @property
    def variables(self):
        return (Variable("a.x", tuple(range(self.n))), *(Variable(f"none.{i}", (0,)) for i in range(5)))

    def sample(self, n, rng):
        return np.concatenate([rng.integers(0, self.n, (n, 1)), np.zeros((n, 5), dtype=np.int64)], axis=1)


def test_a_space_that_is_used_up_ends_the_search(small, known_world):
    result = archive_search(Line(3), known_world(), dataclasses.replace(small, seeds=2), 0)
    assert len(result.evaluations) == 3
    assert result.ended == "all 3 designs of the space 'line' are evaluated"
    assert len(archive_search(Line(3), known_world(), small, 0).evaluations) == 3


def test_it_stops_when_nothing_is_expected_to_be_gained(six_genes, small, known_world, exact):
    settings = dataclasses.replace(small, rounds=30, stop_gain=0.5, stop_rounds=2)
    result = archive_search(six_genes, known_world(), settings, 0)
    assert 2 <= len(result.rounds) < 6
    assert "less than 50 % each" in result.ended
    for one in result.rounds[2:]:
        last = result.rounds[one.number - 1]
        gains = (last.proposals.expected_gain / last.hypervolume_before,
                 one.proposals.expected_gain / one.hypervolume_before)  # fmt: skip
        assert max(gains) >= 0.5


def test_the_caller_may_end_it_after_any_round(six_genes, small, known_world):
    for last in (0, 2):
        result = archive_search(
            six_genes,
            known_world(),
            small,
            0,
            on_round=lambda r, n=last: "time is up" if r.number == n else None,
        )
        assert len(result.rounds) == last + 1
        assert result.ended == "time is up"


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name not in ("hvi", "qlognehvi")])
def test_any_strategy_can_choose_the_batch(name, six_genes, small, known_world):
    settings = dataclasses.replace(small, rounds=1, strategy=name, searched_draws=0)
    result = archive_search(six_genes, known_world(), settings, 0)
    assert {p.why for p in result.rounds[1].proposals.chosen} == {name}
    assert len(result.evaluations) == 12


def test_dear_designs_are_passed_by_for_cheap_ones(six_genes, small, known_world):
    world = known_world()
    result = archive_search(six_genes, world, dataclasses.replace(small, rounds=0), 0)
    dear = known_world(item_s=lambda genomes: np.where(genomes[:, 0] > 0, 1e6, 1.0))
    ask = dataclasses.replace(small, information_share=0.0)
    known = (result.evaluations, result.reference, ask, 5)
    assert any(p.genome[0] > 0 for p in propose(six_genes, world, *known).chosen)
    assert all(p.genome[0] == 0 for p in propose(six_genes, dear, *known).chosen)


def test_a_search_on_beliefs_finds_what_looking_through_all_of_them_finds(six_genes, small, known_world):
    world = known_world()
    result = archive_search(six_genes, world, dataclasses.replace(small, rounds=0), 0)
    beliefs = world.fit(result.evaluations)
    searched, looked_through = (
        opinions(six_genes, beliefs, result.reference, dataclasses.replace(small, generations=n), 0, ())
        for n in (25, 61)
    )
    assert len(looked_through[0].genomes) == 729 > len(searched[0].genomes)
    for ours, exact in zip(searched, looked_through, strict=True):
        volumes = [result.reference.transformed_hypervolume(opinion.points) for opinion in (ours, exact)]
        assert volumes[0] >= 0.98 * volumes[1]
        # Both see the same world: the same genome has the same value.
        rows = np.ravel_multi_index(tuple(ours.genomes.T), (3,) * 6)
        np.testing.assert_allclose(ours.points, exact.points[rows], rtol=1e-9)


def test_seeds_begin_with_what_is_asked_for_and_lie_apart(six_genes):
    wished = [np.array([0, 0, 0, 0, 0, 0]), np.array([2, 1, 0, 1, 2, 0])]
    seeds = seed_genomes(six_genes, 12, 7, wished)
    assert len(seeds) == 12
    assert np.array_equal(seeds[:2], wished)

    def least_distance(genomes):
        differ = (genomes[:, None] != genomes[None]).sum(axis=2)
        return differ[~np.eye(len(genomes), dtype=bool)].min()

    blind = [least_distance(six_genes.sample(12, np.random.default_rng(i))) for i in range(20)]
    assert least_distance(seeds) > max(blind)
    # Every choice of every gene is seen.
    assert all(len(set(column.tolist())) == 3 for column in seeds.T)
    assert len(seed_genomes(six_genes, 1, 7, wished)) == 2
    with pytest.raises(SpaceError, match=r"initial genome \[0, 0, 3, 0, 0, 0\]: space 'six'"):
        seed_genomes(six_genes, 4, 7, [np.array([0, 0, 3, 0, 0, 0])])


def test_violation_is_what_is_missed_in_sum():
    judged = Judgement(np.ones((2, 3, 2)), np.array([[[-0.5, -0.1], [0.2, -1.0], [0.1, 0.3]]] * 2))
    np.testing.assert_allclose(judged.violation, [[0.0, 0.2, 0.4]] * 2)
    assert judged.feasible.tolist() == [[True, False, False]] * 2
    assert Judgement(np.ones((3, 2))).feasible.all()
    assert Evaluation((0,), (1.0,), (0.2, -1.0, 0.1)).violation == pytest.approx(0.3)
    assert not Evaluation((0,), reason="no").feasible


def test_what_does_not_fit_is_refused(six_genes, small, known_world):
    for change, message in (
        ({"seeds": 1}, "'seeds' = 1: must be at least 2"),
        ({"batch": 0}, "'batch' = 0"),
        ({"information_share": 1.5}, "information_share = 1.5"),
        ({"strategy": "hv"}, "no strategy 'hv'"),
    ):
        with pytest.raises(StudyError, match=message):
            ArchiveSettings(**change)
    with pytest.raises(StudyError, match="must be finite numbers"):
        Evaluation((0, 0), (float("nan"), 1.0))
    with pytest.raises(StudyError, match=r"excess of shape \(2, 1\)"):
        Judgement(np.ones((3, 2)), np.ones((2, 1)))
    world = known_world(max_energy_mj=3.0, columns=known_world.columns[:1])
    with pytest.raises(StudyError, match="2 objectives and 1 limits; the problem names 1 and 1"):
        archive_search(six_genes, world, small, 0)
    half = known_world()
    half.evaluate = lambda genomes: known_world().evaluate(genomes[::2])
    with pytest.raises(StudyError, match="8 genomes were to be evaluated, 4 of them were"):
        archive_search(six_genes, half, small, 0)
