"""Accuracy jobs on several processes, GPUs or machines: in order, and in spite of workers that die.

A worker runs one job at a time, and the job that it dies of is known: it is tried again, wherever
there is room, at most :data:`RETRIES` times, then it becomes a record with its reason.  No other
job is touched.  A place that refuses, because its files or its hadas differ, gets no further jobs of
the list, and the others do what it was given; where all refuse, what is left becomes records that
name each place and its reason, or one error that does.  Records come in the order of the list, as soon
as those before them are there.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

from ...datasets.records import AccuracyRecord
from ...errors import ConfigError
from ...spaces import Backbone
from .jobs import AccuracyJob, PlaceRefusedError, SupernetSource

_log = logging.getLogger(__name__)

Record = TypeVar("Record")
Record_co = TypeVar("Record_co", covariant=True)

RETRIES = 2
"""How many more times a job is tried whose worker died."""

_AHEAD = 4
"""Jobs per worker that may be finished before one that comes earlier in the list: a kill loses these."""

_WATCH_S = 1.0
"""How often a process looks whether its parent is there."""

_HANDOVER_S = 5.0
"""How long a job may take from its submission to its process, before this stops waiting for it."""


class NoPlaceLeftError(Exception):
    """All places that there are have refused."""


class Job(Protocol[Record_co]):
    """A piece of work that a process can be given: what it needs is named in it, nothing is loaded yet."""

    def on(self, device: str) -> Job[Record_co]:
        """The same job for another device."""
        ...

    def run(self) -> Record_co:
        """Do it in this process.

        Raises:
            PlaceRefusedError: this machine cannot do any such job.
        """
        ...

    def failed(self, reason: str) -> Record_co:
        """The record of this job if it could not be done."""
        ...


class Workers(Protocol[Record]):
    """Places that run one job each at a time, in processes of their own."""

    @property
    def poll_s(self) -> float | None:
        """Seconds after which :meth:`places` must be asked again; ``None``: only when a job ends."""
        ...

    def places(self) -> Sequence[str]:
        """Names of all places that take jobs now, busy or not, without those that were dropped.

        Raises:
            NoPlaceLeftError: all were dropped, and no other will come.
            ConfigError: there are none, and none will come.
        """
        ...

    def drop(self, place: str) -> None:
        """Use a place no more."""
        ...

    def submit(self, place: str, job: Job[Record]) -> Future[Record]:
        """Start a job; its future raises ``BrokenExecutor`` if the worker dies meanwhile."""
        ...

    def close(self) -> None:
        """End all workers that were started here, and what they are at."""
        ...


class JobMeter:
    """An accuracy meter whose jobs run on workers; its records are those of the meter in this process."""

    def __init__(
        self, source: SupernetSource, start_workers: Callable[[], Workers[AccuracyRecord]], *,
        check: Callable[[Sequence[Backbone]], None] | None = None,
    ) -> None:  # fmt: skip
        """Set out what to measure and where.

        Args:
            start_workers: called when there is something to measure.
            check: called before that, to refuse backbones that the workers have no memory for.
        """
        self._source = source
        self._check = check
        self._start_workers = start_workers

    @property
    def weights_id(self) -> str:
        """Hash of the supernet's weights."""
        return self._source.weights_id

    @property
    def recipe_id(self) -> str:
        """Hash of the exit recipe."""
        return self._source.recipe_id

    @property
    def split_id(self) -> str:
        """The data's splits."""
        return self._source.split_id

    def measure(
        self, backbones: Sequence[Backbone], *, session: str, first_row: int = 0
    ) -> Generator[AccuracyRecord, None, None]:
        """Yield one record per backbone, in order; one that fails yields an invalid record.

        Raises:
            ConfigError: there are no workers, or not the memory for what they should keep.
        """
        if backbones:
            if self._check is not None:
                self._check(backbones)
            jobs = [
                AccuracyJob(self._source, backbone, session, row_no)
                for row_no, backbone in enumerate(backbones, start=first_row)
            ]
            yield from run_jobs(jobs, self._start_workers())


def run_jobs(
    jobs: Sequence[Job[Record]], workers: Workers[Record], *, refusals_are_records: bool = True
) -> Generator[Record, None, None]:
    """Run jobs on workers, and close the workers at the end, however it comes.

    Args:
        refusals_are_records: whether a job that no place takes becomes a failed record.

    Yields:
        One record per job, in the order of the jobs.

    Raises:
        PlaceRefusedError: no place is left that takes the next job, and that is not to become a record.
    """
    run = _Run(jobs, workers, refusals_are_records)
    try:
        run.start_jobs()
        for number in range(len(jobs)):
            while number not in run.done:
                run.check_places()
                run.collect()
                run.start_jobs()
            run.n_yielded = number + 1
            run.start_jobs()
            yield run.done.pop(number)
    finally:
        workers.close()


