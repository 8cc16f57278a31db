"""Accuracy: the networks of NAS-Bench-Macro, and the exits of HADAS's published backbones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pandas as pd
from _predictor_tasks import DATA, Answer, Bound, FloatArray, IntArray, Split, Task, random_split
from scipy.special import expit, logit
from scipy.stats import kendalltau

from hadas.spaces import attentivenas_space
from hadas.surrogates.accuracy import AccuracyScale, accuracy_design, fit_final_accuracy, repeat_noise
from hadas.surrogates.calibration import central_interval
from hadas.surrogates.conformal import factor_on_random_rows, held_out_errors
from hadas.surrogates.exit_curves import curve_design, curve_rows, predicted_curves
from hadas.surrogates.features import backbone_features
from hadas.surrogates.fitting import Fitter
from hadas.surrogates.prediction import Prediction
from hadas.surrogates.selection import TrainingRows
from hadas.surrogates.shape_features import (
    N_TOTALS,
    StageTotals,
    coarse_columns,
    shape_features,
    thermometer,
)

MACRO_FILE = DATA / "accuracy" / "nas_bench_macro_cifar10.csv.gz"
EXITS_FILE = DATA / "accuracy" / "hadas_exit_accuracy_cifar100.csv"

MACRO_STAGES = ((0, 1), (2, 3, 4), (5, 6, 7))
"""Searched layers by resolution: the first of each stage halves it."""
MACRO_KERNELS = (1, 3, 5)
"""Kernel of each choice: none (identity), an MBConv of expansion 3, one of expansion 6."""
MACRO_INPUT_DISTANCE = (1, 2, 2, 4, 4, 4, 8, 8)
"""Pixels of the image between neighbours of what a layer's depthwise convolution reads."""
MACRO_IMAGES = 10_000
"""Test images of CIFAR-10."""

LOGITS = AccuracyScale()
FITTER = Fitter(("gp", "xgb"))
"""As a predictor set has it: cross-validation inside the rows chooses."""


def tasks() -> list[Task]:
    """Final accuracy from 100 and 200 networks; exit fractions of a backbone never seen."""
    return [_macro(100, 0.90), _macro(200, 0.925), _hadas_exits()]


@cache
def macro_networks() -> tuple[IntArray, FloatArray, FloatArray, FloatArray]:
    """All networks: choices (n, 8), logits of the three trainings (n, 3), and the totals MACs and parameters (n,)."""
    table = pd.read_csv(MACRO_FILE)
    choices = table[[f"op{i}" for i in range(8)]].to_numpy(dtype=np.int64)
    trained = logit(table[[f"acc_seed{i}" for i in range(3)]].to_numpy(dtype=np.float64) / 100)
    return choices, trained, table["flops"].to_numpy(np.float64), table["params"].to_numpy(np.float64)


def macro_features() -> FloatArray:
    """(n, d) of all networks of NAS-Bench-Macro: which choices, and how their work is laid out.

    What a choice costs in a layer follows exactly from the totals, which are sums over layers and
    are known of every network before any is trained.
    """
    choices, _, macs, params = macro_networks()
    bits = np.stack([choices == 1, choices == 2], axis=2).reshape(len(choices), -1).astype(np.float64)
    by_stage = []
    for total in (macs, params):
        cost, *_ = np.linalg.lstsq(np.hstack([bits, np.ones((len(bits), 1))]), total, rcond=None)
        layers = (bits * cost[:-1]).reshape(len(choices), 8, 2).sum(axis=2)
        smallest = [min(cost[2 * layer] for layer in stage) for stage in MACRO_STAGES]
        summed = np.stack([layers[:, list(stage)].sum(axis=1) for stage in MACRO_STAGES], axis=1)
        # Sums of least-squares solutions: an empty stage may come out at -1e-9.
        by_stage.append((np.maximum(summed, 0.0), np.array(smallest)))
    grown = (np.array(MACRO_KERNELS)[choices] - 1) * np.array(MACRO_INPUT_DISTANCE)
    totals = StageTotals(
        blocks=np.stack([(choices[:, list(s)] > 0).sum(axis=1) for s in MACRO_STAGES], axis=1).astype(float),
        macs=by_stage[0][0], params=by_stage[1][0], network_macs=macs, network_params=params,
        receptive_field_px=3.0 + grown.sum(axis=1), macs_unit=by_stage[0][1], params_unit=by_stage[1][1],
    )  # fmt: skip
    return np.hstack([thermometer(choices, 3), shape_features(totals)])


def _answer(scale: AccuracyScale, prediction: Prediction, factor: float = 1.0) -> Answer:
    """In percent, with intervals for a new measurement, standard deviations times a factor."""
    low, high = central_interval(prediction.mean, factor * prediction.sd_total, 0.9)
    return Answer(*(100 * scale.fractions(values[:, 0]) for values in (prediction.mean, low, high)))


