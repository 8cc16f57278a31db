"""A table of layer costs, filled when a layer is first asked for, and kept in the store's database.

A network then costs look-ups alone.  An entry belongs to a layer's signature, a core's description (by content), the
version of zigzag-dse and its search effort; change one, and the entry is another.  Each entry is written when it is
known, so a fill that is killed goes on where it was, and several processes may fill one table: who comes second
leaves the entry as it is, and entries do not differ, for the cost model is deterministic.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import sqlalchemy as sa

from ...datasets.schema import exclusively
from ...datasets.store import Store
from ...errors import AcceleratorError, StoreError
from .cores import CoreStyle
from .descriptions import describe, zigzag_version
from .evaluation import LPF_LIMIT, Evaluation, evaluate
from .signatures import LayerCost, LayerSignature

Progress = Callable[[int, int], None]
"""Called with (entries done, entries asked for) of a fill, in the process that asked."""
_REMEDY = "see that its disk is not full and its server up, then run the same command again"
Wanted = tuple[CoreStyle, LayerSignature]

metadata = sa.MetaData()
layer_costs = sa.Table(
    "accelerator_layer_costs",
    metadata,
    sa.Column("entry_no", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("key", sa.String, nullable=False, unique=True),
    sa.Column("core", sa.String, nullable=False, index=True),
    sa.Column("signature", sa.JSON, nullable=False),
    sa.Column("lpf_limit", sa.Integer, nullable=False),
    sa.Column("description", sa.String, nullable=False),
    sa.Column("zigzag_version", sa.String, nullable=False),
    sa.Column("energy_pj", sa.Float, nullable=False),
    sa.Column("cycles", sa.Float, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
)


@dataclass(frozen=True, slots=True)
class FillReport:
    """What a fill did.

    Attributes:
        n_evaluated: entries that were not there before.
        cpu_seconds: their evaluations took, over all worker processes.
    """

    n_evaluated: int
    cpu_seconds: float


class LayerTable:
    """Costs of layers on cores, behind one store.

    Without zigzag-dse the table answers from what it holds, of several entries for one layer the latest.

    Args:
        store: whose database keeps the entries.
        lpf_limit: loops that zigzag permutes in full (see :data:`~.evaluation.LPF_LIMIT`).
        n_workers: processes that fill it; ``None`` = one per processor, 1 = this process alone.

    Raises:
        AcceleratorError: a limit or a number of workers below 1.
        StoreError: the database cannot be written.
    """

    def __init__(self, store: Store, *, lpf_limit: int = LPF_LIMIT, n_workers: int | None = None) -> None:
        if lpf_limit < 1 or (n_workers is not None and n_workers < 1):
            raise AcceleratorError(f"lpf_limit {lpf_limit}, n_workers {n_workers}: give at least 1")
        self.lpf_limit = lpf_limit
        self._n_workers = n_workers or os.cpu_count() or 1
        self._store = store
        self._known: dict[Wanted, LayerCost] = {}
        store.create_tables(metadata)

    def costs(self, wanted: Sequence[Wanted], progress: Progress | None = None) -> Mapping[Wanted, LayerCost]:
        """Costs of layers on cores; what is missing is filled first.

        Raises:
            AcceleratorError: a layer that the cost model cannot map, or is missing without zigzag-dse.
        """
        self.fill(wanted, progress)
        return {key: self._known[key] for key in wanted}

    def missing(self, wanted: Iterable[Wanted]) -> tuple[Wanted, ...]:
        """What of some layers the table does not hold, each once, in order."""
        unknown = [key for key in dict.fromkeys(wanted) if key not in self._known]
        if unknown:
            self._read({style for style, _ in unknown})
        return tuple(key for key in unknown if key not in self._known)

    def fill(self, wanted: Iterable[Wanted], progress: Progress | None = None) -> FillReport:
        """Evaluate what of some layers the table does not hold, and keep it.

        Raises:
            AcceleratorError: a layer that the cost model cannot map (all others are kept), or zigzag-dse is
                missing though needed.
        """
        missing = self.missing(wanted)
        if not missing:
            return FillReport(0, 0.0)
        for style, signature in missing:  # fails before any work
            describe(style, signature.weight_bits, signature.activation_bits)
        failed: list[Evaluation] = []
        cpu_seconds = 0.0
        for done, evaluation in enumerate(self._evaluated(missing), start=1):
            cpu_seconds += evaluation.cpu_seconds
            if evaluation.cost is None:
                failed.append(evaluation)
            else:
                self._keep(evaluation, evaluation.cost)
            if progress is not None:
                progress(done, len(missing))
        if failed:
            first = failed[0]
            raise AcceleratorError(
                f"core '{first.style.name}': zigzag-dse has no cost for {len(failed)} of {len(missing)} layers; the "
                f"first is {first.signature}: {first.reason}. Choose other bits or another core."
            )
        return FillReport(len(missing), cpu_seconds)

    def _evaluated(self, missing: Sequence[Wanted]) -> Iterator[Evaluation]:
        n_workers = min(self._n_workers, len(missing))
        if n_workers == 1:
            yield from (evaluate(style, signature, self.lpf_limit) for style, signature in missing)
            return
        from joblib import Parallel, delayed, parallel_config

        with parallel_config(backend="loky", n_jobs=n_workers, inner_max_num_threads=1):
            # One at a time: an entry that is done is kept, whatever happens to the others.
            parallel = Parallel(return_as="generator_unordered", batch_size=1)
        yield from parallel(
            delayed(evaluate)(style, signature, self.lpf_limit) for style, signature in missing
        )

    # -- the database -------------------------------------------------------------------------------

    def _read(self, styles: Iterable[CoreStyle]) -> None:
        by_name = {style.name: style for style in styles}
        columns = layer_costs.c
        query = (
            sa.select(
                columns.core, columns.signature, columns.description, columns.zigzag_version, columns.energy_pj,
                columns.cycles,
            )
            .where(columns.core.in_(sorted(by_name)), columns.lpf_limit == self.lpf_limit)
            .order_by(columns.entry_no)
        )  # fmt: skip
        version = zigzag_version()
        try:
            with self._store.engine.connect() as connection:
                rows = connection.execute(query).all()
        except sa.exc.SQLAlchemyError as error:
            raise StoreError(f"layer costs cannot be read from the store ({error}); {_REMEDY}") from error
        for core, fields, digest, of_version, energy_pj, cycles in rows:
            style, signature = by_name[core], LayerSignature(**fields)
            if version is not None:
                description = describe(style, signature.weight_bits, signature.activation_bits)
                if (digest, of_version) != (description.digest, version):
                    continue
            self._known[style, signature] = LayerCost(energy_pj, cycles)

    def _keep(self, evaluation: Evaluation, cost: LayerCost) -> None:
        style, signature = evaluation.style, evaluation.signature
        self._known[style, signature] = cost
        description = describe(style, signature.weight_bits, signature.activation_bits)
        identity = [
            style.name, asdict(signature), self.lpf_limit, description.digest, description.zigzag_version,
        ]  # fmt: skip
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        row = {
            "key": key,
            "core": style.name,
            "signature": asdict(signature),
            "lpf_limit": self.lpf_limit,
            "description": description.digest,
            "zigzag_version": description.zigzag_version,
            "energy_pj": cost.energy_pj,
            "cycles": cost.cycles,
            "seconds": evaluation.cpu_seconds,
        }
        try:
            with exclusively(self._store.engine) as connection:
                if (
                    connection.execute(sa.select(layer_costs.c.key).where(layer_costs.c.key == key)).first()
                    is None
                ):
                    connection.execute(layer_costs.insert().values(row))
        except sa.exc.IntegrityError:
            pass  # another process wrote the same meanwhile
        except sa.exc.SQLAlchemyError as error:
            raise StoreError(f"layer costs cannot be written to the store ({error}); {_REMEDY}") from error