class _Run(Generic[Record]):
    """What became of the jobs of one list so far."""

    def __init__(
        self, jobs: Sequence[Job[Record]], workers: Workers[Record], refusals_are_records: bool
    ) -> None:
        self._jobs = jobs
        self._workers = workers
        self._refusals_are_records = refusals_are_records
        self._none_left = False
        self._todo = deque(range(len(jobs)))
        self._deaths: Counter[int] = Counter()
        self._running: dict[Future[Record], tuple[int, str]] = {}
        self._refusals: dict[str, str] = {}
        self.done: dict[int, Record] = {}
        self.n_yielded = 0

    def start_jobs(self) -> None:
        """Give a job to every place that has none."""
        if not self._todo:
            return
        try:
            places = self._workers.places()
        except NoPlaceLeftError:
            self._none_left = True
            while self._todo and self._refusals_are_records:
                number = self._todo.popleft()
                self.done[number] = self._jobs[number].failed(_refusal_reason(self._refusals))
            return
        busy = {place for _, place in self._running.values()}
        for place in places:
            if place in busy or not self._todo or self._todo[0] >= self.n_yielded + _AHEAD * len(places):
                continue
            number = self._todo.popleft()
            self._running[self._workers.submit(place, self._jobs[number])] = number, place

    def check_places(self) -> None:
        """See that something runs, or that there is a place for what does not.

        Raises:
            PlaceRefusedError: there is none.
        """
        if self._none_left and not self._running:
            raise PlaceRefusedError(_refusal_reason(self._refusals))

    def collect(self) -> None:
        """Wait until something ends, or until places must be asked for again."""
        if not self._running:
            time.sleep(self._workers.poll_s or 0.0)
            return
        ended, _ = wait(self._running, timeout=self._workers.poll_s, return_when=FIRST_COMPLETED)
        if not ended:
            with suppress(NoPlaceLeftError):  # of use to those that come next, not to those that run
                self._workers.places()  # notices workers that are gone
        for future in ended:
            number, place = self._running.pop(future)
            try:
                self.done[number] = future.result()
            except BrokenExecutor as death:
                self._deaths[number] += 1
                if self._deaths[number] <= RETRIES:
                    self._todo.appendleft(number)
                else:
                    self.done[number] = self._jobs[number].failed(_death_reason(death))
            except PlaceRefusedError as refusal:
                self._refuse(number, place, str(refusal))
            except Exception as error:  # such as a worker without hadas: no reason to end the others' work
                self._refuse(number, place, f"{type(error).__name__}: {error}")

    def _refuse(self, number: int, place: str, reason: str) -> None:
        """Leave a job to other places than the one that refused it."""
        _log.warning("%s gets no more accuracy jobs, because it refuses: %s", place, reason)
        self._refusals[place] = reason
        self._workers.drop(place)
        self._todo.appendleft(number)


def _refusal_reason(refusals: Mapping[str, str]) -> str:
    shown = [f"{place}: {' '.join(reason.split())[:400]}" for place, reason in list(refusals.items())[:3]]
    more = f"; and {len(refusals) - 3} more" if len(refusals) > 3 else ""
    return "no worker is left that takes it; " + "; ".join(shown) + more


def _death_reason(death: BrokenExecutor) -> str:
    return (
        f"its worker died {RETRIES + 1} times, as when memory runs out; the last time: "
        f"{' '.join(str(death).split())[:400]}"
    )


class ProcessWorkers(Generic[Record]):
    """Processes of this machine, each with a device of its own choice or the same for all.

    They are joblib's (loky), one executor per process.  ``joblib.Parallel`` over one executor would
    end with the first process that dies, drop what the others are at, and not say which job did it.
    """

    poll_s = None

    def __init__(self, devices: Sequence[str]) -> None:
        """Args: devices: one per process, as in :func:`~.devices.resolve_device`."""
        self._devices = {f"process {i} on {device}": device for i, device in enumerate(devices)}
        self._executors: dict[str, Executor] = {}
        self._latest: dict[str, Future[Record]] = {}

    def places(self) -> Sequence[str]:
        """One per process, until it is dropped: a process that died is replaced by the next job.

        Raises:
            NoPlaceLeftError: all were dropped.
        """
        if not self._devices:
            raise NoPlaceLeftError
        return tuple(self._devices)

    def drop(self, place: str) -> None:
        """Start no more jobs on a device that has no use for them; its process ends with the others."""
        del self._devices[place]

    def submit(self, place: str, job: Job[Record]) -> Future[Record]:
        """Start a job on the device of the place."""
        job = job.on(self._devices[place])
        try:
            future = self._executors[place].submit(job.run)
        except (KeyError, BrokenExecutor):
            self._executors[place] = _one_process()
            future = self._executors[place].submit(job.run)
        self._latest[place] = future
        return future

    def close(self) -> None:
        """Kill the processes."""
        deadline = time.monotonic() + _HANDOVER_S
        for place, executor in self._executors.items():
            # Loky stumbles over being closed between taking a job and handing it to its process.
            while not (self._latest[place].running() or self._latest[place].done()):
                if time.monotonic() > deadline:
                    break
                time.sleep(0.001)
            executor.shutdown(kill_workers=True)  # type: ignore[call-arg]  # loky's own
        self._executors.clear()


def _one_process() -> Executor:
    from joblib.externals.loky.process_executor import ProcessPoolExecutor

    # Without a timeout: a process that idles keeps its supernet and images.
    executor: Executor = ProcessPoolExecutor(
        max_workers=1, timeout=None, initializer=_end_with, initargs=(os.getpid(),)
    )
    return executor


def _end_with(parent: int) -> None:
    """Let this process end when its parent does; one that is killed has no time to see to it."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def cpu_count() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu_places(n_workers: int | None, n_gpus: int) -> tuple[str, ...]:
    """The GPU of each worker: one worker per GPU, or as many as asked for, dealt out in turn.

    Raises:
        ConfigError: there is no GPU.
    """
    if n_gpus == 0:
        raise ConfigError(
            "accuracy.workers 'gpus': torch finds no CUDA device on this machine; set it to threads or processes"
        )
    return tuple(f"cuda:{i % n_gpus}" for i in range(n_workers or n_gpus))
