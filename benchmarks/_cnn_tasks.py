"""Tasks on whole networks: CNNs on three boards at maximum clocks, and a new board from another's rows.

Splits by network leave whole names out, splits by family whole families; a name's rows at other input sizes
would else stand on both sides.  Sources and caveats: the README of the data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import pandas as pd
from _predictor_tasks import (
    DATA,
    Answer,
    Bound,
    Contender,
    FloatArray,
    IntArray,
    Split,
    Task,
    each_group,
    random_split,
    score,
    unseen_groups,
)

from hadas.surrogates.network_cost import NetworkCostModel
from hadas.surrogates.network_features import standard_totals
from hadas.surrogates.network_rows import NetworkRows
from hadas.surrogates.transfer import TransferredCostModel

PLAIN_COLUMNS = (
    "input_px", "params_conv", "params_bn", "params_fc", "flops", "n_layers", "n_conv", "n_bn", "n_fc",
    "sum_activations", "weighted_sum_neurons",
)  # fmt: skip
FLOOR_ROWS = 2700
"""Training rows of the noise floor: as many as any board has, less those of the names left out."""

BOARDS = {"TX2": "tx2", "AGX": "agx_xavier"}
QUANTITIES = {"latency": "latency_ms", "energy": "energy_mj"}


@cache
def log_of(board: str, quantity: str) -> pd.DataFrame:
    """Rows of a board on which the quantity was measured."""
    table = pd.read_csv(DATA / "measurements" / "jetson_cnn_latency_power.csv.gz")
    return table[(table["board"] == board) & table[quantity].notna()].reset_index(drop=True)


@cache
def rows_of(board: str, quantity: str) -> NetworkRows:
    """The same under standard names."""
    table = log_of(board, quantity)
    totals = pd.DataFrame([standard_totals(row) for row in table[list(PLAIN_COLUMNS)].to_dict("records")])
    return NetworkRows(
        table["model_name"].to_numpy(str), {name: totals[name].to_numpy(float) for name in totals}, {}, {},
        table["board"].to_numpy(str), table[quantity].to_numpy(float), np.zeros(len(table)),
    )  # fmt: skip


def plain_columns(board: str, quantity: str) -> FloatArray:
    """The logged columns; counts and sizes span five decades, so plain models get their logarithms."""
    return np.asarray(np.log1p(log_of(board, quantity)[list(PLAIN_COLUMNS)].to_numpy(float)))


def codes(names: pd.Series) -> IntArray:
    """(n,) index of each name."""
    return np.asarray(np.unique(names.to_numpy(str), return_inverse=True)[1], dtype=np.int64)


def learned(
    board: str, quantity: str, held_together: str, train: IntArray, test: IntArray, seed: int
) -> Answer:
    """Our predictor, which compares its members on groups (``model_name``, ``family``) of the training rows."""
    rows, groups = rows_of(board, quantity), log_of(board, quantity)[held_together].to_numpy(str)
    model = NetworkCostModel.fit(rows.take(train), quantity, seed=seed, groups=list(groups[train]))
    return Answer(*model.interval(rows.take(test), 0.9))


def floor_of(task: Task, n_train: int) -> Callable[[], float]:
    """Error of our model on the test rows of the first seed, from all other rows (at most ``n_train``)."""

    def floor() -> float:
        split = task.splits(0)[0]
        rest = np.setdiff1d(np.arange(len(task.measured)), split.test)
        train = np.sort(np.random.default_rng([64, 0]).permutation(rest)[:n_train])
        return score(task.ours(train, split.test, 0), task.measured[split.test]).mape

    return floor


def _unseen_names(board: str, quantity: str, bounds: Sequence[Bound]) -> Task:
    label, what = _label(board), quantity.split("_")[0]
    table = log_of(board, quantity)
    task = Task(
        f"{label} CNN {what}, unseen names, N=500", table[quantity].to_numpy(float),
        unseen_groups(codes(table["model_name"]), 500), partial(learned, board, quantity, "model_name"),
        plain_columns(board, quantity), tuple(bounds),
    )  # fmt: skip
    floor = {f"MAPE from up to {FLOOR_ROWS} rows": floor_of(task, FLOOR_ROWS)}
    return Task(**{**vars(task), "floor": floor})


def family_known_by(board: str, quantity: str, n_rows: int) -> Callable[[], float]:
    """Median over families of the error once a few rows of the family are measured: what its totals do not say."""

    def floor() -> float:
        table = log_of(board, quantity)
        measured, errors = table[quantity].to_numpy(float), []
        for i, split in enumerate(each_group(codes(table["family"]), 500, 50)(0)):
            order = np.random.default_rng([67, i]).permutation(split.test)
            train, test = np.sort(np.append(split.train, order[:n_rows])), np.sort(order[n_rows:])
            errors.append(score(learned(board, quantity, "model_name", train, test, 0), measured[test]).mape)
        return float(np.median(errors))

    return floor


FAMILY_ROWS = 5


def _each_family(board: str, quantity: str) -> Task:
    table = log_of(board, quantity)
    return Task(
        f"{_label(board)} CNN {quantity.split('_')[0]}, each family, N=500", table[quantity].to_numpy(float),
        each_group(codes(table["family"]), 500, 50), partial(learned, board, quantity, "family"),
        plain_columns(board, quantity), (Bound("ratio_to_best_plain", at_most=0.75),),
        floor={f"MAPE with {FAMILY_ROWS} rows of the family": family_known_by(board, quantity, FAMILY_ROWS)},
        full_only=True,
    )  # fmt: skip


def _random_rows(board: str, quantity: str, n_train: int) -> Task:
    """Judged for the coverage of its intervals."""
    table = log_of(board, quantity)
    return Task(
        f"{_label(board)} CNN {quantity.split('_')[0]}, random rows, N={n_train}",
        table[quantity].to_numpy(float), random_split(len(table), n_train),
        partial(learned, board, quantity, "model_name"), plain_columns(board, quantity), (),
        full_only=n_train != 100,
    )  # fmt: skip


def _label(board: str) -> str:
    return next(label for label, name in BOARDS.items() if name == board)


REACH: Mapping[str, tuple[Bound, ...]] = {
    "latency_ms": (Bound("tau", at_least=0.975), Bound("mape", at_most=5.5)),
    "energy_mj": (Bound("tau", at_least=0.975), Bound("mape", at_most=8.5)),
}


NEW_BOARD_ROWS = 30


@dataclass(frozen=True)
class NewBoard:
    """Latency of one board from all rows of another and a few of its own.

    A fifth of the names is hidden from both boards.  Test rows are the hidden ones, or those whose network
    at the same input size was measured on the other board.

    Attributes:
        source, target: boards.
        hidden: whether the hidden names are the test, or else the networks that both boards know.
    """

    source: str
    target: str
    hidden: bool

    def hidden_names(self, seed: int) -> frozenset[str]:
        names = np.unique(log_of(self.target, "latency_ms")["model_name"].to_numpy(str))
        order = np.random.default_rng([65, seed]).permutation(names)
        return frozenset(order[: round(0.2 * len(order))])

    def splits(self, seed: int) -> Sequence[Split]:
        table, hidden = log_of(self.target, "latency_ms"), self.hidden_names(seed)
        is_hidden = table["model_name"].isin(hidden).to_numpy()
        rng = np.random.default_rng([66, seed])
        train = np.sort(rng.permutation(np.flatnonzero(~is_hidden))[:NEW_BOARD_ROWS])
        if self.hidden:
            return (Split(train, np.flatnonzero(is_hidden)),)
        key = ["model_name", "input_px"]
        both = table[key].merge(log_of(self.source, "latency_ms")[key], on=key, how="left", indicator=True)
        test = np.flatnonzero((both["_merge"] == "both").to_numpy() & ~is_hidden)
        return (Split(train, np.setdiff1d(test, train)),)

    def source_rows(self, seed: int) -> IntArray:
        """Rows of the other board without the hidden names."""
        names = log_of(self.source, "latency_ms")["model_name"]
        return np.flatnonzero(~names.isin(self.hidden_names(seed)).to_numpy())

    def transferred(self, train: IntArray, test: IntArray, seed: int) -> Answer:
        """Our predictor."""
        known, rows = rows_of(self.source, "latency_ms"), rows_of(self.target, "latency_ms")
        source = NetworkCostModel.fit(known.take(self.source_rows(seed)), "latency_ms", seed=seed)
        model = TransferredCostModel.fit(source, rows.take(train), seed=seed)
        return Answer(*model.interval(rows.take(test), 0.9))

    def alone(self, train: IntArray, test: IntArray, seed: int) -> Answer:
        """The same predictor from the few rows of the new board alone."""
        return learned(self.target, "latency_ms", "model_name", train, test, seed)

    def constant_ratio(self, train: IntArray, test: IntArray, seed: int) -> Answer:
        """What was measured on the other board times the median ratio; only for networks it has measured."""
        key = ["model_name", "input_px"]
        old = log_of(self.source, "latency_ms")[[*key, "latency_ms"]]
        both = log_of(self.target, "latency_ms").merge(old, on=key, how="left", suffixes=("", "_old"))
        value, before = both["latency_ms"].to_numpy(float), both["latency_ms_old"].to_numpy(float)
        return Answer(before[test] * np.nanmedian(value[train] / before[train]))

    def task(self, at_most: float) -> Task:
        """The line of the table."""
        which = "networks seen on neither" if self.hidden else "networks also seen there"
        source, target = ("Nano" if b == "nano" else _label(b) for b in (self.source, self.target))
        alternatives: dict[str, Contender] = {"its own rows alone": self.alone}
        if not self.hidden:
            alternatives["one constant ratio"] = self.constant_ratio
        return Task(
            f"{target} latency from {source} rows + {NEW_BOARD_ROWS}, {which}",
            log_of(self.target, "latency_ms")["latency_ms"].to_numpy(float), self.splits, self.transferred,
            None, (Bound("mape", at_most=at_most),), alternatives=alternatives,
        )  # fmt: skip


def tasks() -> list[Task]:
    """Every line of the table that is about whole networks."""
    found = [_unseen_names("tx2", quantity, REACH[quantity]) for quantity in QUANTITIES.values()]
    for board in BOARDS.values():
        for quantity in QUANTITIES.values():
            found.append(_each_family(board, quantity))
            found += [_random_rows(board, quantity, n) for n in (100, 500)]
    found.append(NewBoard("nano", "tx2", hidden=False).task(7.0))
    found.append(NewBoard("nano", "tx2", hidden=True).task(12.0))
    return found
