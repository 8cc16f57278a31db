import contextlib
import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest

from hadas.errors import ConfigError
from hadas.search.hadas_objectives import Hadas2D, HadasCode, HadasEq6
from hadas.search.objective_names import objective_by_name
from hadas.search.objectives import Expected, all_masks, evaluate
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


ALL_OBJECTIVES = [
    Expected(with_latency=True),
    Hadas2D(gamma=1.5),
    Hadas2D(gamma=0.5, dissimilarity="joint"),
    HadasEq6(gamma=1.5, ratio="gain"),
    HadasEq6(gamma=0.5, ratio="inverse", dissimilarity="joint"),
    HadasEq6(ratio="literal"),
    HadasCode(),
]


@pytest.mark.parametrize("energy", [True, False])
@pytest.mark.parametrize("objective", ALL_OBJECTIVES, ids=repr)
def test_vectorised_objectives_equal_loops_over_samples(random_tables, objective, energy):
    rng = np.random.default_rng(0)
    for seed in range(3):
        tables = random_tables(seed, energy=energy)
        for backbone in (0, 1):
            p = int(tables.n_positions[backbone])
            for _ in range(6):
                mask = np.zeros(4, dtype=bool)
                mask[:p] = rng.random(p) < 0.5
                if objective.needs_exit:
                    mask[0] = True
                setting = int(rng.integers(5))
                got = evaluate(objective, tables, np.array([backbone]), mask[None], np.array([setting]))[0]
                loop = _expected_loop if isinstance(objective, Expected) else _paper_loop
                assert got == pytest.approx(loop(objective, tables, backbone, mask, setting))
                assert len(got) == len(objective.columns(tables.has_energy))


def _path_cost(segment, head, mask, until):
    return sum(segment[j] + (head[j] if j < len(mask) and mask[j] else 0.0) for j in range(until + 1))


def _paths(tables, b, mask, f, until):
    """Energy (if counted) and latency of everything up to a position, heads in use included."""
    kinds = ("energy_mj", "latency_ms") if tables.has_energy else ("latency_ms",)
    stages = [
        (getattr(tables, f"segment_{k}")[b, :, f], getattr(tables, f"head_{k}")[b, :, f]) for k in kinds
    ]
    return np.array([_path_cost(*stage, mask, until) for stage in stages])


def _expected_loop(objective, tables, b, mask, f):
    wrong, costs = 0, 0.0
    for sample in range(tables.n_samples):
        at = next((j for j in range(4) if mask[j] and tables.leaves[b, j, sample]), 4)
        wrong += not tables.correct[b, at, sample]
        costs = costs + _paths(tables, b, mask, f, at)
    return [wrong / tables.n_samples, *(costs / tables.n_samples)]


def _paper_loop(objective, tables, b, mask, f):
    """Exit by exit, with sets of samples in place of bits."""
    alone = _paths(tables, b, np.zeros(4, dtype=bool), tables.default_setting, 4)
    best, covered, errors, worths, scores, paths = 0.0, set(), [], [], [], []
    for j in np.flatnonzero(mask):
        right = set(np.flatnonzero(tables.correct[b, j]).tolist())
        n = len(right) / tables.n_samples
        if getattr(objective, "dissimilarity", "marginal") == "joint":
            dissim = len(right - covered) / len(right)
        else:
            dissim = 1.0 - best
        best, covered = max(best, n), covered | right
        path = _paths(tables, b, mask, f, j)
        errors.append(1.0 - n)
        paths.append(path)
        worths.append(n * dissim ** getattr(objective, "gamma", 0.0))
        rated = {
            "literal": path / alone,
            "inverse": alone / path,
            "gain": np.maximum(1.0 - path / alone, 0.0),
        }
        scores.append(worths[-1] * np.prod(rated[getattr(objective, "ratio", "gain")]))
    if isinstance(objective, Hadas2D):
        return [-np.mean(worths), np.mean(paths, axis=0)[0] / alone[0]]
    if isinstance(objective, HadasEq6):
        return [-np.mean(scores)]
    return [np.mean(errors), *np.mean(paths, axis=0)]


