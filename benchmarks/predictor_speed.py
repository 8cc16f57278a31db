"""How many rows a second do predictors give a mean and a variance for, in one thread?

The search asks its predictors about thousands of rows at a time.  Here a Gaussian process of 500 training rows
and the ensemble of boosted trees predict 10,000 rows of 12 features, and the library that each rests on does the
same in the same run, with its default call and the very same fitted model:

- `gp`: BoTorch's `posterior(rows)`, in blocks of 1,000 rows, which is its quicker way; without `--quick` also all
  rows in one call;
- `xgb`: `predict(DMatrix(rows))` of every member, then mean and variance over members.

`holds`: the Gaussian process is at least twice as fast as BoTorch, the ensemble at least 0.95 times as fast as
its members alone (the trees are the same, and take nearly all of the time), and the numbers agree.  Rows per second
depend on the machine and on who else uses it; whether this run reached 40,000 and 25,000 on this machine is said in
a line of its own, and not judged.

`--quick` repeats less; `--json` ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from _checkout import make_importable

make_importable()

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from hadas.surrogates.gp import GaussianProcess  # noqa: E402
from hadas.surrogates.threads import single_thread  # noqa: E402
from hadas.surrogates.xgb import KFoldXGBoost  # noqa: E402

FloatArray = NDArray[np.float64]
Moments = tuple[FloatArray, FloatArray]

N_TRAIN, N_ROWS, N_FEATURES = 500, 10_000, 12
LIBRARY_BLOCK = 1000
WANTED_ROWS_PER_S = {"gp": 40_000, "xgb": 25_000}
LEAST_RATIO = {"gp": 2.0, "xgb": 0.95}
AGREES_WITHIN = 1e-3
"""Largest difference of means, in standard deviations, and of standard deviations, relative."""
SEED = 0


@dataclass(frozen=True)
class Speed:
    """One model's figures.

    Attributes:
        rows_per_s, library_rows_per_s: of the best repetition.
        library_at_once_rows_per_s: of the library asked for all rows in one call; ``None`` where not tried.
        ratio: ours / the library's.
        mean_off_sd, sd_off: how far the two differ, see :data:`AGREES_WITHIN`.
    """

    rows_per_s: float
    library_rows_per_s: float
    library_at_once_rows_per_s: float | None
    ratio: float
    mean_off_sd: float
    sd_off: float


def rows_and_targets(n: int, seed: int) -> Moments:
    """A smooth target of standard normal features, with a little noise; (n, d) and (n, 1)."""
    rng = np.random.default_rng([SEED, seed])
    x = rng.standard_normal((n, N_FEATURES))
    weights = np.linspace(1.0, 0.1, N_FEATURES)
    y = np.sin(x @ weights / 2.0) + 0.3 * x[:, 0] * x[:, 1] + 0.05 * rng.standard_normal(n)
    return x, y[:, None]


def compared(
    ours: Callable[[], Moments],
    library: Callable[[], Moments],
    at_once: Callable[[], Moments] | None,
    repeats: int,
) -> Speed:
    """Time two ways to the same moments, in turn, in one thread."""
    best = {"ours": np.inf, "library": np.inf, "at_once": np.inf}
    with single_thread():
        for _ in range(repeats):
            for name, call in (("ours", ours), ("library", library)):
                began = time.perf_counter()
                call()
                best[name] = min(best[name], time.perf_counter() - began)
        if at_once is not None:
            began = time.perf_counter()
            at_once()
            best["at_once"] = time.perf_counter() - began
        (mean, variance), (library_mean, library_variance) = ours(), library()
    deviation = np.sqrt(library_variance)
    return Speed(
        N_ROWS / best["ours"],
        N_ROWS / best["library"],
        None if at_once is None else N_ROWS / best["at_once"],
        best["library"] / best["ours"],
        float(np.max(np.abs(mean - library_mean) / deviation)),
        float(np.max(np.abs(np.sqrt(variance) / deviation - 1.0))),
    )


def gaussian_process(rows: FloatArray, repeats: int, quick: bool) -> Speed:
    """Ours against BoTorch's posterior with the same hyper-parameters and data."""
    import torch

    x, y = rows_and_targets(N_TRAIN, 1)
    model = GaussianProcess(seed=SEED, max_iterations=20).fit(x, y)
    with warnings.catch_warnings():
        # BoTorch warns of data that are not scaled as it likes; these are.
        warnings.simplefilter("ignore")
        library_model, scale = botorch_twin(model, y)
    state = model.state().arrays
    y_mean, y_scale = (float(v) for v in state["0.scalars"][2:4])
    scaled = torch.from_numpy((rows - state["input_mean"]) / state["input_scale"])

    def ours() -> Moments:
        found = model.predict(rows)
        return found.mean[:, 0], found.var_epistemic[:, 0]

    def library(block: int) -> Moments:
        parts = []
        with torch.no_grad():
            for start in range(0, N_ROWS, block):
                posterior = library_model.posterior(scaled[start : start + block])
                parts.append(torch.cat([posterior.mean, posterior.variance], dim=-1).numpy())
        mean, variance = np.concatenate(parts).T
        return y_mean + y_scale * mean, scale**2 * variance

    at_once = None if quick else lambda: library(N_ROWS)
    return compared(ours, lambda: library(LIBRARY_BLOCK), at_once, repeats)


