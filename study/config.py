"""A study's configuration: one YAML file, every field checked, every error named.

``hadas init`` writes a commented file; :func:`load_config` reads it back.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import ConfigError


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(_Section):
    """Which images."""

    name: Literal["digits", "cifar10", "cifar100"] = "digits"
    path: Path | None = None
    limit: int | None = Field(default=None, ge=100)


class DeviceConfig(_Section):
    """Which device, and which of its clocks may be chosen."""

    kind: Literal["simulator", "host-cpu"] = "simulator"
    name: str = "tx2-pascal-gpu"
    clocks: Path | None = None


class AccuracyConfig(_Section):
    """How the supernet and the exits are trained."""

    preset: Literal["demo", "smoke"] = "demo"
    checkpoint: Path | None = None
    supernet: dict[str, Any] = Field(default_factory=dict)
    exits: dict[str, Any] = Field(default_factory=dict)


class SurrogateConfig(_Section):
    """Which models compete to predict each quantity."""

    candidates: tuple[Literal["gp", "xgb"], ...] = ("gp", "xgb")


class SearchConfig(_Section):
    """The nested search; ``preset`` sets everything, the other fields override it."""

    preset: Literal["demo", "paper", "thorough", "smoke"] = "demo"
    overrides: dict[str, Any] = Field(default_factory=dict)


class LearningConfig(_Section):
    """The loop: seeds, then rounds of suggest, measure, refit."""

    seed_backbones: int = Field(default=12, ge=3)
    seed_settings: int = Field(default=3, ge=1)
    rounds: int = Field(default=3, ge=0)
    batch: int = Field(default=4, ge=1)
    draws: int = Field(default=64, ge=8)
    searches_on_draws: int = Field(default=1, ge=0)
    information_share: float = Field(default=0.25, ge=0.0, le=1.0)


class PolicyConfig(_Section):
    """The runtime controller that decides when a sample leaves."""

    tolerance: float = Field(default=0.01, ge=0.0, le=0.5)


class StudyConfig(_Section):
    """One study: one target, one data set, one configuration."""

    study: str = Field(default="study", pattern=r"^[A-Za-z0-9._-]+$")
    store: str = "store.sqlite"
    seed: int = Field(default=7, ge=0)
    space: Literal["mini", "attentivenas"] = "mini"
    data: DataConfig = DataConfig()
    device: DeviceConfig = DeviceConfig()
    accuracy: AccuracyConfig = AccuracyConfig()
    surrogates: SurrogateConfig = SurrogateConfig()
    search: SearchConfig = SearchConfig()
    learning: LearningConfig = LearningConfig()
    policy: PolicyConfig = PolicyConfig()
    baselines: bool = True


PRESETS: dict[str, dict[str, Any]] = {
    "demo": {"study": "demo"},
    "smoke": {
        "study": "smoke",
        "data": {"limit": 100},
        "accuracy": {"preset": "smoke"},
        "search": {"preset": "smoke"},
        "surrogates": {"candidates": ["gp"]},
        "learning": {
            "seed_backbones": 4,
            "seed_settings": 2,
            "rounds": 1,
            "batch": 2,
            "draws": 16,
            "searches_on_draws": 1,
        },
    },
}
"""Named starting points of ``hadas init --preset``."""

_TEMPLATE = """\
# A hadas study: one target, one data set, one configuration.  `hadas run {name}` does the whole loop.
study: {study}          # name of the study in its store
store: {store}   # SQLite file (relative to this one) or any SQLAlchemy URL; studies may share it
seed: {seed}                # fixes the whole run
space: {space}            # mini | attentivenas
data:
  name: {data}        # digits (embedded) | cifar10 | cifar100
  path: null          # cifar: folder with the torchvision or hub-parquet files; nothing is downloaded
  limit: {limit}         # at most this many images per split, to try things out; null = all
device:
  kind: {device_kind}     # simulator (its results are marked SIMULATED) | host-cpu
  name: {device}  # simulator: tx2-pascal-gpu | tx2-denver-cpu | agx-volta-gpu | agx-carmel-cpu
  clocks: null        # a JSON file {{"name": ..., "domains": {{"gpu": [Hz, ...], "emc": [Hz, ...]}}}} narrows the table
