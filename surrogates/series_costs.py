"""Cost models of an imported series: latency, energy and power of whole networks, one set per device.

    for fitted in fit_series(foreign_costs(store, "sweep"), folder, seed=0):
        print(fitted.device, fitted.summaries)
    model = load_device(folder, device)
    answers = model.ask(rows)

Models are saved as plain data (see ``model_files``) in a folder per device.  A quantity is fitted again only if its
own rows have changed, or what is computed of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, unquote

import numpy as np
from numpy.typing import NDArray

from ..datasets.logs.tables import ForeignCost
from ..errors import ModelError
from .cost_views import SETTING_FEATURE_VERSION
from .log_rows import UNITS, device_of, network_rows_of, settings_among_features
from .model_files import FolderFormat, damage_named, read_manifest, read_state, write_folder
from .network_cost import NetworkCostModel
from .network_features import NETWORK_FEATURE_VERSION
from .network_rows import NetworkRows
from .prediction import FloatArray, Prediction
from .stacking import interval

FORM = FolderFormat(
    "hadas-network-costs", "network_costs.json",
    {
        "version": 1, "network_feature_version": NETWORK_FEATURE_VERSION,
        "setting_feature_version": SETTING_FEATURE_VERSION,
    },
)  # fmt: skip

_SUFFIX = ".costs"
"""Of folders."""

LEVELS = (0.5, 0.9)
"""Of the intervals."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class QuantitySummary:
    """What became of one quantity of one device.

    Attributes:
        n_rows: that it was measured in.
        digest: of these rows, of the seed and of the quantity.
        refitted: whether it had to be fitted; ``False``: it is as it was saved.
        problem: why there is no model; empty where there is one.
    """

    quantity: str
    n_rows: int
    digest: str
    refitted: bool
    problem: str = ""


@dataclass(frozen=True)
class Answer:
    """What a model says of n rows in the quantity's unit; NaN for networks that it knows nothing of.

    Attributes:
        mean, median: (n,) of a new measurement.
        intervals: level -> both ends (n,) of where a new measurement is expected.
        relative_doubt, relative_noise: (n,) standard deviations of the logarithm, of what more measurements
            would shrink and of what they would not.
    """

    quantity: str
    mean: FloatArray
    median: FloatArray
    intervals: Mapping[float, tuple[FloatArray, FloatArray]]
    relative_doubt: FloatArray
    relative_noise: FloatArray


