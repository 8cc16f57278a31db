"""Accuracy jobs on processes and on a Dask cluster: the records of this process, whatever dies meanwhile."""

from __future__ import annotations

import dataclasses
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import psutil
import pytest

from hadas.datasets.images import ImageData, load_images
from hadas.datasets.records import AccuracyRecord
from hadas.errors import ConfigError
from hadas.measurement.accuracy import cluster, running
from hadas.measurement.accuracy.cluster import DaskWorkers
from hadas.measurement.accuracy.evaluation import fixed_threads
from hadas.measurement.accuracy.jobs import AccuracyJob, PlaceRefusedError, SupernetSource, execute_job
from hadas.measurement.accuracy.recipes import SMOKE_EXITS, SMOKE_SUPERNET
from hadas.measurement.accuracy.running import JobMeter, ProcessWorkers, gpu_places, run_jobs
from hadas.measurement.accuracy.supernet_meter import SupernetMeter
from hadas.measurement.accuracy.training import TrainedSupernet, space_digest, train_supernet
from hadas.spaces import Backbone, attentivenas_space, mini_space

LIMIT = 10
RECIPE = dataclasses.replace(SMOKE_EXITS, calibration_batches=1, train_images=64, threads=1)
BACKBONES: list[Backbone] = list(mini_space().presets.values())[:4]


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load_images("digits", limit=LIMIT)


@pytest.fixture(scope="module")
def trained(digits: ImageData, tmp_path_factory: pytest.TempPathFactory) -> TrainedSupernet:
    recipe = dataclasses.replace(SMOKE_SUPERNET, steps=2, batch_size=16, sampled=1, threads=1)
    return train_supernet(mini_space(), digits, recipe, directory=tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def source(digits: ImageData, trained: TrainedSupernet) -> SupernetSource:
    return SupernetSource(
        space="mini", space_digest=space_digest(mini_space()), checkpoint=str(trained.path), ema=False,
        data="digits", data_path=None, data_limit=LIMIT, recipe=RECIPE, weights_id=trained.weights_id,
        recipe_id=RECIPE.recipe_id, split_id=digits.split_id,
    )  # fmt: skip


@pytest.fixture(scope="module")
def by_threads(digits: ImageData, trained: TrainedSupernet) -> list[AccuracyRecord]:
    """What today's threads in this process say of four backbones and of one that the space lacks."""
    meter = SupernetMeter(mini_space(), digits, trained, RECIPE)
    with fixed_threads(1):
        return list(meter.measure([*BACKBONES, attentivenas_space().presets["a0"]], session="s", first_row=3))


@pytest.fixture(scope="module")
def dask_address() -> Iterator[str]:
    from distributed import LocalCluster

    options = {"dashboard_address": ":0", "silence_logs": 50}
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, **options) as local:
        yield local.scheduler_address


def content(record: AccuracyRecord) -> list[Any]:
    """Everything in a record but the seconds it took."""
    fields = {f.name: getattr(record, f.name) for f in dataclasses.fields(record) if f.name != "seconds"}
    for name in ("calibration", "test"):
        fields[name] = fields[name] and fields[name].to_bytes()
    return [fields]


class DiesWhenUnpacked:
    """Ends the process that unpickles it, as running out of memory would."""

    def __reduce__(self) -> tuple[Callable[[int], Any], tuple[int]]:
        return os._exit, (9,)


