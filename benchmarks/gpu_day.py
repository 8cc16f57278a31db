"""What does seeding with accuracies cost on one GPU?  CIFAR-100, the AttentiveNAS space, the paper's resolutions.

One command within a budget of seconds:

1. trains a supernet from scratch for a stated time, first on small images, then on the space's own;
2. measures backbones as a study does (batch-norm calibration, exits at all positions at once,
   evaluation on both splits), one epoch of exits each: the unit costs;
3. trains the exits of some of them for more epochs: how many epochs are within 0.5 points of 30?
4. projects 100 seed backbones at that number of epochs, in GPU-hours.

The supernet is young, so its accuracies say little; costs do not depend on them.  Without CUDA, or
with `--quick`, a tiny form runs on the CPU, in the mini space: it shows that every part works and
that counts and seconds add up, and nothing about a GPU.  When the budget is spent in the middle of a
part, the result is printed all the same: what was not reached is null, and nothing holds.  Runs from a bare checkout with torch, numpy, pyarrow, pillow
(and torchvision for its own layout of CIFAR).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
_links = tempfile.TemporaryDirectory()
if importlib.util.find_spec("hadas") is None:  # a bare checkout: its root folder is the package
    Path(_links.name, "hadas").symlink_to(ROOT, target_is_directory=True)
    sys.path.insert(0, _links.name)

from _gpu_day_figures import (  # noqa: E402
    Rung,
    foretold_error,
    losses,
    projection,
    seeding,
    sufficient_epochs,
)

from hadas.datasets.images import ImageData, ImageSplit, load_images  # noqa: E402
from hadas.measurement.accuracy.checkpoints import read_checkpoint  # noqa: E402
from hadas.measurement.accuracy.recipes import (  # noqa: E402
    GPU_EXITS,
    GPU_SUPERNET,
    ExitRecipe,
    SupernetRecipe,
)
from hadas.measurement.accuracy.supernet_meter import SupernetMeter  # noqa: E402
from hadas.measurement.accuracy.training import TrainedSupernet, train_supernet  # noqa: E402
from hadas.spaces import Backbone, MBConvSpace, space_by_name  # noqa: E402

SEED = 0
GOAL_HOURS = 6.0
PAPER_GPU_HOURS = (56, 70)
"""For training exits in the HADAS paper's search: inferred from what it states, not stated there."""
PILOT_STEPS = 4


@dataclass(frozen=True)
class Form:
    """How much of everything.

    Attributes:
        device: torch's name.
        space: name of the space.
        budget_s: wall-clock seconds for the whole command.
        training_share: of the budget, for the supernet.
        small_resolutions: that the first two thirds of the supernet's training use.
        resolutions: that backbones are measured at.
        limit: images per split; ``None`` = all.
        ladder: numbers of epochs, the reference first.
        ladder_backbones: how many backbones are trained for all of them, cheapest first.
        supernet_batches: images per step of the supernet on small images, and on the space's own.
        supernet, exits: recipes; steps, batch size, epochs and seed are set here.
    """

    device: str
    space: str
    budget_s: float
    training_share: float
    small_resolutions: tuple[int, ...]
    resolutions: tuple[int, ...]
    limit: int | None
    ladder: tuple[int, ...]
    ladder_backbones: int
    supernet_batches: tuple[int, int]
    supernet: SupernetRecipe
    exits: ExitRecipe

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"


GPU = Form(
    device="cuda", space="attentivenas", budget_s=500.0, training_share=0.17, small_resolutions=(128, 160),
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


@dataclass
class State:
    """All that has been reached so far."""

    form: Form
    data: str | None = None
    training: list[dict[str, Any]] | None = None
    rungs: list[Rung] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    phases_s: dict[str, float] = field(default_factory=dict)
    n_classes: int = 100
    finished: bool = False


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


def space_at(form: Form, resolutions: tuple[int, ...]) -> MBConvSpace:
    """The form's space with other resolutions; its presets keep their rank among them."""
    base = space_by_name(form.space)
    if resolutions == base.macro.resolutions:
        return base
    space = MBConvSpace(base.name, replace(base.macro, resolutions=resolutions))
    for name, backbone in base.presets.items():
        rank = base.macro.resolutions.index(backbone.resolution)
        space.add_preset(name, replace(backbone, resolution=resolutions[min(rank, len(resolutions) - 1)]))
    return space


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
        referenced = any(r.name == unit.name and r.epochs == form.ladder[0] for r in state.rungs)
        # What is left for its end: a rung may take a tenth longer than foretold.
        fits = 1.1 * (unit.other_s + epochs * unit.epoch_s) < clock.left_s
        if fits and (referenced or epochs == form.ladder[0]):
            bench.measure(unit.name, unit.backbone, epochs)
    _end_phase(state, clock, "ladder")


def _end_phase(state: State, clock: Clock, name: str) -> None:
    state.phases_s[name] = clock.spent_s - sum(state.phases_s.values())


def ladder_order(rungs: list[Rung], form: Form) -> list[tuple[Rung, int]]:
    """The two cheapest backbones side by side, the reference first; then each further one."""
    units = sorted(rungs, key=lambda rung: rung.wall_s)[: form.ladder_backbones]
    pair = [(unit, epochs) for epochs in form.ladder for unit in units[:2]]
    return pair + [(unit, epochs) for unit in units[2:] for epochs in form.ladder]


def result_of(state: State, seconds: float) -> dict[str, Any]:
    """The whole result; what was not reached is null."""
    form, rungs = state.form, list(state.rungs)
    space, reference = space_at(form, form.resolutions), form.ladder[0]
    seeds = seeding(space, SEED + 1)
    epochs = sufficient_epochs(rungs, reference)
    ladder = losses(rungs, reference)

    def projected(n_epochs: int | None) -> dict[str, float] | None:
        if n_epochs is None:
            return None
        costs = projection(rungs, space, seeds, state.n_classes, n_epochs)
        return {"gpu_hours" if form.on_gpu else "cpu_hours": costs.pop("hours"), **costs}

    figures: dict[str, Any] = {
        "sufficient_epochs": epochs,
        "ladder_backbones": len({row["backbone"] for row in ladder if row["epochs"] > 1}),
        "foretold_error": foretold_error(rungs),
        "projection": projected(epochs),
        "projection_at_reference_epochs": projected(reference if rungs else None),
        "total_s": seconds,
    }
    if form.on_gpu:
        figures["paper_exit_training_gpu_hours"] = PAPER_GPU_HOURS
        figures["peak_gpu_memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
    bounds, checks = (gpu_checks if form.on_gpu else cpu_checks)(state, figures, ladder)
    return {
        "benchmark": "gpu_day",
        "form": "one GPU" if form.on_gpu else "CPU: checks the parts and the arithmetic; no figure of it is about a GPU",
        "data": state.data,
        "figures": figures,
        "bounds": bounds,
        "checks": checks,
        "holds": state.finished and all(checks.values()),
        "training": state.training,
        "backbones": [row_of(rung, space, state.n_classes) for rung in rungs],
        "ladder": ladder,
        "failures": state.failures,
        "phases_s": state.phases_s,
        "resolutions": form.resolutions,
        "exit_recipe": form.exits.definition,
        "supernet_recipe": form.supernet.definition,
        "seed": SEED,
        "machine": machine(form),
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__), "cuda": torch.version.cuda},
    }  # fmt: skip