@dataclass(frozen=True)
class DeviceCosts:
    """Models of one device.

    Attributes:
        series, device: whose rows they were fitted to.
        settings: names of features that are settings.
        models: by quantity.
        summaries: of all quantities that were measured at all.
    """

    series: str
    device: str
    settings: tuple[str, ...]
    models: Mapping[str, NetworkCostModel]
    summaries: tuple[QuantitySummary, ...]

    def ask(self, costs: Sequence[ForeignCost]) -> tuple[Answer, ...]:
        """Predictions of rows; what was measured in them is not looked at.

        Raises:
            ModelError: rows of another device, with other clocks, settings or totals than in training, or
                networks of which no model knows anything.
        """
        rows = network_rows_of(costs, "latency_ms", settings=self.settings)
        known = {name: model.views.knows(rows) for name, model in self.models.items()}
        nowhere = ~np.any(list(known.values()), axis=0)
        if nowhere.any():
            names = sorted(set(map(str, rows.networks[nowhere])))
            raise ModelError(
                f"networks {names} were not among the training rows, and nothing but a name is known of them; known: "
                f"{sorted(set().union(*(model.networks for model in self.models.values())))}"
            )
        return tuple(_answer(model, rows, known[name]) for name, model in self.models.items())

    def save(self, directory: Path) -> None:
        """Write the models; no code."""
        kept = {s.quantity: s for s in self.summaries if s.quantity in self.models}
        content = {
            "series": self.series, "device": self.device, "settings": list(self.settings),
            "models": {name: {"digest": s.digest, "n_rows": s.n_rows} for name, s in kept.items()},
        }  # fmt: skip
        write_folder(directory, FORM, content, {name: model.state() for name, model in self.models.items()})

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            ModelError: damaged, altered, or of another release; names the file and what to do.
        """
        manifest = read_manifest(directory, FORM)
        with damage_named(directory, FORM):
            models, summaries = {}, []
            for name, entry in manifest["models"].items():
                if name not in UNITS:
                    raise ModelError(f"no quantity '{name}'; known: {list(UNITS)}")
                models[name] = NetworkCostModel.from_state(read_state(directory, name, manifest, FORM))
                summaries.append(
                    QuantitySummary(name, int(entry["n_rows"]), str(entry["digest"]), refitted=False)
                )
            settings = tuple(str(name) for name in manifest["settings"])
            return cls(str(manifest["series"]), str(manifest["device"]), settings, models, tuple(summaries))


def _answer(model: NetworkCostModel, rows: NetworkRows, known: NDArray[np.bool_]) -> Answer:
    asked = np.flatnonzero(known)

    def spread(values: FloatArray) -> FloatArray:
        whole = np.full(len(rows), np.nan)
        whole[asked] = values
        return whole

    nothing = np.full((0, 1), np.nan)
    found = Prediction(nothing, nothing, nothing, (), ())
    with np.errstate(all="ignore"):
        if len(asked):
            found = model.predict(rows.take(asked))
        if not (np.isfinite(found.mean).all() and np.isfinite(found.sd_total).all()):
            raise ModelError(
                f"the model of '{model.quantity}' predicts what is no finite number; fit it again"
            )
    mean, variance = found.mean[:, 0], found.sd_total[:, 0] ** 2
    ends = {level: interval(found, level)[1:] for level in LEVELS}
    return Answer(
        model.quantity, spread(np.exp(mean + variance / 2)), spread(np.exp(mean)),
        {level: (spread(low), spread(high)) for level, (low, high) in ends.items()},
        spread(np.sqrt(found.var_epistemic[:, 0])), spread(np.sqrt(found.var_noise[:, 0])),
    )  # fmt: skip


def by_device(costs: Sequence[ForeignCost]) -> dict[str, list[ForeignCost]]:
    """Rows by what they were measured on, in order of the names."""
    found: dict[str, list[ForeignCost]] = {}
    for cost in costs:
        found.setdefault(device_of(cost.target), []).append(cost)
    return dict(sorted(found.items()))


def folder_of(folder: Path, name: str) -> Path:
    """Where what goes by a name is saved: any name, and never outside the folder."""
    return folder / f"{quote(name, safe='')}{_SUFFIX}"


def fit_series(
    costs: Sequence[ForeignCost], folder: Path, *, seed: int, progress: Progress = lambda *_: None
) -> tuple[DeviceCosts, ...]:
    """Fit what has changed since it was last fitted, and save all.

    Args:
        costs: rows of one series.
        folder: of the series.
        progress: told (phase, done, total).

    Raises:
        ModelError: no row, or rows of one device that name different clocks or settings.
    """
    if not costs:
        raise ModelError("not one row of a network to fit to")
    found = []
    for device, own in by_device(costs).items():
        directory = folder_of(folder, device)
        earlier = _earlier(directory)
        fitted = _fit_device(device, own, earlier, seed, progress)
        changed = earlier is None or earlier.models.keys() != fitted.models.keys()
        if fitted.models and (changed or any(s.refitted for s in fitted.summaries)):
            fitted.save(directory)
        found.append(fitted)
    return tuple(found)


def _earlier(directory: Path) -> DeviceCosts | None:
    """What is saved there; what is damaged, or of another release, is fitted again."""
    try:
        return DeviceCosts.load(directory)
    except ModelError:
        return None


def _fit_device(
    device: str, costs: Sequence[ForeignCost], earlier: DeviceCosts | None, seed: int, progress: Progress
) -> DeviceCosts:
    settings = settings_among_features(costs)
    known = {} if earlier is None else {s.quantity: s for s in earlier.summaries}
    models: dict[str, NetworkCostModel] = {}
    summaries = []
    for i, quantity in enumerate(UNITS):
        progress(f"fitting {device}", i, len(UNITS))
        rows = network_rows_of(costs, quantity, settings=settings)
        rows = rows.take(np.flatnonzero(np.isfinite(rows.value)))
        if len(rows) == 0:
            continue
        digest = _digest(rows, quantity, seed)
        refitted = quantity not in known or known[quantity].digest != digest
        problem = ""
        try:
            if refitted or earlier is None:
                models[quantity] = NetworkCostModel.fit(rows, quantity, seed=seed)
            else:
                models[quantity] = earlier.models[quantity]
        except ModelError as error:
            problem = str(error)
        summaries.append(QuantitySummary(quantity, len(rows), digest, refitted, problem))
    progress(f"fitting {device}", len(UNITS), len(UNITS))
    return DeviceCosts(costs[0].series, device, settings, models, tuple(summaries))


def _digest(rows: NetworkRows, quantity: str, seed: int) -> str:
    """Of all that a fit depends on."""
    digest = hashlib.blake2b(f"{quantity}\0{seed}\0".encode(), digest_size=16)
    columns: dict[str, Any] = {
        "networks": rows.networks, "devices": rows.devices, "value": rows.value, "noise": rows.relative_noise,
        **{f"total {name}": column for name, column in rows.totals.items()},
        **{f"clock {name}": column for name, column in rows.clocks_ghz.items()},
        **{f"knob {name}": column for name, column in rows.knobs.items()},
    }  # fmt: skip
    for name, column in columns.items():
        digest.update(f"{name}\0{len(column)}\0".encode())
        texts = column.dtype.kind == "U"
        digest.update("\0".join(map(str, column)).encode() if texts else column.astype("<f8").tobytes())
    return digest.hexdigest()


def saved_devices(folder: Path) -> tuple[str, ...]:
    """Names of devices of which there are models in the folder of a series."""
    return tuple(
        sorted(
            unquote(path.parent.name.removesuffix(_SUFFIX))
            for path in folder.glob(f"*{_SUFFIX}/{FORM.manifest}")
        )
    )


def load_device(folder: Path, device: str) -> DeviceCosts:
    """Models of one device.

    Raises:
        ModelError: there are none, or they cannot be read, or are another device's.
    """
    known = saved_devices(folder)
    if device not in known:
        raise ModelError(f"{folder}: no models of device '{device}'; there are: {', '.join(known) or 'none'}")
    found = DeviceCosts.load(folder_of(folder, device))
    if found.device != device:
        raise ModelError(
            f"{folder_of(folder, device)}: holds models of '{found.device}'; fit the series again"
        )
    return found