class Watched:
    """Workers that remember who was given what."""

    def __init__(self, workers: Any) -> None:
        self._workers = workers
        self.given: list[tuple[str, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._workers, name)

    def submit(self, place: str, job: AccuracyJob) -> Future[AccuracyRecord]:
        self.given.append((place, job.row_no))
        return self._workers.submit(place, job)

    def pid(self, place: str) -> int:
        """Of the process behind a place."""
        if isinstance(self._workers, ProcessWorkers):
            (pid,) = self._workers._executors[place]._processes
            return pid
        return self._workers._client.run(os.getpid, workers=[place])[place]


def jobs_of(source: SupernetSource, backbones: Sequence[Backbone]) -> list[AccuracyJob]:
    return [AccuracyJob(source, backbone, "s", row_no) for row_no, backbone in enumerate(backbones, start=3)]


@pytest.fixture
def one_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker takes seconds to start, so a job that kills workers is tried twice here, not three times."""
    monkeypatch.setattr(running, "RETRIES", 1)


def check_deaths(workers: Watched, source: SupernetSource, expected: list[AccuracyRecord]) -> None:
    """One worker is killed while it works, and one job kills every worker: nothing else is lost."""
    backbones = [*BACKBONES, attentivenas_space().presets["a0"]]
    jobs = jobs_of(source, backbones)
    fatal = dataclasses.replace(jobs[0], session=DiesWhenUnpacked(), row_no=99)  # type: ignore[arg-type]
    records = run_jobs([*jobs[:3], fatal, *jobs[3:]], workers)
    found = [next(records)]
    place = next(place for place, row in reversed(workers.given) if row not in (3, 99))
    os.kill(workers.pid(place), signal.SIGKILL)
    found += records
    lost = found.pop(3)
    assert [content(record) for record in found] == [content(record) for record in expected]
    assert (lost.valid, lost.row_no, lost.test) == (False, 99, None)
    assert f"its worker died {running.RETRIES + 1} times" in lost.reason
    given = [row for _, row in workers.given]
    assert given.count(99) == running.RETRIES + 1
    # What the killed worker was at is given once more, and nothing else; it may have been between two jobs.
    again = [row for row in set(given) - {99} if given.count(row) > 1]
    assert [given.count(row) for row in again] in ([2], [])


@pytest.mark.usefixtures("one_retry")
def test_processes_give_the_same_records_though_workers_die(
    source: SupernetSource, by_threads: list[AccuracyRecord]
) -> None:
    assert [record.valid for record in by_threads] == [True] * 4 + [False]
    check_deaths(Watched(ProcessWorkers(["cpu", "cpu"])), source, by_threads)


def test_a_dask_cluster_gives_the_same_records(
    source: SupernetSource, by_threads: list[AccuracyRecord], dask_address: str
) -> None:
    meter = JobMeter(source, lambda: DaskWorkers(dask_address))
    backbones = [record.backbone for record in by_threads]
    found = list(meter.measure(backbones, session="s", first_row=3))
    assert [content(record) for record in found] == [content(record) for record in by_threads]


@pytest.mark.usefixtures("one_retry")
def test_a_dask_cluster_loses_nothing_when_workers_die(
    source: SupernetSource, by_threads: list[AccuracyRecord], dask_address: str
) -> None:
    check_deaths(Watched(DaskWorkers(dask_address)), source, by_threads)


def test_a_process_has_a_device_of_its_own_and_ends_with_the_list(source: SupernetSource) -> None:
    """Whatever the jobs say, they run on the device of the process; this one is on no machine."""
    workers = Watched(ProcessWorkers(["cuda:99"]))
    records = run_jobs(jobs_of(source, BACKBONES), workers)
    first = next(records)
    assert not first.valid
    assert re.search(r"no worker is left .*; process 0 on cuda:99: .*'cuda:99': torch finds", first.reason)
    process = psutil.Process(workers.pid("process 0 on cuda:99"))
    assert [record.reason for record in records] == [first.reason] * 3
    assert len(workers.given) == 1
    process.wait(timeout=20)
    assert not process.is_running()


def have_other_hadas(digest: str | None) -> None:
    """Run on a worker: let its spaces have another digest, or their own again."""
    from hadas.measurement.accuracy import jobs, training

    jobs._loaded.cache_clear()
    jobs.space_digest = training.space_digest if digest is None else lambda space: digest


def test_a_dask_worker_that_refuses_leaves_its_jobs_to_the_others(
    source: SupernetSource,
    by_threads: list[AccuracyRecord],
    dask_address: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from distributed import Client

    with Client(dask_address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)  # one that a test before killed may be starting again
        one, other = client.nthreads()
        client.run(have_other_hadas, "mini-0", workers=[one])
        try:
            workers = Watched(DaskWorkers(dask_address))
            found = list(run_jobs(jobs_of(source, BACKBONES), workers))
            told = [record.message for record in caplog.records if record.name == running.__name__]
            client.run(have_other_hadas, "mini-0", workers=[other])
            (lost,) = run_jobs(jobs_of(source, BACKBONES[:1]), DaskWorkers(dask_address))
        finally:
            client.run(have_other_hadas, None)
    assert [content(record) for record in found] == [content(record) for record in by_threads[:4]]
    assert [place for place, _ in workers.given].count(one) == 1
    assert [message.split(" gets no more accuracy jobs")[0] for message in told] == [one]
    assert not lost.valid
    assert re.search(rf"{one}: SpaceError: space 'mini' has other choices", lost.reason), lost.reason
    assert f"{other}: SpaceError" in lost.reason


PARENT = """
import pickle, sys
from hadas.measurement.accuracy.running import ProcessWorkers
workers = ProcessWorkers(["cuda:99"])
place = workers.places()[0]
workers.submit(place, pickle.loads(bytes.fromhex(sys.argv[1]))).exception()
print(*workers._executors[place]._processes, flush=True)
sys.stdin.read()
"""


def test_processes_end_with_a_parent_that_is_killed(source: SupernetSource) -> None:
    job = pickle.dumps(jobs_of(source, BACKBONES)[0]).hex()
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, job], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        process = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    process.wait(timeout=20)
    assert not process.is_running()


def test_gpus_are_dealt_out_in_turn() -> None:
    assert gpu_places(None, 3) == ("cuda:0", "cuda:1", "cuda:2")
    assert gpu_places(3, 2) == ("cuda:0", "cuda:1", "cuda:0")
    assert gpu_places(1, 4) == ("cuda:0",)
    with pytest.raises(ConfigError, match="no CUDA device"):
        gpu_places(2, 0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"weights_id": "0123"}, "CheckpointError: .*weights .* here, 0123 asked for"),
        ({"split_id": "digits-0"}, "DataError: .*splits digits-.* here, digits-0 asked for"),
        ({"data_limit": 20}, "DataError: .*same files"),
        ({"recipe_id": "exits-0"}, "ConfigError: recipe exits-0 is exits-.* same version of hadas"),
        ({"space_digest": "mini-0"}, "SpaceError: space 'mini' has other choices here"),
        ({"checkpoint": "/nowhere/w.pt"}, "CheckpointError: /nowhere/w.pt"),
    ],
)
def test_a_worker_with_other_files_refuses(
    source: SupernetSource, changes: dict[str, Any], reason: str
) -> None:
    other = dataclasses.replace(source, **changes)
    with pytest.raises(PlaceRefusedError, match=f"^{reason}"):
        execute_job(AccuracyJob(other, BACKBONES[0], "s", 0))


def test_a_cluster_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "ANSWER_TIMEOUT_S", 0.5)
    with pytest.raises(ConfigError, match=r"tcp://127.0.0.1:9.*answers within 0.5 s"):
        DaskWorkers("tcp://127.0.0.1:9")
    for address in ("nonsense", "tcp://host:port", "other://host:1"):
        with pytest.raises(ConfigError, match=rf"'{address}' is no address: .*such as tcp://host:8786"):
            DaskWorkers(address)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"pip install 'hadas\[dask\]'"):
        DaskWorkers("tcp://127.0.0.1:9")


def test_a_cluster_without_workers_is_named() -> None:
    from distributed import LocalCluster

    with LocalCluster(n_workers=0, processes=True, dashboard_address=":0", silence_logs=50) as empty:
        workers = DaskWorkers(empty.scheduler_address, workers_timeout_s=0.2)
        assert workers.places() == ()
        time.sleep(0.3)
        with pytest.raises(ConfigError, match=r"no worker for 0\.2 s; start some with `dask worker "):
            workers.places()
        workers.close()
