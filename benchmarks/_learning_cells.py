"""Cells of the comparison of strategies (task, instance, strategy, seed): worked on in parallel, kept, found again.

A finished cell is a file, so a benchmark that was killed continues where it was.  Files lie in a folder named by a
digest of the code that made them: cells of other code are never taken for those of this.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from _checkout import ROOT
from _learning_tasks import Curve, LearningTask, all_tasks

SOURCES = (
    "benchmarks/_*.py",
    "search/*.py",
    "surrogates/*.py",
    "spaces/*.py",
    "datasets/*.py",
    "measurement/**/*.py",
    "study/seeds.py",
)
"""What a cell may depend on."""

RESULTS = ROOT / "runs" / "bench" / "active_learning"


@dataclass(frozen=True)
class Cell:
    """One run of one strategy."""

    task: str
    instance: str
    strategy: str
    seed: int

    @property
    def file_name(self) -> str:
        """Distinct for distinct cells."""
        readable = "-".join(
            "".join(c if c.isalnum() else "_" for c in part)
            for part in (self.task, self.instance, self.strategy)
        )
        exact = hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:8]
        return f"{readable}-{self.seed}-{exact}.json"


def code_digest(root: Path = ROOT) -> str:
    """Of all code that cells may depend on."""
    digest = hashlib.sha256()
    for pattern in SOURCES:
        for path in sorted(root.glob(pattern)):
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class CellStore:
    """Finished cells as files of one folder."""

    folder: Path

    def find(self, cell: Cell) -> Curve | None:
        """The curve of a finished cell; ``None`` if there is none, or its file is not whole."""
        try:
            document = json.loads((self.folder / cell.file_name).read_text())
            return Curve.from_json(document["curve"]) if document["cell"] == asdict(cell) else None
        except (FileNotFoundError, ValueError, KeyError):
            return None

    def keep(self, cell: Cell, curve: Curve, seconds: float) -> None:
        """Write a finished cell; whoever reads it finds all of it or nothing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / cell.file_name
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(json.dumps({"cell": asdict(cell), "curve": curve.to_json(), "seconds": seconds}))
        partial.replace(path)


def cells_of(
    tasks: Iterable[LearningTask], n_seeds: int, instances: int | None, strategies: Sequence[str]
) -> list[Cell]:
    """Cells in the order of working: whole seeds after one another, so that what is done is paired.

    Args:
        n_seeds: at most so many; slow strategies have fewer.
        instances: only so many of each task; ``None`` for all.
        strategies: only these; empty for all.
    """
    return [
        Cell(task.name, instance, strategy, seed)
        for seed in range(n_seeds)
        for task in tasks
        for strategy, n_own in task.strategies.items()
        for instance in task.instances[:instances]
        if seed < n_own and (not strategies or strategy in strategies)
    ]


def work(cell: Cell) -> tuple[Cell, Curve, float]:
    """Run a cell; tasks hold functions, so a worker process makes its own."""
    began = time.perf_counter()
    curve = all_tasks()[cell.task].run(cell.instance, cell.strategy, cell.seed)
    return cell, curve, time.perf_counter() - began


def work_all(cells: Sequence[Cell], store: CellStore, n_workers: int) -> Mapping[Cell, Curve]:
    """Curves of all cells, over processes of one thread each; those that are kept are not run again."""
    from joblib import Parallel, delayed, parallel_config

    found = {cell: curve for cell in cells if (curve := store.find(cell)) is not None}
    left = [cell for cell in cells if cell not in found]
    if found:
        print(
            f"{len(found)} of {len(cells)} cells were kept from an earlier run", file=sys.stderr, flush=True
        )
    with parallel_config(backend="loky", n_jobs=n_workers, inner_max_num_threads=1):
        for n, (cell, curve, seconds) in enumerate(
            Parallel(return_as="generator_unordered")(delayed(work)(cell) for cell in left), start=1
        ):
            store.keep(cell, curve, seconds)
            found[cell] = curve
            print(f"[{n}/{len(left)}] {cell}: {seconds:.1f} s", file=sys.stderr, flush=True)
    return {cell: found[cell] for cell in cells}
