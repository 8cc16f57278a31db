"""``hadas logs fit`` and ``hadas logs predict``: cost models of the networks of an imported series."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from ..errors import ConfigError, DataError
from .opening import open_store
from .printing import console, print_table, showing_progress

if TYPE_CHECKING:
    from ..datasets.logs.tables import ForeignCost
    from ..datasets.store import Store
    from ..surrogates.series_costs import Answer, DeviceCosts

SeriesStore = Annotated[
    str, typer.Argument(help="A store (file or database URL), or a study's file: the store it uses.")
]
SeriesName = Annotated[
    str | None, typer.Option(help="Which imported series; may be left out if the store has one.")
]
Models = Annotated[
    Path | None, typer.Option(help="Folder of the models; default: beside the store, STORE.models.")
]
_UNITS = {"latency_ms": ("latency", "ms"), "energy_mj": ("energy", "mJ"), "power_mw": ("power", "mW")}
COLUMNS = ("network", "at", "quantity", "predicted", "50 % interval", "90 % interval")


def fit(
    store: SeriesStore,
    series: SeriesName = None,
    models: Models = None,
    seed: Annotated[int, typer.Option(min=0, help="Of folds and fits.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Fit latency, energy and power of the networks of a series, for every device in it, and save the models.

    What a model sees is chosen by what the log says: totals of networks (MACs, parameters, layers), clocks and other
    settings, or both. A quantity whose rows have not changed is not fitted again. Ends with 1 if nothing could be fitted.
    """
    from ..surrogates.series_costs import fit_series

    opened, _ = open_store(store, must_exist=True)
    try:
        name, costs = _rows(opened, store, series)
        folder = _folder(opened, models, name)
        if as_json:
            found = fit_series(costs, folder, seed=seed)
        else:
            with showing_progress() as progress:
                found = fit_series(costs, folder, seed=seed, progress=progress)
    finally:
        opened.close()
    if as_json:
        typer.echo(
            json.dumps({"series": name, "models": str(folder), "devices": [_fitted(one) for one in found]})
        )
    else:
        rows = [
            (one.device, _UNITS[s.quantity][0], f"{s.n_rows:,}", _fate(one, s.quantity))
            for one in found for s in one.summaries
        ]  # fmt: skip
        print_table(f"cost models of series {name}", ("device", "quantity", "rows", "model"), rows)
        for one in found:
            for summary in one.summaries:
                if summary.problem:
                    _say(f"- no model of {_UNITS[summary.quantity][0]} on {one.device}: {summary.problem}")
        _say(f"- the models are in {folder}; ask them with `hadas logs predict {store} --series {name}`")
    if not any(one.models for one in found):
        raise typer.Exit(1)


