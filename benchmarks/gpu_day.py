"""What does seeding with accuracies cost on one GPU?  CIFAR-100, the AttentiveNAS space, the paper's resolutions.

One command within a budget of seconds:

1. trains a supernet from scratch for a stated time, first on small images, then on the space's own;
2. measures backbones as a study does (batch-norm calibration, exits at all positions at once,
   evaluation on both splits), one epoch of exits each: the unit costs;
3. trains the exits of some of them for more epochs: how many are within 0.5 points of 30, with 95 %
   confidence?  Where exits only guess after 30 epochs, that cannot be told, and 30 it is;
4. projects 100 seed backbones at that number of epochs, and at 30, in GPU-hours.

The seconds of an epoch do not depend on accuracies, but the number of epochs is chosen by them, and the
supernet is young: on one trained for longer another number may do.  The projection at 30 epochs rests on
costs alone.  When the budget is
spent in the middle of a part, the result is printed all the same: what was not reached is null, and
it does not hold.

Without CUDA, or with `--quick`, a tiny form runs on the CPU, in the mini space: it shows that every
part works and that counts and seconds add up, and nothing about a GPU.  Runs from a bare checkout
with torch, numpy, pyarrow and pillow (and torchvision for its own layout of CIFAR).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _checkout import ROOT, make_importable

SCRATCH = tempfile.TemporaryDirectory()
make_importable()

from _gpu_day_figures import Rung  # noqa: E402
from _gpu_day_result import SEED, Form, State, result_of, rounded, space_at  # noqa: E402

from hadas.datasets.images import ImageData, ImageSplit, load_images  # noqa: E402
from hadas.measurement.accuracy.checkpoints import read_checkpoint  # noqa: E402
from hadas.measurement.accuracy.recipes import (  # noqa: E402
    GPU_EXITS,
    GPU_SUPERNET,
    SupernetRecipe,
)
from hadas.measurement.accuracy.supernet_meter import SupernetMeter  # noqa: E402
from hadas.measurement.accuracy.training import TrainedSupernet, train_supernet  # noqa: E402
from hadas.spaces import Backbone, MBConvSpace  # noqa: E402

PILOT_STEPS = 4

GPU = Form(
    device="cuda", space="attentivenas", budget_s=500.0, training_share=0.14, small_resolutions=(128, 160),
    resolutions=(192, 224, 256, 288), limit=None, ladder=(30, 10, 5, 3), ladder_backbones=3,
    # Images per step: what the activations of the largest backbone leave of 80 GB, with room.
    supernet_batches=(384, 96),
    supernet=replace(
        GPU_SUPERNET, learning_rate=0.2, sampled=1, max_shift=2, dropout=0.0, drop_connect=0.0
    ),
    exits=replace(GPU_EXITS, threads=1),
)  # fmt: skip
CPU = Form(
    device="cpu", space="mini", budget_s=150.0, training_share=0.15, small_resolutions=(16,),
    resolutions=(16, 20, 24), limit=800, ladder=(4, 2), ladder_backbones=2, supernet_batches=(64, 64),
    supernet=SupernetRecipe(),
    exits=replace(GPU_EXITS, calibration_batches=4, batch_size=64, precision="float32", threads=1),
)  # fmt: skip


class Clock:
    """Seconds since the command began, against its budget."""

    def __init__(self, budget_s: float) -> None:
        self._began = time.perf_counter()
        self._budget_s = budget_s

    @property
    def spent_s(self) -> float:
        return time.perf_counter() - self._began

    @property
    def left_s(self) -> float:
        return self._budget_s - self.spent_s


def train(
    form: Form, space: MBConvSpace, data: ImageData, directory: Path
) -> tuple[TrainedSupernet, list[dict[str, Any]]]:
    """A supernet trained for its share of the budget: two thirds on small images, then on the space's own."""
    share_s = form.training_share * form.budget_s
    sittings = []
    trained: TrainedSupernet | None = None
    for sitting_space, batch, part in zip(
        (space_at(form, form.small_resolutions), space), form.supernet_batches, (2 / 3, 1 / 3), strict=True
    ):
        recipe = replace(form.supernet, batch_size=batch, seed=SEED)
        trained, row = _sitting(sitting_space, data, recipe, form.device, part * share_s, directory, trained)
        sittings.append(row)
    assert trained is not None
    return trained, sittings


