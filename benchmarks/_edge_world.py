"""A world of early-exit networks that is known whole: what the archive search is measured against.

Accuracy and shares of every network of a subspace come from an **oracle**: the toolkit's own predictor, fitted to all
96 published records; not from training.  Each seed has a world of its own, one joint draw of that predictor, so that
worlds differ by as much as the records leave open, and no model of a search knows which it is in.

The oracle's accuracy is a Gaussian process, so no linear function of what a network looks like; the search's own
predictor chooses between a linear model and such a process, from few rows.  It is spared errors that no such process
makes, and the chance of training: evaluating a network finds the truth about it.

Costs are those of the toolkit's cost model (MODELLED).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
from _checkout import ROOT, make_importable

make_importable()

from _edge_records import BITS, N_TEST, edge_records  # noqa: E402
from _predictor_tasks import FloatArray, IntArray  # noqa: E402

from hadas.datasets.store import Store  # noqa: E402
from hadas.measurement.accelerator import (  # noqa: E402
    AcceleratorCostModel,
    LayerTable,
    NetworkCosts,
    edge_accelerator,
)
from hadas.search.archive import Evaluation, Judgement  # noqa: E402
from hadas.search.lazy_greedy import Prices  # noqa: E402
from hadas.search.objectives import Column  # noqa: E402
from hadas.spaces import Variable  # noqa: E402
from hadas.spaces.quantized import FINAL, LETTERS, QuantizedNetwork, edge_space  # noqa: E402
from hadas.study.edge.beliefs import exit_inputs  # noqa: E402
from hadas.study.edge.judging import COLUMNS, Limits, judgement  # noqa: E402
from hadas.surrogates.exit_inputs import ExitInputs  # noqa: E402
from hadas.surrogates.joint_exits import JointExitModel  # noqa: E402

SPACE = "mobilenetv2"
ACCELERATOR = "quad-edge-tpu"
THRESHOLD = 0.9
"""Of every network's controller: the most frequent but one in the records, whose networks mostly have 0.9 or 0.95."""
_AT_ONCE = 2_000
STORE = ROOT / "runs" / "bench" / "edge" / "store.sqlite"
"""Where the table of layer costs is kept between runs."""


class ExitMasks:
    """Networks of one bit pair (8, 8) and a final head of one layer: exits at some mounting points.

    Args:
        letters: mounting points that may have an exit.
        head_types: choices at each, 0 = no exit.
    """

    def __init__(self, letters: str, head_types: Sequence[int]) -> None:
        self.name = f"{SPACE}, INT8+8, head types {'/'.join(map(str, head_types))} at {letters}"
        self.variables = tuple(Variable(f"exit.{letter}", tuple(head_types)) for letter in letters)
        self._positions = [LETTERS.index(letter) for letter in letters]

    @property
    def shape(self) -> tuple[int, ...]:
        """Choices per gene."""
        return tuple(len(variable.choices) for variable in self.variables)

    def sample(self, n: int, rng: np.random.Generator) -> IntArray:
        """(n, n_genes) uniform genomes."""
        return rng.integers(0, self.shape, size=(n, len(self.shape)), dtype=np.int64)

    def decode(self, genome: IntArray) -> QuantizedNetwork:
        """The network of a genome."""
        heads = [0] * FINAL + [1]
        for position, variable, index in zip(self._positions, self.variables, genome, strict=True):
            heads[position] = variable.choices[int(index)]
        return QuantizedNetwork(SPACE, tuple(heads), (BITS,) * len(LETTERS), BITS)

    def rows(self, genomes: IntArray) -> IntArray:
        """(n,) numbers of genomes in :attr:`genomes`."""
        return np.asarray(np.ravel_multi_index(tuple(genomes.T), self.shape), dtype=np.int64)

    @cached_property
    def genomes(self) -> IntArray:
        """(N, n_genes) all of them."""
        n = int(np.prod(self.shape))
        return np.stack(np.unravel_index(np.arange(n), self.shape), axis=1).astype(np.int64)


@dataclass(frozen=True)
class Networks:
    """All N networks of a subspace, described once.

    Attributes:
        space: the subspace.
        inputs: what predictors are told, thresholds not included.
        costs: modelled.
    """

    space: ExitMasks
    inputs: ExitInputs
    costs: NetworkCosts

    def costs_of(self, rows: IntArray) -> NetworkCosts:
        """Costs of some of them."""
        known = {field.name: getattr(self.costs, field.name) for field in fields(self.costs)}
        some: dict[str, Any] = {
            name: value[rows] for name, value in known.items() if isinstance(value, np.ndarray)
        }
        return replace(self.costs, **some)

    def judged(self, rows: IntArray, accuracy: FloatArray, shares: FloatArray) -> Judgement:
        """Objectives of some of them; shares may be padded to fewer exits than the costs are."""
        missing = self.costs.et.shape[1] - shares.shape[-1]
        padded = np.pad(shares, [(0, 0)] * (shares.ndim - 1) + [(0, missing)])
        return judgement(accuracy, padded, self.costs_of(rows), Limits())


