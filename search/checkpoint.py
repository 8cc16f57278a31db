"""Checkpoints of a nested search: one JSON file, written whole after every generation.

Floats are written so that they read back bit for bit.  A checkpoint belongs to one call: it carries a digest of all
arguments and of the world, and is refused for any other.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from .. import __version__
from ..errors import StudyError
from ..spaces import Backbone, BackboneSpace, ClockTable, Exits
from .constraints import Extremes
from .designs import Design
from .ensemble import members_of
from .inner import InnerFront
from .metrics import HypervolumeReference
from .objectives import Column
from .settings import SearchSettings
from .state import Candidate, Member, Reach, SearchState
from .tables import StaticFitness, SupportsTables, Tables

_FORMAT = 1
_N_PROBES, _N_TABLE_PROBES = 8, 2


@runtime_checkable
class SupportsDigest(Protocol):
    """A world that can say which it is."""

    @property
    def digest(self) -> str:
        """Changes with what the world knows."""
        ...


def search_digest(
    space: BackboneSpace, world: SupportsTables, settings: SearchSettings, seed: int,
    initial: Sequence[Backbone], reference: HypervolumeReference | None,
) -> str:  # fmt: skip
    """Identity of a search: this hadas, the arguments, and the world.

    A world is known by its own ``digest``, if it has one (that of a :class:`.world.PredictedWorld` covers all measured
    outcomes), and by its answers for the starting points and eight backbones of the space; tables, which take longer,
    are asked of all of them only where there is no ``digest``, else of two.
    """
    own = world.digest if isinstance(world, SupportsDigest) else None
    table = world.clock_table
    arguments = {
        "hadas": __version__,
        "world": own,
        "space": [space.name, space.first_exit, [[v.name, v.choices] for v in space.variables]],
        "clocks": [[domain.name, domain.frequencies_hz] for domain in table.domains],
        "settings": asdict(settings),
        "seed": seed,
        "initial": [backbone.arch_id for backbone in initial],
        "reference": None if reference is None else reference.to_json(),
    }
    digest = hashlib.sha256(json.dumps(arguments, sort_keys=True).encode())
    some = [space.decode(genome) for genome in space.sample(_N_PROBES, np.random.default_rng(0))]
    probes = list(dict.fromkeys([*initial, *some]))
    of_tables = probes if own is None else some[:_N_TABLE_PROBES]
    answers: list[StaticFitness | Tables] = [world.static(probes), *members_of(world.tables(of_tables))]
    for answer in answers:
        for field in fields(answer):
            value = getattr(answer, field.name)
            if isinstance(value, np.ndarray):
                digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()[:24]


class Checkpoint:
    """Where a search keeps its state.

    Args:
        path: of the file; its folder is made if need be.
        digest: of the search (see :func:`search_digest`).
    """

    def __init__(self, path: Path, digest: str, space: BackboneSpace, clock_table: ClockTable) -> None:
        self._path, self._digest, self._space, self._table = path, digest, space, clock_table

    def load(self) -> SearchState | None:
        """The state that was written last; ``None`` if there is none.

        Raises:
            StudyError: the file is no checkpoint, or another search's.
        """
        try:
            document = json.loads(self._path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise self._unusable(f"cannot be read ({error})") from error
        try:
            if document["format"] != _FORMAT:
                raise self._unusable(f"has format {document['format']}, this hadas writes {_FORMAT}")
            if document["digest"] != self._digest:
                raise self._unusable(
                    f"belongs to another search ({document['digest']}, this is {self._digest}): its "
                    "settings, seed, starting points, measured outcomes, predictors or version of hadas differ"
                )
            return self._state(document["state"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise self._unusable(f"is damaged ({type(error).__name__}: {error})") from error

    def _unusable(self, why: str) -> StudyError:
        return StudyError(f"search checkpoint {self._path} {why}; delete it to search afresh")

    def save(self, state: SearchState) -> None:
        """Write a state whole: a reader, or a kill, sees the old file or the new one."""
        document = {"format": _FORMAT, "digest": self._digest, "state": self._to_json(state)}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # What a kill leaves of this file, the next generation writes over.
        fresh = self._path.with_name(f"{self._path.name}.tmp")
        with fresh.open("w") as file:
            json.dump(document, file, allow_nan=True)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)

    def _to_json(self, state: SearchState) -> dict[str, Any]:
        return {
            "n_generations": state.n_generations,
            "seen": state.seen.tolist(),
            "parents": [self._member_to_json(member) for member in state.parents],
            "archive": [self._candidate_to_json(candidate) for candidate in state.archive],
            "history": list(state.history),
            "columns": [asdict(column) for column in state.columns],
            "reference": None if state.reference is None else state.reference.to_json(),
            "n_static": state.n_static,
            "n_inner": state.n_inner,
            "reach": asdict(state.reach),
        }

    def _state(self, fields_: Mapping[str, Any]) -> SearchState:
        n_genes = len(self._space.variables)
        reference, reach = fields_["reference"], fields_["reach"]
        return SearchState(
            n_generations=fields_["n_generations"],
            seen=np.array(fields_["seen"], dtype=np.int64).reshape(-1, n_genes),
            parents=tuple(self._member(document) for document in fields_["parents"]),
            archive=tuple(self._candidate(document) for document in fields_["archive"]),
            history=tuple(fields_["history"]),
            columns=tuple(Column(**column) for column in fields_["columns"]),
            reference=None if reference is None else HypervolumeReference.from_json(reference),
            n_static=fields_["n_static"],
            n_inner=fields_["n_inner"],
            reach=Reach(Extremes(**reach["best"]), reach["energy_ratio"], reach["latency_ratio"]),
        )

    @staticmethod
    def _member_to_json(member: Member) -> dict[str, Any]:
        inner = member.inner
        return {
            "genome": member.genome.tolist(),
            "static": member.static.tolist(),
            "masks": inner.masks.astype(int).tolist(),
            "n_positions": inner.masks.shape[1],
            "settings": inner.settings.tolist(),
            "objectives": inner.objectives.tolist(),
            "n_evaluated": inner.n_evaluated,
            "violation": inner.violation.tolist(),
        }

    def _member(self, document: Mapping[str, Any]) -> Member:
        genome = np.array(document["genome"], dtype=np.int64)
        n_points = len(document["settings"])
        inner = InnerFront(
            masks=np.array(document["masks"], dtype=bool).reshape(n_points, document["n_positions"]),
            settings=np.array(document["settings"], dtype=np.int64),
            objectives=np.array(document["objectives"], dtype=np.float64).reshape(n_points, -1),
            n_evaluated=document["n_evaluated"],
            violation=np.array(document["violation"], dtype=np.float64),
        )
        return Member(genome, self._space.decode(genome), np.array(document["static"]), inner)

    def _candidate_to_json(self, candidate: Candidate) -> dict[str, Any]:
        design = candidate.design
        return {
            "genome": self._space.encode(design.backbone).tolist(),
            "exits": list(design.exits.types),
            "setting": self._table.index(design.setting),
            "objectives": list(candidate.objectives),
            "violation": candidate.violation,
        }

    def _candidate(self, document: Mapping[str, Any]) -> Candidate:
        design = Design(
            self._space.decode(np.array(document["genome"], dtype=np.int64)),
            Exits(self._space.first_exit, tuple(document["exits"])),
            self._table.settings[document["setting"]],
        )
        return Candidate(design, tuple(document["objectives"]), document["violation"])