def _sitting(
    space: MBConvSpace, data: ImageData, recipe: SupernetRecipe, device: str, share_s: float, directory: Path,
    start: TrainedSupernet | None,
) -> tuple[TrainedSupernet, dict[str, Any]]:  # fmt: skip
    """As many steps as the share allows, by the pace of a few."""
    began = time.perf_counter()
    weights = None if start is None else read_checkpoint(start.path)
    ends: list[float] = []
    losses_by_step: list[float] = []

    def note(_done: int, _total: int, loss: float) -> None:
        ends.append(time.perf_counter())
        losses_by_step.append(loss)

    def steps_of(n: int) -> TrainedSupernet:
        return train_supernet(
            space, data, replace(recipe, steps=n), directory=directory, device=device, start=weights, progress=note
        )  # fmt: skip

    steps_of(PILOT_STEPS)
    pace_s = statistics.median(np.diff(ends))
    n_steps = max(PILOT_STEPS + 1, int((share_s - (time.perf_counter() - began)) / pace_s))
    trained = steps_of(n_steps)
    row = {
        "resolutions": space.macro.resolutions,
        "steps": n_steps,
        "images_per_step": recipe.batch_size,
        "share_s": share_s,
        "pilot_and_steps_s": time.perf_counter() - began,
        "steps_s": trained.seconds,
        "loss_first": losses_by_step[PILOT_STEPS],
        "loss_last": statistics.fmean(losses_by_step[-10:]),
    }
    print(
        f"supernet at {row['resolutions']} pixels: {n_steps} steps of {recipe.batch_size} images, "
        f"{trained.seconds:.1f} s, loss {row['loss_last']:.2f}",
        flush=True,
    )
    return trained, row


class Bench:
    """Measures rungs on one supernet."""

    def __init__(self, state: State, space: MBConvSpace, data: ImageData, trained: TrainedSupernet) -> None:
        self.state, self.space, self.data, self.trained = state, space, data, trained

    def warm_up(self, backbone: Backbone) -> None:
        """Choice of kernels and memory for the shapes of a backbone, so that they are not timed."""
        batch = self.state.form.exits.batch_size
        few = replace(
            self.data,
            train=_first(self.data.train, batch),
            calibration=_first(self.data.calibration, batch),
            test=_first(self.data.test, batch),
        )
        next(self._meter(few, 1).measure([backbone], session="warm-up"))

    def measure(self, name: str, backbone: Backbone, epochs: int) -> Rung | None:
        """One rung; a failure is kept with its reason."""
        meter = self._meter(self.data, epochs)
        began = time.perf_counter()
        record = next(meter.measure([backbone], session="gpu_day"))
        rung = Rung(name, backbone, epochs, time.perf_counter() - began, record)
        if not record.valid:
            self.state.failures.append(f"{name}, {epochs} epochs: {record.reason}")
            return None
        self.state.rungs.append(rung)
        seconds = " ".join(f"{step} {value:.2f}" for step, value in record.seconds.items())
        print(
            f"{name:9} {epochs:3} epochs: {rung.wall_s:6.1f} s ({seconds}), "
            f"mean exit accuracy {100 * rung.mean_exit_accuracy():.2f} %",
            flush=True,
        )
        return rung

    def _meter(self, data: ImageData, epochs: int) -> SupernetMeter:
        form = self.state.form
        recipe = replace(form.exits, epochs=epochs, seed=SEED)
        return SupernetMeter(self.space, data, self.trained, recipe, device=form.device)


def _first(split: ImageSplit, n: int) -> ImageSplit:
    return ImageSplit(split.images[:n], split.labels[:n], split.group[:n])


def chosen_backbones(space: MBConvSpace) -> dict[str, Backbone]:
    """The smallest, the middle and the largest preset (a0, a3, a6), and a random backbone."""
    random = space.decode(space.sample(1, np.random.default_rng(SEED))[0])
    presets = list(space.presets.items())
    return {**dict(presets[::3]), "random": random}