def predict(
    store: SeriesStore,
    series: SeriesName = None,
    networks: Annotated[
        str | None, typer.Option(help="Which networks of the series, with commas between, or all.")
    ] = None,
    clocks: Annotated[
        str,
        typer.Option(
            help="At which clocks: max or min (of the series), then what differs, in Hz or with a unit, and "
            "further settings: 'gpu=1032.75MHz emc=1600000000 n_cores=4'."
        ),
    ] = "max",
    rows: Annotated[
        Path | None,
        typer.Option(help="Predict the rows of this CSV file instead, measured or not; needs --map."),
    ] = None,
    map_file: Annotated[
        Path | None, typer.Option("--map", help="The column map that the series was imported with (YAML).")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="Which device, where there are several: its name as fit prints it, or its board."),
    ] = None,
    models: Models = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Predict latency, energy and power by the models that `hadas logs fit` has made of a series.

    An interval is where one new measurement is expected. Networks in a file need not be in the series if it knows its
    networks by the same totals. Refuses devices, clocks, settings and totals that the models know nothing of.
    """
    if (networks is None) == (rows is None):
        raise ConfigError("name networks (--networks a,b) or a file of rows (--rows FILE), one of the two")
    if (rows is None) != (map_file is None):
        raise ConfigError("--rows FILE and --map MAP belong together")
    opened, _ = open_store(store, must_exist=True)
    try:
        name, costs = _rows(opened, store, series)
        folder = _folder(opened, models, name)
        if rows is not None and map_file is not None:
            from ..datasets.logs.columns import load_column_map
            from ..datasets.logs.unmeasured import read_unmeasured

            asked = read_unmeasured(opened, rows, load_column_map(map_file))
            found = _answered(asked, costs, folder, device)
        else:
            assert networks is not None
            found = _answered_by_name(networks, clocks, costs, folder, device)
    finally:
        opened.close()
    if as_json:
        typer.echo(json.dumps({"series": name, "rows": found}))
        return
    several = len({row["device"] for row in found}) > 1
    cells = [line for row in found for line in _cells(row, name_device=several)]
    print_table(f"predicted by series {name}", COLUMNS, cells)
    for row in found:
        if row["beyond"]:
            _say(f"- {row['network']}: {row['beyond']}")


def _rows(opened: Store, store: str, series: str | None) -> tuple[str, tuple[ForeignCost, ...]]:
    """The name of a series and its rows."""
    from ..datasets.logs import tables

    known = tables.series_names(opened, tables.log_costs)
    name = known[0] if series is None and len(known) == 1 else series
    if name not in known or name is None:
        wanted = "name one with --series" if series is None else f"no series '{series}'"
        raise DataError(
            f"{store}: {wanted}; series of networks of no space of ours: {', '.join(known) or 'none'} "
            "(`hadas logs import` brings them)"
        )
    return name, tables.foreign_costs(opened, name)


def _folder(opened: Store, models: Path | None, series: str) -> Path:
    from ..surrogates.series_costs import folder_of

    if models is None:
        if not opened.url.startswith("sqlite:///"):
            raise ConfigError("--models FOLDER: say where models are kept; beside a database is no place")
        path = Path(opened.url.removeprefix("sqlite:///"))
        models = path.with_name(f"{path.name}.models")
    return folder_of(models, series)


def _answered_by_name(
    networks: str, clocks: str, costs: Sequence[ForeignCost], folder: Path, device: str | None
) -> list[dict[str, Any]]:
    from ..surrogates.asking import asked_rows
    from ..surrogates.series_costs import by_device, load_device

    there = by_device(costs)
    names = _devices(there, device)
    if len(names) > 1:
        raise ConfigError(f"several devices; name one with --device: {', '.join(names)}")
    own = there[names[0]]
    fitted = load_device(folder, names[0])
    return _answers(fitted, asked_rows(own, networks, clocks, fitted.settings), own)


def _devices(there: Iterable[str], device: str | None) -> list[str]:
    """Those that are meant: by the whole name, or by its beginning (the board)."""
    found = [name for name in there if device in (None, name) or name.startswith(f"{device}-")]
    if not found:
        raise ConfigError(f"--device {device}: there are {', '.join(there)}")
    return [device] if device in found else found


def _answered(
    asked: Sequence[ForeignCost], costs: Sequence[ForeignCost], folder: Path, device: str | None
) -> list[dict[str, Any]]:
    from ..surrogates.series_costs import by_device, load_device

    there, rows = by_device(costs), by_device(asked)
    return [
        answer
        for name in _devices(rows, device)
        for answer in _answers(load_device(folder, name), rows[name], there.get(name, []))
    ]


def _answers(
    fitted: DeviceCosts, asked: Sequence[ForeignCost], costs: Sequence[ForeignCost]
) -> list[dict[str, Any]]:
    """One JSON-ready object per row."""
    from ..surrogates.asking import beyond
    from ..surrogates.log_rows import pinned_numbers

    answers = fitted.ask(asked)
    return [
        {
            "network": row.network, "line_no": row.line_no, "source": row.source, "device": fitted.device,
            "clocks_hz": dict(row.clocks_hz),
            "settings": {
                **pinned_numbers(row.target), **{name: row.features[name] for name in fitted.settings}
            },
            "features": {n: v for n, v in row.features.items() if n not in fitted.settings},
            "estimates": {a.quantity: _estimate(a, i) for a in answers if not math.isnan(a.mean[i])},
            "beyond": said,
        }
        for i, (row, said) in enumerate(zip(asked, beyond(asked, costs), strict=True))
    ]  # fmt: skip


def _estimate(answer: Answer, i: int) -> dict[str, Any]:
    return {
        "mean": float(answer.mean[i]), "median": float(answer.median[i]),
        "intervals": {f"{level:g}": [float(low[i]), float(high[i])] for level, (low, high) in answer.intervals.items()},
        "relative_doubt": float(answer.relative_doubt[i]), "relative_noise": float(answer.relative_noise[i]),
    }  # fmt: skip


def _cells(row: dict[str, Any], *, name_device: bool) -> list[tuple[str, ...]]:
    clocks = [f"{name} {hz / 1e6:g}" for name, hz in row["clocks_hz"].items()]
    device = [row["device"]] if name_device else []
    at = ", ".join([*device, *clocks, *(f"{name} {value:g}" for name, value in row["settings"].items())])
    size = row["features"].get("input_px")
    network = row["network"] if size is None else f"{row['network']} at {size:g} px"
    found = []
    for quantity, said in row["estimates"].items():
        intervals = [f"{low:.4g} .. {high:.4g}" for low, high in said["intervals"].values()]
        found.append((network, at, ", ".join(_UNITS[quantity]), f"{said['mean']:.4g}", *intervals))
        network = at = ""
    return found


def _fitted(one: DeviceCosts) -> dict[str, Any]:
    return {
        "device": one.device, "settings": list(one.settings),
        "quantities": {
            s.quantity: {
                "n_rows": s.n_rows, "refitted": s.refitted, "problem": s.problem,
                "weights": dict(one.models[s.quantity].weights) if s.quantity in one.models else {},
            }
            for s in one.summaries
        },
    }  # fmt: skip


def _fate(one: DeviceCosts, quantity: str) -> str:
    summary = next(s for s in one.summaries if s.quantity == quantity)
    if summary.problem:
        return "none, see below"
    return "fitted" if summary.refitted else "as it was: rows unchanged"


def _say(text: str) -> None:
    console.print(escape(text), soft_wrap=True, highlight=False)
