"""Accuracies of the mini space, measured here: a supernet trained on the bundled digits, and backbones with all their exits.

    python benchmarks/_mini_accuracies.py [--n 120] [--quick]

What has been measured is kept under ``runs/bench`` and never measured again; a killed run goes on where it was.
Nothing else is needed, no data sets and no network.  On two cores of its own the supernet takes about two minutes and
a backbone three to six seconds; on cores that others use, several times that.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from _checkout import ROOT, make_importable

make_importable()

from hadas.datasets.images import ImageData, load_images  # noqa: E402
from hadas.datasets.records import AccuracyRecord  # noqa: E402
from hadas.datasets.store import Store  # noqa: E402
from hadas.measurement.accuracy.recipes import RECIPE_PRESETS  # noqa: E402
from hadas.measurement.accuracy.supernet_meter import SupernetMeter  # noqa: E402
from hadas.measurement.accuracy.training import TrainedSupernet, train_supernet  # noqa: E402
from hadas.spaces import Backbone, MBConvSpace, mini_space  # noqa: E402

DIRECTORY = ROOT / "runs" / "bench" / "mini"
N_BACKBONES = 120
SEED = 20_230_403
"""Of the random backbones."""
SESSION = "benchmark"
QUICK_IMAGES = 100

Say = Callable[[str], None]


@dataclass(frozen=True)
class MiniAccuracies:
    """What was measured.

    Attributes:
        data: the bundled digits with their splits.
        trained: the supernet.
        records: one valid row per backbone, with outcomes at every exit on the calibration and test split;
            both ends of the space, the presets, random backbones, then those that were asked for besides.
    """

    space: MBConvSpace
    data: ImageData
    trained: TrainedSupernet
    records: tuple[AccuracyRecord, ...]

    @property
    def by_arch_id(self) -> dict[str, AccuracyRecord]:
        """Rows by the backbone's ``arch_id``."""
        return {record.backbone.arch_id: record for record in self.records}


def mini_backbones(n: int, space: MBConvSpace | None = None) -> tuple[Backbone, ...]:
    """Both ends of the mini space, its presets, and random backbones: n in all, those of a smaller n first."""
    space = space or mini_space()
    chosen = dict.fromkeys([space.smallest, space.largest, *space.presets.values()])
    rng = np.random.default_rng(SEED)
    while len(chosen) < n:
        chosen[space.decode(space.sample(1, rng)[0])] = None
    return tuple(chosen)[:n]


def mini_records(
    n: int = N_BACKBONES,
    *,
    further: Sequence[Backbone] = (),
    supernet_seed: int = 0,
    quick: bool = False,
    directory: Path = DIRECTORY,
    say: Say = print,
) -> MiniAccuracies:
    """Accuracies of :func:`mini_backbones`, measured now or found from an earlier call.

    Args:
        n: backbones.
        further: measured too, after them.
        supernet_seed: of the supernet's training.  The accuracies of each supernet are kept apart, by the digest of
            its weights.
        quick: train and measure in seconds on few images: everything is real, nothing is good.
        directory: where weights and rows are kept.
        say: told how it goes on.

    Raises:
        SystemExit: a backbone could not be measured, with the reason.
    """
    space, data = mini_space(), load_images("digits", limit=QUICK_IMAGES if quick else None)
    supernet, exits = RECIPE_PRESETS["smoke" if quick else "demo"]
    supernet = replace(supernet, seed=supernet_seed)
    # Rows are numbered within a session: two supernets can be measured at a time.
    session = f"{SESSION}, supernet {supernet_seed}" if supernet_seed else SESSION
    directory.mkdir(parents=True, exist_ok=True)

    def report(done: int, total: int, loss: float) -> None:
        if done % max(1, total // 10) == 0:
            say(f"supernet: {done} of {total} steps, loss {loss:.2f}")

    trained = train_supernet(space, data, supernet, directory=directory, progress=report)
    store = Store(str(directory / "accuracies.sqlite"))
    try:
        meter = SupernetMeter(space, data, trained, exits)
        backbones = tuple(dict.fromkeys([*mini_backbones(n, space), *further]))
        known = _known(store, meter, backbones)
        missing = [backbone for backbone in backbones if backbone.arch_id not in known]
        first_row = store.next_accuracy_row(session)
        for done, record in enumerate(meter.measure(missing, session=session, first_row=first_row), start=1):
            store.add_accuracy(record)
            if not record.valid:
                raise SystemExit(f"{record.backbone.arch_id}: {record.reason}")
            if done % 10 == 0 or done == len(missing):
                say(f"accuracies: {done} of {len(missing)} measured, {len(known)} were known")
        known = _known(store, meter, backbones)
    finally:
        store.close()
    return MiniAccuracies(space, data, trained, tuple(known[b.arch_id] for b in backbones))


def _known(store: Store, meter: SupernetMeter, backbones: tuple[Backbone, ...]) -> dict[str, AccuracyRecord]:
    found = store.accuracy(
        [backbone.arch_id for backbone in backbones],
        weights_id=meter.weights_id, recipe_id=meter.recipe_id, split_id=meter.split_id,
    )  # fmt: skip
    return {arch_id: record for arch_id, record in found.items() if record.valid}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=N_BACKBONES, help=f"backbones (default: {N_BACKBONES})")
    parser.add_argument("--quick", action="store_true", help="seconds: little training, few images")
    arguments = parser.parse_args()
    began = time.perf_counter()
    found = mini_records(
        arguments.n, quick=arguments.quick, directory=DIRECTORY / "quick" if arguments.quick else DIRECTORY
    )
    final = [record.calibration.fractions[-1] for record in found.records if record.calibration is not None]
    print(
        f"{len(found.records)} backbones, final accuracy {100 * min(final):.1f} to {100 * max(final):.1f} %, "
        f"{time.perf_counter() - began:.0f} s"
    )


if __name__ == "__main__":
    main()