def _macro(n_train: int, tau: float) -> Task:
    choices, trained, _, _ = macro_networks()
    features = macro_features()
    n_features = features.shape[1]

    def rows_of(train: IntArray, noise_variance: FloatArray) -> TrainingRows:
        return TrainingRows(
            features[train], trained[train].mean(axis=1), noise_variance, np.arange(len(train)), np.zeros(len(train)),
            accuracy_design(len(train), n_features, tuple(range(n_features - N_TOTALS, n_features))),
        )  # fmt: skip

    # What a predictor set does with final accuracies, but for two things: networks trained anew have the
    # noise of repeats, and intervals are widened by held-out errors (a study learns its factor from what it
    # measures again).
    def ours(train: IntArray, test: IntArray, seed: int) -> Answer:
        rows = rows_of(train, repeat_noise(trained[train]))
        fitted, scale = fit_final_accuracy(FITTER, rows, seed=seed)
        model = fitted.model
        factor = factor_on_random_rows(held_out_errors(model.kind, scale.rows(rows), seed=seed))
        return _answer(scale, model.predict(features[test]), factor)

    def set_of_records(train: IntArray, test: IntArray, seed: int) -> Answer:
        # The noise that outcome matrices tell: that of finitely many images, by the delta method.
        right = expit(trained[train].mean(axis=1))
        rows = rows_of(train, 1.0 / (MACRO_IMAGES * right * (1.0 - right)))
        fitted, scale = fit_final_accuracy(FITTER, rows, seed=seed)
        return _answer(scale, fitted.model.predict(features[test]))

    return Task(
        name=f"NAS-Bench-Macro accuracy, N={n_train}",
        measured=100 * np.asarray(expit(trained)).mean(axis=1),
        splits=random_split(len(choices), n_train),
        ours=ours,
        plain_columns=choices.astype(np.float64),
        plain_log_target=False,
        bounds=(Bound("tau", at_least=tau),),
        alternatives={"a predictor set of records, noise of images alone": set_of_records},
        floor={
            "tau of one training with the mean of the two others": _one_against_two,
            "tau that the noise of three trainings leaves to a perfect model": _noise_ceiling,
        },
    )


def _one_against_two() -> float:
    _, trained, _, _ = macro_networks()
    return float(
        np.mean(
            [kendalltau(trained[:, i], np.delete(trained, i, 1).mean(axis=1)).statistic for i in range(3)]
        )
    )


def _noise_ceiling() -> float:
    """The measured means take the part of the truth, with the noise of a mean of three added once more."""
    _, trained, _, _ = macro_networks()
    mean, noise = trained.mean(axis=1), np.sqrt(trained.var(axis=1, ddof=1).mean() / 3)
    again = mean + noise * np.random.default_rng(0).standard_normal(len(mean))
    return float(kendalltau(mean, again).statistic)


def _hadas_exits() -> Task:
    table = pd.read_csv(EXITS_FILE).sort_values(["backbone", "block_index_0based"])
    exits = table[table["is_final"] == 0]
    final = logit(table[table["is_final"] == 1]["top1"].to_numpy(np.float64) / 100)
    space = attentivenas_space()
    names = sorted(table["backbone"].unique())
    workloads = [space.workload(space.presets[name], n_classes=100) for name in names]
    owner = np.searchsorted(names, exits["backbone"].to_numpy()).astype(np.int64)
    right = exits["top1"].to_numpy(np.float64)
    blocks = [block for workload in workloads for block in workload.blocks[space.first_exit :]]
    stage = np.array([block.stage for block in blocks])
    in_stage = np.array([block.index_in_stage for block in blocks])
    whole = np.stack(
        [backbone_features(space, space.presets[n], w) for n, w in zip(names, workloads, strict=True)]
    )

    def curves(final_logit: FloatArray) -> FloatArray:
        return np.vstack(
            [
                curve_rows(space, space.presets[name], workload, float(end))
                for name, workload, end in zip(names, workloads, final_logit, strict=True)
            ]
        )

    def ours(train: IntArray, test: IntArray, seed: int) -> Answer:
        known = np.unique(owner[train])
        rows = TrainingRows(
            whole[known], final[known], np.zeros(len(known)), known, np.zeros(len(known)),
            accuracy_design(len(known), whole.shape[1], coarse_columns(space)),
        )  # fmt: skip
        fitted, scale = fit_final_accuracy(FITTER, rows, seed=seed)
        ends = scale.in_logits(fitted.model.predict(whole))
        # The left-out backbone's own final accuracy is predicted, as its exits are.
        x = curves(np.where(np.isin(np.arange(len(names)), known), final, ends.mean[:, 0]))
        exit_rows = TrainingRows(
            x[train], logit(right[train] / 100), np.zeros(len(train)), owner[train], np.zeros(len(train)),
            curve_design(space, x.shape[1]),
        )  # fmt: skip
        model = FITTER.fit("exit_fractions", LOGITS.unit, exit_rows, seed=seed).model
        return _answer(LOGITS, predicted_curves(model, x[test], np.sqrt(ends.var_epistemic[owner[test], 0])))

    def a0s_curve(train: IntArray, test: IntArray, seed: int) -> Answer:
        # The smallest backbone that is not the one asked for, at the same relative depth.
        smallest = train[owner[train] == owner[train].min()]
        at = np.linspace(0, 1, len(smallest))
        return Answer(np.interp(np.linspace(0, 1, len(test)), at, right[smallest]))

    def same_place(train: IntArray, test: IntArray, seed: int) -> Answer:
        return Answer(np.array([_at_place(right, stage, in_stage, train, row) for row in test]))

    return Task(
        name="HADAS exits, one of a0..a5 left out",
        measured=right,
        splits=_leave_one_out(owner),
        ours=ours,
        plain_columns=None,
        bounds=(Bound("mae", at_most=1.2),),
        alternatives={"a0's curve": a0s_curve, "mean at the stage and index": same_place},
        judged=False,
    )


def _at_place(right: FloatArray, stage: IntArray, in_stage: IntArray, train: IntArray, row: int) -> float:
    """Mean at the same stage and the nearest index in it that any backbone has."""
    there = train[stage[train] == stage[row]]
    apart = np.abs(in_stage[there] - in_stage[row])
    return float(right[there[apart == apart.min()]].mean())


def _leave_one_out(owner: IntArray) -> Callable[[int], Sequence[Split]]:
    def splits(seed: int) -> Sequence[Split]:
        return tuple(
            Split(np.flatnonzero(owner != one), np.flatnonzero(owner == one)) for one in np.unique(owner)
        )

    return splits