def gpu_checks(
    state: State, figures: dict[str, Any], ladder: list[dict[str, Any]]
) -> tuple[dict[str, float], dict[str, bool]]:
    """The goal: GPU-hours of the seeding, at epochs that a few backbones justify."""
    bounds = {"projected_gpu_hours": GOAL_HOURS, "ladder_backbones": 2, "foretold_error": 0.25}
    projected = figures["projection"]
    return bounds, {
        "projected_gpu_hours": projected is not None and projected["gpu_hours"] <= GOAL_HOURS,
        "ladder_backbones": figures["ladder_backbones"] >= 2,
        "foretold_error": figures["foretold_error"] is not None and figures["foretold_error"] <= 0.25,
        "no_failures": not state.failures,
    }


def cpu_checks(
    state: State, figures: dict[str, Any], ladder: list[dict[str, Any]]
) -> tuple[dict[str, float], dict[str, bool]]:
    """What a tiny form can show: counts and shapes, that more epochs do no harm, that seconds add up.

    Nothing about how long anything takes: other work may share the cores.
    """
    bounds = {"standard_errors_of_harm": 3.0, "backbones": 4, "ladder_backbones": 2}
    space = space_at(state.form, state.form.resolutions)
    all_exits = [
        rung.record.test is not None
        and rung.record.test.n_exits == rung.backbone.n_blocks - space.first_exit + 1
        for rung in state.rungs
    ]
    harmless = [row["loss_points"] > -3.0 * row["standard_error_points"] for row in ladder]
    return bounds, {
        "all_exits_measured": all(all_exits) and len({rung.name for rung in state.rungs}) == 4,
        "more_epochs_do_no_harm": bool(harmless) and all(harmless),
        "ladder_backbones": figures["ladder_backbones"] >= 2,
        "seconds_add_up": all(sum(r.record.seconds.values()) <= r.wall_s for r in state.rungs)
        and abs(sum(state.phases_s.values()) / figures["total_s"] - 1) < 0.05,
        "projected": figures["projection"] is not None,
        "no_failures": not state.failures,
    }


def row_of(rung: Rung, space: MBConvSpace, n_classes: int) -> dict[str, Any]:
    work = space.workload(rung.backbone, n_classes=n_classes)
    test = rung.record.test
    assert test is not None
    return {
        "name": rung.name,
        "backbone": rung.backbone.describe(),
        "epochs": rung.epochs,
        "wall_s": rung.wall_s,
        **{f"{step}_s": seconds for step, seconds in rung.record.seconds.items()},
        "mean_exit_accuracy_calibration": rung.mean_exit_accuracy(),
        "mean_exit_accuracy_test": rung.mean_exit_accuracy("test"),
        "test_accuracy_by_exit": test.fractions.tolist(),
        "backbone_gmacs": work.macs / 1e9,
        "heads_gmacs": sum(head.macs for head in work.heads) / 1e9,
    }


def machine(form: Form) -> str:
    if form.on_gpu:
        return torch.cuda.get_device_name()
    return f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def rounded(value: Any) -> Any:
    """JSON values: five significant digits, no NaN."""
    if isinstance(value, float):
        return float(f"{value:.5g}") if np.isfinite(value) else None
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, (list, tuple)) else value


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
        self()
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
    device = arguments.device or ("cuda" if torch.cuda.is_available() and not arguments.quick else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA GPU here")
    form = GPU if device == "cuda" and not arguments.quick else replace(CPU, device=device)
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
    with tempfile.TemporaryDirectory() as directory:
        run(state, clock, data_path, Path(directory))
    state.finished = True
    watchdog.cancel()
    printer()


if __name__ == "__main__":
    main()