accuracy:
  preset: {accuracy}        # demo | smoke: how the supernet and the exits are trained
  checkpoint: null    # a supernet checkpoint of this space and data to use instead of training one
surrogates:
  candidates: {candidates}   # chosen per quantity by cross-validation
search:
  preset: {search}        # demo | paper | thorough | smoke
learning:
  seed_backbones: {seed_backbones}   # presets first, then random ones
  seed_settings: {seed_settings}     # clock settings measured per seed backbone
  rounds: {rounds}            # of suggest, measure, refit
  batch: {batch}             # points measured per round
  draws: {draws}            # joint draws of the predictors that weigh a suggestion
  searches_on_draws: {searches_on_draws} # extra searches on single draws that widen the pool
policy:
  tolerance: 0.01     # accuracy an exit may lose against the final classifier on the samples it keeps
baselines: true       # measure the presets, backbone-only and random baselines too
"""


def template(name: str, preset: str) -> str:
    """The commented YAML text that ``hadas init`` writes.

    Raises:
        ConfigError: no preset of that name.
    """
    if preset not in PRESETS:
        raise ConfigError(f"no preset '{preset}'; known: {sorted(PRESETS)}")
    config = validate_config(PRESETS[preset], source=f"preset {preset}")
    return _TEMPLATE.format(
        name=name,
        study=config.study,
        store=config.store,
        seed=config.seed,
        space=config.space,
        data=config.data.name,
        limit="null" if config.data.limit is None else config.data.limit,
        device_kind=config.device.kind,
        device=config.device.name,
        accuracy=config.accuracy.preset,
        candidates="[" + ", ".join(config.surrogates.candidates) + "]",
        search=config.search.preset,
        **config.learning.model_dump(exclude={"information_share"}),
    )


def validate_config(document: Any, *, source: str) -> StudyConfig:
    """Check a parsed document.

    Raises:
        ConfigError: names every field at fault; for an unknown field, the nearest known one.
    """
    if not isinstance(document, dict):
        raise ConfigError(f"{source}: a study is a mapping of fields, not {type(document).__name__}")
    try:
        return StudyConfig.model_validate(document)
    except ValidationError as error:
        problems = [_explain(problem) for problem in error.errors()]
        raise ConfigError(f"{source}: " + "; ".join(problems)) from error


def _explain(problem: Any) -> str:
    location = ".".join(str(part) for part in problem["loc"])
    if problem["type"] != "extra_forbidden":
        return f"'{location}' = {problem['input']!r}: {problem['msg']}"
    near = difflib.get_close_matches(
        str(problem["loc"][-1]), _known_fields(problem["loc"][:-1]), n=1, cutoff=0.5
    )
    return f"'{location}': no such field" + (f"; did you mean '{near[0]}'?" if near else "")


def _known_fields(location: tuple[Any, ...]) -> list[str]:
    model: type[BaseModel] = StudyConfig
    for part in location:
        annotation = model.model_fields[str(part)].annotation
        if not isinstance(annotation, type) or not issubclass(annotation, BaseModel):
            return []
        model = annotation
    return list(model.model_fields)


def load_config(path: Path) -> StudyConfig:
    """Read and check a study file.

    Raises:
        ConfigError: missing file, bad YAML (with the line), or bad fields (each named).
    """
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(
            f"study file {path}: {error.strerror}. Write one with: hadas init {path}"
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(
            f"study file {path}{line}: not YAML ({getattr(error, 'problem', error)})"
        ) from error
    return validate_config(document if document is not None else {}, source=f"study file {path}")


FREE_FIELDS = frozenset({"learning.rounds", "baselines", "store"})
"""Fields that may change in a study that has begun: none of them alters what is journalled already."""


def config_difference(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Lines ``field: old -> new`` for every field that differs and may not."""
    lines: list[str] = []
    for key in sorted(set(old) | set(new)):
        name = f"{prefix}{key}"
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += config_difference(before, after, f"{name}.")
        elif before != after and name not in FREE_FIELDS:
            lines.append(f"{name}: {before!r} -> {after!r}")
    return lines
