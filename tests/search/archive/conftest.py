"""A space of 729 designs that is known whole: accuracy is to be learned, cost is not."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import numpy as np
import pytest

from hadas.search.archive import ArchiveSettings, Evaluation, Judgement
from hadas.search.lazy_greedy import Prices
from hadas.search.objectives import Column
from hadas.spaces import Variable
from hadas.surrogates.models import make_model

COLUMNS = (Column("error", log=False), Column("energy_mj", log=True))


class SixGenes:
    """Six genes of three choices."""

    name = "six"
    variables = tuple(Variable(f"head.{letter}", (0, 1, 2)) for letter in "ABCDEF")

    def sample(self, n, rng):
        return rng.integers(0, 3, size=(n, 6), dtype=np.int64)


def error_of(genomes):
    """Falls with most genes, and the more so the fewer have done it already; one gene does harm."""
    strength = np.array([0.9, 0.7, 0.5, 0.35, 0.25, -0.3])
    merit = (strength * genomes).sum(axis=-1)
    return 0.1 + 0.4 * np.exp(-0.6 * merit) + 0.02 * np.cos(2.0 * genomes[..., 0] + 1.3 * genomes[..., 3])


def energy_mj_of(genomes):
    """Grows with every gene."""
    return (
        1.0 + (np.array([1.3, 0.9, 0.8, 0.7, 0.45, 0.2]) * genomes).sum(axis=-1) + 0.3 * genomes[..., 1] ** 2
    )


@dataclass(frozen=True)
class LogErrorBeliefs:
    """A model of log error; energy is known."""

    model: object
    max_energy_mj: float | None

    def mean(self, genomes):
        return self._judged(genomes, self.model.mean(genomes.astype(float))[:, 0])

    def draws(self, genomes, n_draws, seed):
        return self._judged(genomes, self.model.paths(n_draws, seed)(genomes.astype(float))[..., 0])

    def _judged(self, genomes, log_error):
        energy_mj = np.broadcast_to(energy_mj_of(genomes), log_error.shape)
        points = np.stack([np.exp(log_error), energy_mj], axis=-1)
        if self.max_energy_mj is None:
            return Judgement(points)
        return Judgement(points, energy_mj[..., None] / self.max_energy_mj - 1.0)


@dataclass
class KnownWorld:
    """Evaluates exactly, keeps what it evaluated, and may be made to fail or to stop."""

    max_energy_mj: float | None = None
    fails: frozenset = frozenset()
    stop_after: int | None = None
    backwards: bool = False
    kind: str = "ridge"
    item_s: object = None
    kept: dict = field(default_factory=dict)
    columns: tuple = COLUMNS

    @property
    def limits(self):
        return () if self.max_energy_mj is None else (f"energy at most {self.max_energy_mj:g} mJ",)

    def evaluate(self, genomes):
        for genome in genomes[::-1] if self.backwards else genomes:
            key = tuple(genome.tolist())
            if key not in self.kept:
                if self.stop_after is not None and len(self.kept) >= self.stop_after:
                    raise KeyboardInterrupt
                self.kept[key] = self._evaluation(key, genome)
            yield self.kept[key]

    def _evaluation(self, key, genome):
        if key in self.fails:
            return Evaluation(key, reason="diverged")
        energy_mj = float(energy_mj_of(genome))
        excess = () if self.max_energy_mj is None else (energy_mj / self.max_energy_mj - 1.0,)
        return Evaluation(key, (float(error_of(genome)), energy_mj), excess)

    def fit(self, evaluations):
        x = np.array([e.genome for e in evaluations], dtype=float)
        y = np.log([[e.points[0]] for e in evaluations])
        return LogErrorBeliefs(
            make_model(self.kind, "log error", "log", seed=0, quick=True).fit(x, y), self.max_energy_mj
        )

    def prices(self, genomes):
        prices = Prices.equal(len(genomes))
        return prices if self.item_s is None else dataclasses.replace(prices, item_s=self.item_s(genomes))


@pytest.fixture(scope="session")
def six_genes():
    return SixGenes()


@pytest.fixture(scope="session")
def small():
    return ArchiveSettings(
        seeds=8,
        rounds=3,
        batch=4,
        population=12,
        generations=6,
        searched_draws=2,
        pool=60,
        draws=32,
        stop_gain=0.0,
    )


@pytest.fixture
def known_world():
    return KnownWorld


@pytest.fixture(scope="session")
def all_designs():
    """(729, 6) every genome."""
    return np.stack(np.unravel_index(np.arange(729), (3,) * 6), axis=1)


@pytest.fixture(scope="session")
def exact(all_designs):
    """(729, 2) the truth."""
    return np.stack([error_of(all_designs), energy_mj_of(all_designs)], axis=1)