def test_joint_dissimilarity_adds_up_to_what_an_oracle_lets_leave_right(random_tables):
    tables, rng = random_tables(8), np.random.default_rng(1)
    for _ in range(10):
        mask = np.append(True, rng.random(3) < 0.6)
        point = evaluate(Hadas2D(dissimilarity="joint"), tables, np.array([0]), mask[None], np.array([0]))[0]
        union = tables.correct[0, :4][mask].any(axis=0).mean()
        assert -point[0] * mask.sum() == pytest.approx(union)


def test_gain_never_rewards_two_losses():
    """At clocks at which an exit costs more than the whole backbone in both, nothing is gained."""
    tables = toy_tables()
    dear = dataclasses.replace(
        tables, segment_latency_ms=10 * tables.segment_latency_ms, head_latency_ms=10 * tables.head_latency_ms,
        segment_energy_mj=tables.segment_energy_mj.copy(), default_setting=0,
    )  # fmt: skip
    dear.segment_latency_ms[:, :, 0] /= 10
    dear.segment_energy_mj[:, :, 1] *= 10
    point = evaluate(HadasEq6(), dear, np.array([0]), np.array([[False, True]]), np.array([1]))[0]
    assert point.tolist() == [0.0]


def test_the_document_prints_what_its_code_prints():
    """The two-exit toy: literal prefers the dearer exit, everything else the cheaper one."""
    text = (Path(__file__).parents[2] / "docs" / "objectives.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    shown = text.split("```text\n")[1].split("```")[0]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    assert [line.rstrip() for line in printed.getvalue().splitlines()] == shown.splitlines()
    for line in shown.splitlines()[1:]:
        first, second = (line[start : start + 22].split() for start in (19, 42))
        prefers_dearer = float(second[-1]) < float(first[-1])
        assert prefers_dearer == line.startswith("hadas-eq6 literal")


def test_rounding_does_not_depend_on_padding_or_company(random_tables):
    """The same design in wider tables and among more candidates has the very same values."""
    wide, rng = random_tables(2, n_positions=(4, 3)), np.random.default_rng(3)
    narrow = dataclasses.replace(
        wide.take([1]),
        segment_latency_ms=np.delete(wide.segment_latency_ms[1:], 3, axis=1),
        segment_energy_mj=np.delete(wide.segment_energy_mj[1:], 3, axis=1),
        head_latency_ms=wide.head_latency_ms[1:, :3],
        head_energy_mj=wide.head_energy_mj[1:, :3],
        correct=np.delete(wide.correct[1:], 3, axis=1),
        leaves=np.delete(wide.leaves[1:], 3, axis=1),
    )
    masks, settings = np.zeros((30, 4), dtype=bool), rng.integers(0, 5, 30)
    masks[:, :3] = rng.random((30, 3)) < 0.5
    masks[:, 0] = True
    for objective in ALL_OBJECTIVES:
        together = evaluate(objective, wide, np.full(30, 1), masks, settings)
        for i in range(30):
            alone = evaluate(objective, narrow, np.array([0]), masks[i : i + 1, :3], settings[i : i + 1])
            assert np.array_equal(alone[0], together[i])


@pytest.mark.parametrize("objective", ALL_OBJECTIVES, ids=repr)
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


def test_objectives_by_name_and_what_is_impossible_is_named():
    assert objective_by_name("hadas-eq6", gamma=2.0, ratio="literal") == HadasEq6(2.0, "literal")
    assert objective_by_name("hadas-2d", dissimilarity="joint") == Hadas2D(1.0, "joint")
    assert objective_by_name("hadas-code") == HadasCode()
    with pytest.raises(ConfigError, match="no objective 'accuracy'"):
        objective_by_name("accuracy")
    with pytest.raises(ConfigError, match="ratio = 'gains'"):
        objective_by_name("hadas-eq6", ratio="gains")
    with pytest.raises(ConfigError, match="dissimilarity = 'nested'"):
        objective_by_name("hadas-2d", dissimilarity="nested")
    with pytest.raises(ConfigError, match="gamma = nan"):
        objective_by_name("hadas-2d", gamma=float("nan"))
