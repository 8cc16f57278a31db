"""The loop: measure, fit, search, suggest, measure again.

:class:`Study` is the only mutable object of the package.  Everything it decides is journalled
in the store under a key, and every decision depends only on the seed and on rows that were
measured before it; so the same command after an interruption continues to the same result.

Journal keys: ``supernet`` (its weights, what training cost), ``device`` (whose costs it began with: target and clock table),
``reference`` (of the hypervolume), ``budget:k`` (of time, whenever another one was given), ``time:k`` (what a run with a
budget took beside rows and plans),
``plan:r`` (what round r measures, and why), ``measured:r`` (what round r found), ``fit:r`` and
``search:r`` (on the rows of rounds 0..r; ``infeasible:r`` if it found nothing that meets the constraints), ``confidence:r`` (how sure the front of that search is) and ``outlook:r`` (what joint draws say of it), ``calibration:r`` (how held-out predictions of the same rows err, and what
intervals are corrected by), ``plan:NAME`` and ``measured:NAME`` of each baseline,
``logs:k`` (rows from elsewhere that are trained on after some round, or left out), ``drift:k`` (what they changed)
and ``forgotten:j`` (an adoption taken back); ``stop:r`` (a best batch that
was not worth measuring); what is fitted and searched after the n-th such change that followed
round r is ``fit:r+n``, ``calibration:r+n``, ``search:r+n``.  Once other settings of the search are adopted,
``search_settings`` says which the study began with; what is searched with others is ``search:r~DIGEST``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

import numpy as np

from ..datasets.records import AccuracyRecord, Truth
from ..datasets.store import Store
from ..errors import HadasError, InfeasibleError, StudyError
from ..spaces import Backbone
from .assembly import Assembly, ProgressCallback
from .budget import Budget
from .calibrating import corrections
from .config import StudyConfig, config_difference, load_config, with_places
from .findings import ASKED_FOR, Findings
from .fitting import fit_or_load
from .identity import DeviceIdentity, check_weights, device_now
from .journal import (
    RoundSummary,
    design_from_json,
    search_from_json,
    search_to_json,
    settings_digest,
)
from .measuring import measure_accuracies, measure_costs
from .opening import journal, lock, open_store
from .running import whole_loop
from .seeds import lacking_seeds, pilot_backbones, seed_backbones, seed_designs
from .suggesting import journal_plan, plan_suggestions
from .worlds import Worlds

if TYPE_CHECKING:
    from ..measurement.accuracy.training import TrainedSupernet
    from ..search.designs import Design
    from ..search.outer import SearchResult
    from ..search.tables import SupportsTables
    from ..surrogates.predictor_set import PredictorSet


def _silent(phase: str, done: int, total: int, note: str = "") -> None:
    pass


def _round_name(r: int) -> str:
    return "seeds" if r == 0 else f"round {r}"


class Study:
    """One target, one data set, one configuration, and everything decided so far."""

    def __init__(self, config: StudyConfig, path: Path, store: Store) -> None:
        """Use :meth:`open`; relative paths of the configuration start at the folder of ``path``."""
        self.config = config
        self.path = path
        self.directory = path.parent
        self.store = store
        self.parts = Assembly(config, path.parent)
        self.findings = Findings(config.study, store, self.parts)
        begun = self.findings.event("device")
        if begun is not None:
            self.parts.known_device = DeviceIdentity.from_json(begun)
        self._worlds: tuple[str, Worlds] | None = None

    @classmethod
    def open(cls, path: Path, *, adopt: bool = False, places: Mapping[str, Any] | None = None) -> Self:
        """Open a study file; the study enters its store with its first decision, not before.

        Args:
            places: where accuracy is measured this time, instead of what the file says
                (see :func:`.config.with_places`).

        Raises:
            ConfigError, SpaceError, CheckpointError, OffTableFrequencyError: a file that does not
                validate, or that names parts which do not exist.
            StudyError: the file differs from what the study began with (the fields are listed),
                unless ``adopt``.
        """
        config = load_config(path)
        store, begun = open_store(config, path, config_difference, adopt=adopt)
        study = cls(config if not places else with_places(config, places), path, store)
        study.parts.check()
        wanted = config.model_dump(mode="json")
        if begun is not None and begun != wanted:
            study._remember_settings(begun.get("search", {}), wanted["search"])
            store.put_study(config.study, wanted)
        return study

    def _remember_settings(self, begun: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        """Write down which search settings the study began with, the first time that others are adopted."""
        digest = settings_digest(begun)
        if digest != settings_digest(wanted) and self.findings.event("search_settings") is None:
            self.store.journal(self.config.study, "search_settings", {"digest": digest})

    def lock(self) -> None:
        """Make this process the only one that works on the study, until it ends.

        Raises:
            StudyError: another process does.
        """
        self._lock = lock(self.directory, self.config.study)

    @property
    def truth(self) -> Truth:
        """Where costs come from, as their rows say it: a replay of simulated rows is simulated."""
        if self.parts.known_device is not None:
            return self.parts.known_device.truth
        if self.config.device.kind == "replay":
            try:
                return self.parts.device_identity.truth  # the log's; no device is asked
            except HadasError:  # a log that cannot be read is named by whoever needs its rows
                return Truth.REPLAY
        return Truth.SIMULATOR if self.config.device.kind == "simulator" else Truth.DEVICE

    def journal(self, key: str, payload: dict[str, Any]) -> None:
        """Write down one decision; see the keys above.

        Raises:
            StoreError: the key is taken.
        """
        journal(self.store, self.config, key, payload)

    def seed_for(self, *purpose: int) -> int:
        """A seed of its own for every purpose, all derived from the study's."""
        return int(np.random.SeedSequence([self.config.seed, *purpose]).generate_state(1)[0])

    # -- measuring ---------------------------------------------------------------------------

    def train(
        self, progress: ProgressCallback = _silent, on_loss: Callable[[float], None] | None = None
    ) -> TrainedSupernet:
        """Train the supernet, go on with an unfinished one, or find the finished one.

        Args:
            on_loss: as in :meth:`.Assembly.trained_supernet`.

        Raises:
            CheckpointError: a checkpoint that the study cannot use.
            StudyError: the study began with other weights.
        """
        # Known only now: once it is trained, nobody can tell for whom.
        found = self.findings.event("supernet") is None and self.parts.finished_supernet() is not None
        trained = self.parts.trained_supernet(progress, on_loss)
        check_weights(self, trained, found)
        return trained

    def measure(self, progress: ProgressCallback = _silent, budget: Budget | None = None) -> None:
        """Measure what open plans ask for and close their rounds; does nothing if none is open.

        Raises:
            BudgetSpent: not all of it fits into the budget; what is measured is kept, and the next call goes on.
        """
        self._plan_seeds(progress, budget)
        for r in self._open_rounds():
            self.measure_designs(r, _round_name(r), progress, budget)
            if self.findings.event("reference") is None:
                self.journal("reference", self.findings.first_reference().to_json())
            self.journal(f"measured:{r}", self.findings.summarise(r).to_json())

    def measure_accuracy(self, progress: ProgressCallback = _silent) -> tuple[AccuracyRecord, ...]:
        """Measure only the accuracies that open plans ask for, or the seeds; :meth:`measure` does the costs.

        The device is not needed: neither accuracies nor the seed backbones depend on it.

        Returns:
            The rows of these backbones, whoever measured them; none if no round is open.
        """
        self._begin(progress)
        rounds = list(self._open_rounds()) if self.findings.n_planned_rounds else [0]
        if not rounds:
            return ()
        backbones = self.planned_backbones(rounds)
        measure_accuracies(self.findings, backbones, f"accuracy, {_round_name(rounds[0])}", progress)
        return tuple(self.findings.accuracy_records(backbones).values())

    def _plan_seeds(self, progress: ProgressCallback, budget: Budget | None) -> None:
        """Plan the seeds, if they are not; everything is checked first."""
        if self.findings.event("supernet") is None:
            device_now(self)  # it may be taken, in quarantine or out of reach: before hours of training, too
        self._begin(progress if budget is None else budget.watching(progress))
        self._check_device()
        if self.findings.n_planned_rounds == 0:
            n = None if budget is None else self._seeds_in(budget, progress)
            seeds = seed_designs(self.parts, self.seed_for(0), n)
            self.journal("plan:0", {"designs": seeds, "predictions": [], "n_backbones": n})

    def _seeds_in(self, budget: Budget, progress: ProgressCallback) -> int:
        """How many seed backbones a budget allows; two that are seeds in any case tell the price of one."""
        measure_accuracies(
            self.findings, pilot_backbones(self.parts), "accuracy, first seeds", progress, budget
        )
        return budget.n_seeds()

    def planned_backbones(self, labels: Sequence[int | str]) -> list[Backbone]:
        """Distinct backbones of some plans; the seeds' are known before they are planned."""
        if 0 in labels and self.findings.event("plan:0") is None:
            return seed_backbones(self.parts, self.seed_for(0))
        planned = [label for label in labels if self.findings.event(f"plan:{label}") is not None]
        return list(dict.fromkeys(design.backbone for label in planned for design in self._designs(label)))

    def _begin(self, progress: ProgressCallback) -> None:
        """Have a supernet."""
        if self.findings.event("supernet") is None:
            # Before hours of training, and before the study begins and its file may not change any more.
            self.parts.check_places()
        self.train(progress)

    def _check_device(self) -> None:
        device = device_now(self)
        if self.findings.event("device") is None:
            self.journal("device", device.to_json())
            self.parts.known_device = device

    def measure_designs(
        self, label: int | str, name: str, progress: ProgressCallback, budget: Budget | None = None
    ) -> None:
        """Measure whatever of ``plan:label`` is not in the store yet.

        Raises:
            BudgetSpent: not all of it fits into the budget.
        """
        designs = self._designs(label)
        backbones = [design.backbone for design in designs]
        measure_accuracies(self.findings, backbones, f"accuracy, {name}", progress, budget)
        mark = f" ({self.truth.mark})" if self.truth.mark else ""
        session, seed = self.findings.session(label), self.seed_for(1)
        measure_costs(self.findings, designs, session, seed, f"cost{mark}, {name}", progress, budget)

    def _designs(self, label: int | str) -> list[Design]:
        plan = self.findings.event(f"plan:{label}")
        assert plan is not None
        return [design_from_json(document) for document in plan["designs"]]

    # -- predicting, searching, suggesting -----------------------------------------------------

    def latest_round(self) -> int:
        """Latest measured round.

        Raises:
            StudyError: nothing is measured.
        """
        n = self.findings.n_measured_rounds
        if n == 0:
            raise StudyError(f"study '{self.config.study}': {lacking_seeds(self)}; run: hadas measure")
        return n - 1

    def fit(self, progress: ProgressCallback = _silent) -> PredictorSet:
        """Predictors fitted to all measured rounds; unchanged rows are not fitted again."""
        return self.worlds(progress).predictors

    def worlds(self, progress: ProgressCallback = _silent) -> Worlds:
        """What the search sees, on the predictors of all measured rounds."""
        r = self.latest_round()
        label = self.findings.fit_label(r)
        if self._worlds is None or self._worlds[0] != label:
            accuracy = self.findings.training_accuracy(r + 1)
            predictors = self.fitted(progress)
            known = corrections(self, predictors, progress)
            self._worlds = (label, Worlds.build(self.parts, predictors, accuracy, known))
        return self._worlds[1]

    def fitted(self, progress: ProgressCallback = _silent, before: int | None = None) -> PredictorSet:
        """Predictors of the latest round, without all the rest of what the search sees.

        Args:
            before: as they were before the adoption of this number.

        Raises:
            StudyError: nothing is measured.
        """
        r = self.latest_round()
        accuracy = self.findings.training_accuracy(r + 1)
        costs = self.findings.cost_records(r + 1, before)
        predictors = fit_or_load(self.parts, r, accuracy, costs, self.seed_for(3), progress)
        key = f"fit:{self.findings.fit_label(r)}"
        if before is None and self.findings.event(key) is None:
            models = [asdict(summary) for summary in predictors.summary]
            self.journal(key, {"models": models, "n_cost_rows": len(costs)})
        return predictors

    def search(self, progress: ProgressCallback = _silent) -> SearchResult:
        """Nested search on the current predictive means.

        Raises:
            InfeasibleError: it found nothing that meets the constraints, now or when it was made.
        """
        r = self.latest_round()
        label = self.findings.search_label(r)
        event = self.findings.event(f"search:{label}")
        if event is None:
            if (refused := self.findings.event(f"infeasible:{label}")) is not None:
                raise InfeasibleError(refused["message"], tuple(refused["constraints"]))
            # Measured backbones are known exactly; the search starts from all of them.
            initial = [point.design.backbone for point in self.findings.loop_points()]
            world = self.worlds(progress).searched(self.parts.search_settings, self.seed_for(11, r))
            try:
                result = self.search_in(world, self.seed_for(4, r), "nested search", progress, initial)
            except InfeasibleError as error:
                found = {"message": str(error), "constraints": list(error.constraints)}
                self.journal(f"infeasible:{label}", found)
                raise
            event = search_to_json(result)
            self.journal(f"search:{label}", event)
        return search_from_json(event)

    def search_in(
        self,
        world: SupportsTables,
        seed: int,
        phase: str,
        progress: ProgressCallback,
        initial: Sequence[Backbone],
    ) -> SearchResult:
        """Nested search in one predicted world, from some backbones on.

        Every generation is kept beside the store, so that a search that was killed goes on where it was.
        """
        from ..search.outer import nested_search

        settings = self.parts.search_settings
        label = self.findings.search_label(self.latest_round())
        checkpoint = self.parts.directory / f"{self.config.study}.search-{label}-{seed}.json"
        try:
            found = nested_search(
                self.parts.space, world, settings, seed, initial=initial, checkpoint=checkpoint,
                measured=self.findings.attained(self.findings.loop_points()),
                on_generation=lambda g: progress(
                    phase, g.generation + 1, settings.generations, f"predicted hypervolume {g.hypervolume:.4f}, to a reference of the search's own"
                ),
            )  # fmt: skip
        except InfeasibleError:
            checkpoint.unlink(missing_ok=True)
            raise
        checkpoint.unlink(missing_ok=True)
        return found

    def suggest(
        self, n: int | None = None, progress: ProgressCallback = _silent, *, more: bool = False
    ) -> bool:
        """Plan the next round: the points most worth measuring per second, with predictions to check.

        Does nothing if a plan is open, unless another number of points is asked for.

        Args:
            more: plan a further round beside open ones, whose points count as if they had come out as predicted.

        Returns:
            Whether a round was planned.

        Raises:
            StudyError: nothing is measured yet, or the plan that is open has not ``n`` points.
        """
        self.latest_round()
        if self._open_rounds() and not more:
            if n not in (None, len(self._designs(self._open_rounds()[-1]))):
                self._refuse_second_plan()
            return False
        return plan_suggestions(self, n or self.config.learning.batch, progress)

    def plan(self, designs: Sequence[Design], progress: ProgressCallback = _silent) -> None:
        """Plan a round of one's own designs instead of suggested ones; predictions are checked likewise.

        Raises:
            StudyError: nothing is measured yet, or a plan is open already.
        """
        self.latest_round()
        if self._open_rounds():
            self._refuse_second_plan()
        known = {point.design for point in self.findings.loop_points()}
        for design in designs:
            if design in known:
                raise StudyError(f"study '{self.config.study}': {design} is measured already")
        self.fit(progress)
        asked = {"expected_gain": None, "cost_s": None, "why": ASKED_FOR}
        journal_plan(self, designs, [asked] * len(designs), asked_for=True)

    def _refuse_second_plan(self) -> NoReturn:
        raise StudyError(
            f"study '{self.config.study}': round {self.latest_round() + 1} is planned already; see it: hadas suggest; "
            "run: hadas measure "
            "(or plan more points beside it: hadas suggest --more)"
        )

    def _open_rounds(self) -> range:
        """Rounds that are planned and not measured."""
        return range(self.findings.n_measured_rounds, self.findings.n_planned_rounds)

    def pending_designs(self) -> list[Design]:
        """What open plans measure, each design once."""
        return list(dict.fromkeys(design for r in self._open_rounds() for design in self._designs(r)))

    # -- the whole loop ------------------------------------------------------------------------

    def run(
        self, progress: ProgressCallback = _silent, budget: Budget | None = None
    ) -> Iterator[RoundSummary]:
        """The whole loop; yields after every measured round (rounds of an earlier run at once).

        Args:
            budget: of time, which says how many rounds there are instead of ``learning.rounds``; what ended the
                loop is in ``budget.stopped``.
        """
        return whole_loop(self, progress, budget)