@cache
def described(letters: str, head_types: tuple[int, ...]) -> Networks:
    """The networks of a subspace with their costs; fills the table of layers, if it is not full."""
    space = ExitMasks(letters, head_types)
    networks = [space.decode(genome) for genome in space.genomes]
    whole = edge_space(SPACE)
    STORE.parent.mkdir(parents=True, exist_ok=True)
    model = AcceleratorCostModel(
        whole, edge_accelerator(ACCELERATOR), LayerTable(Store(f"sqlite:///{STORE}"))
    )
    return Networks(space, exit_inputs(whole, networks), model.costs(networks))


@cache
def oracle() -> JointExitModel:
    """The predictor that was fitted to all records; it knows the threshold of each."""
    records = edge_records()
    n_exits = np.array([len(record.positions) for record in records])
    bits = np.full(n_exits.sum(), float(BITS))
    inputs = ExitInputs(
        n_exits=n_exits,
        backbone_macs=np.concatenate([record.backbone_macs for record in records]).astype(np.float64),
        head_layers=np.concatenate([record.head_types for record in records]).astype(np.float64),
        segment_step=2.0**-bits,
        head_bits=bits,
        threshold=np.array([record.threshold for record in records]),
    )
    shares = inputs.padded(np.concatenate([record.shares for record in records]), 0.0)
    accuracy = np.array([record.accuracy for record in records])
    n_samples = np.full(len(records), N_TEST)
    model = JointExitModel(seed=0, accuracy_candidates=("gp",))
    return model.fit(inputs, accuracy, shares / shares.sum(axis=1, keepdims=True), n_samples)


@dataclass(frozen=True)
class KnownWorld:
    """One world: the truth about all networks of a subspace, and the archive search's problem in it.

    Attributes:
        networks: of the subspace.
        accuracy, shares: (N,) and (N, e), what evaluating each network finds.
        points: (N, m) objectives of that.
    """

    networks: Networks
    accuracy: FloatArray
    shares: FloatArray
    points: FloatArray

    @classmethod
    def of(cls, networks: Networks, seed: int) -> KnownWorld:
        """The world of a seed: draw by draw the same, in whatever blocks it is computed."""
        inputs = replace(networks.inputs, threshold=np.full(len(networks.inputs), THRESHOLD))
        e = int(inputs.n_exits.max())
        accuracy, shares = np.zeros(len(inputs)), np.zeros((len(inputs), e))
        for start in range(0, len(inputs), _AT_ONCE):
            rows = np.arange(start, min(start + _AT_ONCE, len(inputs)))
            drawn = oracle().draws(inputs.take(rows), 1, seed)
            accuracy[rows], shares[rows, : drawn.shares.shape[2]] = drawn.accuracy[0], drawn.shares[0]
        points = networks.judged(np.arange(len(inputs)), accuracy, shares).points
        return cls(networks, accuracy, shares, points)

    @property
    def columns(self) -> tuple[Column, ...]:
        """Error, ET_avg, share of the heads."""
        return COLUMNS

    @property
    def limits(self) -> tuple[str, ...]:
        """None."""
        return ()

    def evaluate(self, genomes: IntArray) -> Iterator[Evaluation]:
        """Look the truth up."""
        for genome, row in zip(genomes, self.networks.space.rows(genomes), strict=True):
            yield Evaluation(tuple(genome.tolist()), tuple(self.points[row].tolist()))

    def fit(self, evaluations: Sequence[Evaluation]) -> Beliefs:
        """The toolkit's predictor, fitted to what was evaluated; all thresholds are the same, so it is told none."""
        rows = self.networks.space.rows(np.array([e.genome for e in evaluations]))
        inputs = self.networks.inputs.take(rows)
        shares = self.shares[rows, : int(inputs.n_exits.max())]
        model = JointExitModel(seed=0).fit(inputs, self.accuracy[rows], shares, np.full(len(rows), N_TEST))
        return Beliefs(self.networks, model)

    def prices(self, genomes: IntArray) -> Prices:
        """A training each."""
        return Prices.equal(len(genomes))


@dataclass(frozen=True)
class Beliefs:
    """What a search believes: predicted accuracy and shares at known costs."""

    networks: Networks
    model: JointExitModel

    def mean(self, genomes: IntArray) -> Judgement:
        """At the means of the predictor."""
        rows = self.networks.space.rows(genomes)
        return self.networks.judged(rows, *self.model.mean(self.networks.inputs.take(rows)))

    def draws(self, genomes: IntArray, n_draws: int, seed: int) -> Judgement:
        """Joint draws."""
        return self._drawn(genomes, n_draws, seed, noise=False)

    def outcomes(self, genomes: IntArray, n_draws: int, seed: int) -> Judgement:
        """The same, with what the predictor takes for noise: evaluating has none, but the predictor errs."""
        return self._drawn(genomes, n_draws, seed, noise=True)

    def _drawn(self, genomes: IntArray, n_draws: int, seed: int, *, noise: bool) -> Judgement:
        rows = self.networks.space.rows(genomes)
        drawn = self.model.draws(self.networks.inputs.take(rows), n_draws, seed, noise=noise)
        return self.networks.judged(rows, drawn.accuracy, drawn.shares)