def botorch_twin(model: GaussianProcess, y: FloatArray) -> tuple[Any, float]:
    """BoTorch's form of a fitted process, and the scale of its target."""
    import torch
    from botorch.models import SingleTaskGP
    from gpytorch.kernels import MaternKernel, ScaleKernel

    state = model.state().arrays
    noise, constant, y_mean, y_scale, _ = (float(v) for v in state["0.scalars"])
    kernel = ScaleKernel(MaternKernel(nu=2.5, ard_num_dims=N_FEATURES)).double()
    kernel.base_kernel.lengthscale = torch.from_numpy(state["0.length_scale"].copy())
    kernel.outputscale = float(state["0.signal_variance"][0])
    twin = SingleTaskGP(
        torch.from_numpy(state["0.x"].copy()),
        torch.from_numpy((y - y_mean) / y_scale),
        train_Yvar=torch.full(y.shape, noise, dtype=torch.float64),
        covar_module=kernel,
        outcome_transform=None,
    )
    with torch.no_grad():
        twin.mean_module.constant.fill_(constant)
    return twin.eval(), y_scale


def boosted_trees(rows: FloatArray, repeats: int) -> Speed:
    """Ours against XGBoost's predictions of the same members, one by one."""
    import xgboost

    x, y = rows_and_targets(N_TRAIN, 1)
    model = KFoldXGBoost(seed=SEED).fit(x, y)
    state = model.state()
    y_mean, y_scale, factor, misfit = (float(v) for v in state.arrays["0.scalars"][:4])
    members = [xgboost.Booster({"nthread": 1}) for _ in state.boosters]
    for booster, name in zip(members, sorted(state.boosters), strict=True):
        booster.load_model(bytearray(state.boosters[name]))

    def ours() -> Moments:
        found = model.predict(rows)
        return found.mean[:, 0], found.var_epistemic[:, 0]

    def library() -> Moments:
        values = np.stack([b.predict(xgboost.DMatrix(rows, nthread=1)) for b in members]).astype(np.float64)
        mean, variance = values.mean(axis=0), factor * values.var(axis=0) + misfit
        return y_mean + y_scale * mean, y_scale**2 * variance

    return compared(ours, library, None, repeats)


def machine() -> str:
    """The processor's name, where the system says it, its architecture and the number of cores."""
    name = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    except OSError:  # not a Linux
        pass
    return f"{name or 'unnamed processor'} ({platform.machine()}, {os.cpu_count()} cores)"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="3 repetitions instead of 10")
    arguments = parser.parse_args()
    repeats = 3 if arguments.quick else 10
    rows, _ = rows_and_targets(N_ROWS, 2)
    found = {
        "gp": gaussian_process(rows, repeats, arguments.quick),
        "xgb": boosted_trees(rows, repeats),
    }
    print(f"{N_ROWS} rows of {N_FEATURES} features, {N_TRAIN} training rows, one thread, mean and variance")
    print("model    rows/s    library  at once   ratio  means off  deviations off")
    holds = True
    for name, speed in found.items():
        at_once = speed.library_at_once_rows_per_s
        print(
            f"{name:6}{speed.rows_per_s:9.0f}{speed.library_rows_per_s:11.0f}"
            f"{'-' if at_once is None else f'{at_once:.0f}':>9}{speed.ratio:8.2f}"
            f"{speed.mean_off_sd:11.1e}{speed.sd_off:16.1e}"
        )
        agrees = max(speed.mean_off_sd, speed.sd_off) <= AGREES_WITHIN
        holds = holds and agrees and speed.ratio >= LEAST_RATIO[name]
    print(f"On {machine()}:")
    for name, speed in found.items():
        reached = speed.rows_per_s >= WANTED_ROWS_PER_S[name]
        print(
            f"  {name}: {speed.rows_per_s:,.0f} rows/s in this run, wanted {WANTED_ROWS_PER_S[name]:,}: "
            + ("REACHED" if reached else "NOT REACHED")
        )
    print(
        f"ratios to the library at least {LEAST_RATIO['gp']:g} (gp) and {LEAST_RATIO['xgb']:g} (xgb), same numbers: "
        + ("holds" if holds else "does not hold")
    )
    if arguments.json:
        result = {
            "benchmark": "predictor_speed", "quick": arguments.quick,
            "figures": {name: asdict(speed) for name, speed in found.items()},
            "wanted_rows_per_s": WANTED_ROWS_PER_S,
            "reached": {name: found[name].rows_per_s >= WANTED_ROWS_PER_S[name] for name in found},
            "bounds": {"least_ratio": LEAST_RATIO, "agrees_within": AGREES_WITHIN},
            "machine": machine(), "holds": holds,
        }  # fmt: skip
        print(json.dumps(result, allow_nan=False))


if __name__ == "__main__":
    main()
