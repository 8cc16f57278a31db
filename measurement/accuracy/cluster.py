"""Accuracy jobs on a Dask cluster.

With ``distributed.Client`` futures, each placed on one worker, and not through joblib's Dask
backend: that one returns generators, but where a worker dies it leaves the retries to the
scheduler, whose limit is a setting of the cluster (``allowed-failures``), counts all tasks that
the dead worker held as suspects, and ends the whole list with the first task that reaches it.
Placing the jobs here says which job a worker died of, so that it alone is tried again.
"""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Future, InvalidStateError
from contextlib import suppress
from typing import Any

from ...datasets.records import AccuracyRecord
from ...errors import ConfigError
from .running import Job, NoPlaceLeftError

ANSWER_TIMEOUT_S = 10.0
"""How long a scheduler may take to answer."""

WORKERS_TIMEOUT_S = 60.0
"""How long a cluster may be without any worker."""

_CLIENT_LOG = logging.getLogger("distributed.client")


class DaskWorkers:
    """The workers of a running Dask cluster, one job at a time each; those that join later are used too.

    Workers need hadas, and the checkpoint and the images under the same paths.
    """

    poll_s = 0.25

    def __init__(
        self, address: str, n_workers: int | None = None, *, workers_timeout_s: float = WORKERS_TIMEOUT_S
    ) -> None:
        """Connect.

        Args:
            address: of the scheduler, such as ``tcp://host:8786``.
            n_workers: use at most this many; ``None`` = all.
            workers_timeout_s: how long to wait for a worker while there is none.

        Raises:
            ConfigError: the extra ``dask`` is not installed, the address is none, or no scheduler answers.
        """
        try:
            from distributed import Client
            from distributed.comm import get_address_host_port
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"accuracy.cluster: '{error.name}' is not installed; install the extra: pip install 'hadas[dask]'"
            ) from error
        try:
            get_address_host_port(address)
        except ValueError as error:  # a client would not end cleanly after it
            raise ConfigError(
                f"accuracy.cluster '{address}' is no address: {error}; name the one that `dask scheduler` prints, "
                "such as tcp://host:8786"
            ) from error
        try:
            self._client = Client(address, timeout=ANSWER_TIMEOUT_S, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(
                f"accuracy.cluster '{address}': no Dask scheduler answers within {ANSWER_TIMEOUT_S:g} s ({error}); "
                "start one with `dask scheduler`, and name the tcp:// address that it prints"
            ) from error
        # It prints tracebacks when the scheduler dies, which places() says in a sentence.
        self._log_level = _CLIENT_LOG.level
        _CLIENT_LOG.setLevel(logging.CRITICAL)
        self._address = address
        self._n_workers = n_workers
        self._workers_timeout_s = workers_timeout_s
        self._last_seen = time.monotonic()
        self._used: set[str] = set()
        self._dropped: set[str] = set()
        self._running: dict[str, tuple[Any, Future[AccuracyRecord]]] = {}

    def places(self) -> Sequence[str]:
        """Addresses of the workers that are there and were not dropped; jobs of those that are gone end.

        Raises:
            NoPlaceLeftError: all that are there were dropped, and none that was of use may come back.
            ConfigError: the scheduler is gone, or has had no worker for too long.
        """
        try:
            alive = tuple(self._client.nthreads())
        except (OSError, RuntimeError) as error:
            raise ConfigError(
                f"accuracy.cluster '{self._address}': the scheduler answers no more ({error}); start it again, then "
                "run the same command: what is done is stored"
            ) from error
        for place in [place for place in self._running if place not in alive]:
            remote, local = self._running.pop(place)
            remote.cancel()
            _settle(local, BrokenExecutor(f"worker {place} is gone"))
        usable = tuple(place for place in alive if place not in self._dropped)
        waited = time.monotonic() - self._last_seen > self._workers_timeout_s
        if usable:
            self._last_seen = time.monotonic()
        elif alive and (waited or not self._used - self._dropped):
            raise NoPlaceLeftError
        elif waited:
            raise ConfigError(
                f"accuracy.cluster '{self._address}': no worker for {self._workers_timeout_s:g} s; start some with "
                f"`dask worker {self._address} --nthreads 1`"
            )
        # A worker that has a job comes first, so that one which joins does not push it out.
        usable = tuple(sorted(usable, key=lambda place: place not in self._running))
        return usable[: self._n_workers]

    def drop(self, place: str) -> None:
        """Start no more jobs on a worker."""
        self._dropped.add(place)

    def submit(self, place: str, job: Job[AccuracyRecord]) -> Future[AccuracyRecord]:
        """Start a job on one worker."""
        local: Future[AccuracyRecord] = Future()
        # As bytes: the scheduler, which looks into arguments, has no use for what is in them.
        remote = self._client.submit(
            _execute_pickled, pickle.dumps(job), workers=[place], allow_other_workers=False, pure=False
        )
        self._used.add(place)
        self._running[place] = remote, local
        remote.add_done_callback(lambda ended: self._on_end(place, ended, local))
        return local

    def _on_end(self, place: str, remote: Any, local: Future[AccuracyRecord]) -> None:
        """Called in a thread of the client's."""
        try:
            _settle(local, remote.result())
        except BaseException as error:
            _settle(local, _as_death(error) or error)

    def close(self) -> None:
        """Withdraw what is unfinished, and leave the cluster to others."""
        self._client.cancel([remote for remote, _ in self._running.values()])
        self._client.close()
        _CLIENT_LOG.setLevel(self._log_level)


def _execute_pickled(job: bytes) -> AccuracyRecord:
    record: AccuracyRecord = pickle.loads(job).run()
    return record


def _as_death(error: BaseException) -> BrokenExecutor | None:
    """Whether an error says that the worker is gone: cancelled by the scheduler, or given up by it."""
    from distributed.scheduler import KilledWorker

    if isinstance(error, (CancelledError, KilledWorker)):
        return BrokenExecutor(str(error) or type(error).__name__)
    return None


def _settle(future: Future[AccuracyRecord], outcome: AccuracyRecord | BaseException) -> None:
    """Give a future its outcome, unless it has one: a worker may end a job and die before it is noticed."""
    with suppress(InvalidStateError):
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