def run(state: State, clock: Clock, data_path: Path | None, directory: Path) -> None:
    """All parts in their order; each rung starts only if its estimate fits into what is left."""
    form = state.form
    data = load_images("digits" if data_path is None else "cifar100", path=data_path, limit=form.limit)
    state.n_classes = data.n_classes
    state.data = f"{data.split_id}, {len(data.train)} / {len(data.calibration)} / {len(data.test)} images"
    space = space_at(form, form.resolutions)
    _end_phase(state, clock, "start and data")
    trained, state.training = train(form, space, data, directory)
    _end_phase(state, clock, "supernet")
    bench = Bench(state, space, data, trained)
    for name, backbone in chosen_backbones(space).items():
        bench.warm_up(backbone)
        bench.measure(name, backbone, 1)
    _end_phase(state, clock, "unit costs")
    for unit, epochs in ladder_order(state.rungs, form):
        is_reference = epochs == form.ladder[0]
        if is_reference or any(r.name == unit.name and r.epochs == form.ladder[0] for r in state.rungs):
            # A reference without a rung to compare it with would show nothing.
            needed = epochs + (form.ladder[1] if is_reference else 0)
            # A tenth more than foretold, so that a rung ends within the budget.
            if 1.1 * ((1 + is_reference) * unit.other_s + needed * unit.epoch_s) < clock.left_s:
                bench.measure(unit.name, unit.backbone, epochs)
    _end_phase(state, clock, "ladder")


def _end_phase(state: State, clock: Clock, name: str) -> None:
    state.phases_s[name] = clock.spent_s - sum(state.phases_s.values())


def ladder_order(rungs: list[Rung], form: Form) -> list[tuple[Rung, int]]:
    """Reference and next rung of the two cheapest backbones, their other rungs, then further backbones."""
    units = sorted(rungs, key=lambda rung: rung.wall_s)[: form.ladder_backbones]
    first = [(unit, epochs) for unit in units[:2] for epochs in form.ladder[:2]]
    others = [(unit, epochs) for epochs in form.ladder[2:] for unit in units[:2]]
    return first + others + [(unit, epochs) for unit in units[2:] for epochs in form.ladder]


class Printer:
    """Prints the result once: at the end, or when the budget is spent."""

    def __init__(self, state: State, clock: Clock, as_json: bool, out: Path | None) -> None:
        self._state, self._clock, self._as_json, self._out = state, clock, as_json, out
        self._once = threading.Lock()

    def __call__(self) -> None:
        if not self._once.acquire(blocking=False):
            return
        result = rounded(result_of(self._state, self._clock.spent_s))
        for name, value in result["figures"].items():
            print(f"{name:32} {value}")
        print(f"holds: {result['holds']}   {result['checks']}   ({result['form']})")
        if self._out is not None:
            self._out.parent.mkdir(parents=True, exist_ok=True)
            self._out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        if self._as_json:
            print(json.dumps(result))
        sys.stdout.flush()

    def cut_short(self) -> None:
        """The budget is spent in the middle of a part: print what there is, and end."""
        print("the budget is spent: what follows is all that was reached")
        try:
            self()
            SCRATCH.cleanup()
        finally:
            os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of CIFAR-100 (default: ../shared/data/images)")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--out", type=Path, help="also write the result to this file")
    parser.add_argument("--quick", action="store_true", help="the tiny form, on the CPU")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="default: cuda where there is one")
    parser.add_argument("--budget-s", type=float, help="seconds in all (default: 500, the tiny form 150)")
    arguments = parser.parse_args()
    if arguments.quick and arguments.device == "cuda":
        parser.error("--quick is the form for the CPU; leave one of the two out")
    device = arguments.device or ("cuda" if torch.cuda.is_available() and not arguments.quick else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA GPU here")
    form = GPU if device == "cuda" else CPU
    form = replace(form, budget_s=arguments.budget_s or form.budget_s)
    data_path = arguments.data or ROOT.parent / "shared" / "data" / "images"
    if arguments.data is None and not data_path.is_dir() and not form.on_gpu:
        print("no folder of CIFAR-100 given: the digits that scikit-learn bundles instead")
        data_path = None
    if not form.on_gpu:
        print("THE CPU FORM: tiny; it checks the parts and the arithmetic, and says nothing about a GPU")
    state, clock = State(form), Clock(form.budget_s)
    printer = Printer(state, clock, arguments.json, arguments.out)
    watchdog = threading.Timer(form.budget_s, printer.cut_short)
    watchdog.daemon = True
    watchdog.start()
    try:
        run(state, clock, data_path, Path(SCRATCH.name, "weights"))
        state.finished = True
    except Exception as error:  # what was reached before is worth printing
        traceback.print_exc()
        state.failures.append(f"{type(error).__name__}: {error}")
    watchdog.cancel()
    printer()
    if not state.finished:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
