"""The loop of the system ``edge``: model the layers, train seeds, then rounds of predict, search, train, append.

Everything depends on the seed and on rows that were measured before; rounds are planned in the journal before they are
trained, so the same command after an interruption makes the same choices and trains nothing twice.  What is
journalled, says :mod:`.findings`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ...datasets.store import Store
from ...errors import InfeasibleError, StudyError
from ...spaces import IntArray
from ...spaces.quantized import QuantizedNetwork
from ..opening import journal, lock, open_store
from .assembly import EdgeAssembly
from .config import GENOME_FIELDS, EdgeConfig, edge_difference, load_edge_config
from .findings import EdgeFindings, EdgeRound
from .problem import EdgeProblem
from .seeds import initial_networks
from .training import Trained

if TYPE_CHECKING:
    from ...search.archive import ArchiveRound
    from ..assembly import ProgressCallback


def _silent(phase: str, done: int, total: int, note: str = "") -> None:
    pass


class EdgeStudy:
    """One space, one data set, one accelerator, one configuration, and everything decided so far."""

    def __init__(self, config: EdgeConfig, path: Path, store: Store) -> None:
        """Use :meth:`open`; relative paths of the configuration start at the folder of ``path``."""
        self.config = config
        self.path = path
        self.directory = path.parent
        self.store = store
        self.parts = EdgeAssembly(config, path.parent, store)
        self.trained = Trained(self.parts, f"{config.study}/networks")
        self.findings = EdgeFindings(self.parts, self.trained)

    @classmethod
    def open(cls, path: Path, *, adopt: bool = False) -> Self:
        """Open a study file; the study enters its store with its first decision, not before.

        Raises:
            ConfigError, AcceleratorError: a file that does not validate, or that names parts which do not exist.
            StudyError: the file differs from what the study began with (the fields are listed), unless ``adopt``.
        """
        config = load_edge_config(path)
        store, begun = open_store(
            config, path, edge_difference, adopt=adopt, hint="what is trained is found again"
        )
        study = cls(config, path, store)
        study.parts.check()
        if begun is not None and begun != config.model_dump(mode="json"):
            study._adopt(begun)
        return study

    def _adopt(self, begun: dict[str, Any]) -> None:
        """Go on with another configuration; if it alters choices or judgements, rounds begin anew.

        Raises:
            StudyError: it alters what the trained networks are, so nothing of the study would be left; or another
                process is at work.  Nothing is changed.
        """
        wanted = self.config.model_dump(mode="json")
        changed = edge_difference(begun, wanted)
        if not changed:
            self.store.put_study(self.config.study, wanted)
            return
        held = lock(self.directory, self.config.study)
        try:
            if other := [line for line in changed if line.split(":")[0] in GENOME_FIELDS]:
                raise StudyError(
                    f"study '{self.config.study}' has genomes of another space ({'; '.join(other)}), so this cannot be "
                    "adopted. Give the changed study another name: what is trained is found again."
                )
            self.check_begun()
            genomes = [self.parts.space.encode(network).tolist() for network in self._trained_so_far()]
            number = self.findings.n_adopted + 1
            self.journal_once(f"adopted:{number}", {"changed": changed, "genomes": genomes})
            self.store.put_study(self.config.study, wanted)
        finally:
            held.release()
        self.findings = EdgeFindings(self.parts, self.trained)

    def _trained_so_far(self) -> list[QuantizedNetwork]:
        """Networks of this study that are trained, well or not."""
        found = self.findings
        planned = [network for number in range(found.n_planned) for network in found.planned(number)]
        networks = list(dict.fromkeys([*found.adopted_networks(), *planned]))
        self.trained.find(networks)
        return [network for network in networks if self.trained.has(network.trained_id)]

    def lock(self) -> None:
        """Make this process the only one that works on the study, until it ends.

        Raises:
            StudyError: another process does.
        """
        self._lock = lock(self.directory, self.config.study)

    def journal_once(self, key: str, payload: dict[str, Any]) -> None:
        """Write down one decision, unless it is written already."""
        if self.findings.event(key) is None:
            journal(self.store, self.config, key, payload)

    def ended(self) -> str:
        """Why there are no more rounds by the rule of the configuration; empty if there are."""
        event = self.findings.event(self.findings.key("ended", self._rule))
        return "" if event is None else str(event["reason"])

    def infeasible(self) -> str:
        """Which constraints nothing met when the loop ended; empty if some network did, or it has not ended."""
        event = self.findings.event(self.findings.key("infeasible", self._rule))
        return "" if event is None else str(event["message"])

    def run(
        self, progress: ProgressCallback = _silent, on_round: Callable[[EdgeRound], None] | None = None
    ) -> None:
        """The whole loop; goes on where an earlier run was, and does nothing if that came to the end.

        Args:
            on_round: told of every finished round, of those of an earlier run at once.

        Raises:
            InfeasibleError: nothing that was trained meets the constraints.
            StudyError: every seed failed, or the choices of an earlier run cannot be made again.
        """
        from ...search.archive import archive_search

        self.check_begun()
        shown = self._show(0, on_round)
        if self.ended():
            return
        self._model_layers(progress)
        self.begin(progress)

        def done(one: ArchiveRound) -> None:
            nonlocal shown
            self.journal_once(self.findings.key("round", one.number), {"hypervolume": one.hypervolume})
            shown = max(shown, self._show(shown, on_round))

        problem = EdgeProblem(
            self.parts, self.trained, seed=self._seed_for(1), on_seeds=self._plan_seeds, progress=progress
        )
        space = self.parts.space
        networks = [*initial_networks(space, self.config.learning.seeds), *self.findings.adopted_networks()]
        initial = [space.encode(network) for network in networks]
        try:
            found = archive_search(
                space, problem, self.parts.archive_settings, self._seed_for(0), initial=initial, on_round=done,
                on_plan=lambda number, plan: self.journal_once(self.findings.key("plan", number), plan.to_json()),
                planned=self.findings.plans(),
            )  # fmt: skip
        except InfeasibleError as error:
            self.journal_once(self.findings.key("infeasible", self._rule), {"message": str(error)})
            raise
        self.journal_once(self.findings.key("ended", self._rule), {"reason": found.ended})

    def check_begun(self) -> None:
        """See that networks are trained and judged as they were when the study began.

        Raises:
            StudyError: images or training have changed, so that what was trained is another network now.
        """
        now = self._measured_by()
        begun = self.findings.event("begun") or now
        changed = "; ".join(
            f"{name}: {begun.get(name)} -> {now[name]}" for name in now if begun.get(name) != now[name]
        )
        if changed:
            raise StudyError(
                f"study '{self.config.study}' began with other images or another way of training ({changed}), which "
                "another version of hadas has, too. Give the study another name."
            )

    def begin(self, progress: ProgressCallback = _silent) -> None:
        """Have the shared start that all networks are tuned from, and write down which it is.

        Raises:
            StudyError: it is not the one that the study began with.
        """
        start_id = self.trained.start(progress)
        self.journal_once("begun", {**self._measured_by(), "start_id": start_id})
        if self.trained.start_id != start_id:
            raise StudyError(
                f"study '{self.config.study}' began with another shared start than the one in "
                f"{self.directory / 'weights'} ({self.trained.start_id} -> {start_id}), as when it is continued on "
                "another machine. Bring the folder 'weights' from where it began, or give the study another name."
            )

    def _measured_by(self) -> dict[str, str]:
        return {"recipe_id": self.parts.recipe.recipe_id, "split_id": self.parts.data.split_id}

    def _show(self, shown: int, on_round: Callable[[EdgeRound], None] | None) -> int:
        """Tell of finished rounds that were not told of yet; how many there are."""
        n = self.findings.n_rounds
        for number in range(shown, n):
            if on_round is not None:
                on_round(self.findings.summary(number))
        return n

    def _model_layers(self, progress: ProgressCallback) -> None:
        """Fill the table with every layer that a network of the space can have, so that the search only looks up."""
        report = self.parts.costs.fill(
            progress=lambda done, total: progress("modelling layers (MODELLED)", done, total)
        )
        if report.n_evaluated:
            n = sum(key.startswith("table:") for key in self.store.event_keys(self.config.study))
            self.journal_once(
                f"table:{n}", {"n_layers": report.n_evaluated, "cpu_seconds": report.cpu_seconds}
            )

    def _plan_seeds(self, genomes: IntArray) -> None:
        """Write down which networks are trained first, before they are.

        Raises:
            StudyError: an earlier run has begun with others.
        """
        planned = {"genomes": np.asarray(genomes).tolist()}
        key = self.findings.key("plan", 0)
        before = self.findings.event(key)
        if before is not None and before != planned:
            raise StudyError(
                f"study '{self.config.study}' began with other seeds; other versions of hadas or its libraries choose "
                "otherwise. Give the study another name: what is trained is found again."
            )
        self.journal_once(key, planned)

    def _seed_for(self, purpose: int) -> int:
        return int(np.random.SeedSequence([self.config.seed, purpose]).generate_state(1)[0])

    @property
    def _rule(self) -> str:
        """What says when the loop ends; these fields may change in a study that has begun."""
        learning = self.config.learning
        return f"{learning.rounds}-{learning.stop_gain:g}-{learning.stop_rounds}"
