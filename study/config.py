"""A study's configuration: one YAML file, every field checked, every error named.

``hadas init`` writes a commented file; :func:`load_config` reads it back.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ..errors import ConfigError
from .fields import EDGE, Section, difference, is_edge, read_study_file, validated, written

# Strict checks refuse what would be converted in silence (`seed: true`); these two kinds have no form of
# their own in YAML, where a path is a string and a tuple a list.
OptionalPath = Annotated[Path | None, Field(strict=False)]
Candidates = Annotated[tuple[Literal["gp", "xgb"], ...], Field(strict=False, min_length=1)]


Strategy = Literal["hvi", "random", "variance", "mean", "thompson", "spread", "qlognehvi"]
"""How a batch is chosen from the pool; the names of :data:`hadas.search.strategies.STRATEGIES`."""


class DataConfig(Section):
    """Which images."""

    name: Literal["digits", "cifar10", "cifar100", "tiny-imagenet"] = "digits"
    path: OptionalPath = None
    limit: int | None = Field(default=None, ge=100)


class DeviceConfig(Section):
    """Which device, and which of its clocks may be chosen."""

    kind: Literal["simulator", "host-cpu", "cuda", "jetson", "replay"] = "simulator"
    name: str = "tx2-pascal-gpu"
    clocks: OptionalPath = None
    devices: OptionalPath = None
    log: OptionalPath = None
    protocol: Literal["full", "quick"] | None = None

    @model_validator(mode="after")
    def _what_the_kind_needs(self) -> Self:
        if (self.kind == "replay") != (self.log is not None):
            raise ValueError("'kind: replay' and 'log' (a log of measured rows, JSON lines) go together")
        if self.kind == "jetson" and self.devices is None:
            raise ValueError(
                "'kind: jetson' needs 'devices', a devices file (hadas devices --help) that 'name' is in"
            )
        if self.devices is not None and not self.is_real:
            raise ValueError(f"'kind: {self.kind}' has no use for 'devices'; leave it null")
        if self.protocol is not None and not self.is_real:
            raise ValueError(f"'kind: {self.kind}' has no use for 'protocol'; leave it null")
        return self

    @property
    def is_real(self) -> bool:
        """Whether something is run on it."""
        return self.kind in ("host-cpu", "cuda", "jetson")

    @property
    def measuring_protocol(self) -> str:
        """Name of the protocol that a real device is measured by."""
        return self.protocol or ("quick" if self.kind == "host-cpu" else "full")

    @property
    def names(self) -> tuple[str, ...]:
        """Devices by the names that a devices file, or this machine, has for them."""
        if self.devices is None:
            return ("cuda",) if self.kind == "cuda" else ("host",)
        return tuple(name.strip() for name in self.name.split(",") if name.strip())


class AccuracyConfig(Section):
    """How the supernet and the exits are trained."""

    preset: Literal["demo", "smoke", "gpu", "hadas-code"] = "demo"
    checkpoint: OptionalPath = None
    start: OptionalPath = None
    ema: bool = False
    supernet: dict[str, Any] = Field(default_factory=dict)
    exits: dict[str, Any] = Field(default_factory=dict)
    device: Literal["cpu", "cuda", "auto"] = "cpu"
    workers: Literal["threads", "processes", "gpus", "dask"] = "threads"
    n_workers: int | None = Field(default=None, ge=1)
    cluster: str | None = Field(default=None, pattern=r"\S")

    @model_validator(mode="after")
    def _cluster_where_dask(self) -> Self:
        if (self.workers == "dask") != (self.cluster is not None):
            raise ValueError(
                "'workers: dask' and 'cluster' (the scheduler's address, e.g. tcp://host:8786) go together"
            )
        return self

    @model_validator(mode="after")
    def _one_source_of_weights(self) -> Self:
        if self.checkpoint is not None and self.start is not None:
            raise ValueError(
                "'checkpoint' is used unchanged, 'start' is trained further; name one of the two"
            )
        if self.ema and self.checkpoint is None and self.start is None:
            raise ValueError("'ema' chooses weights within a checkpoint, and none is named")
        return self


class SurrogateConfig(Section):
    """Which models compete to predict each quantity."""

    candidates: Candidates = ("gp", "xgb")

    @field_validator("candidates")
    @classmethod
    def _unique(cls, candidates: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(candidates)) < len(candidates):
            raise ValueError("names a model twice; name each once")
        return candidates


class ConstraintsConfig(Section):
    """What a network must keep to, expected under the controller; ``None`` = anything goes."""

    max_latency_ms: float | None = Field(default=None, gt=0.0, allow_inf_nan=False)
    max_energy_mj: float | None = Field(default=None, gt=0.0, allow_inf_nan=False)
    min_accuracy: float | None = Field(default=None, gt=0.0, allow_inf_nan=False)
    max_exits: int | None = Field(default=None, ge=0)

    @field_validator("min_accuracy")
    @classmethod
    def _fraction(cls, accuracy: float | None) -> float | None:
        if accuracy is not None and accuracy > 1.0:
            hint = f"; write {accuracy / 100:g} for {accuracy:g} %" if accuracy <= 100.0 else ""
            raise ValueError(f"must be a fraction from 0 to 1{hint}")
        return accuracy


class SearchConfig(Section):
    """The nested search; ``preset`` sets everything, the other fields override it."""

    preset: Literal["demo", "paper", "thorough", "smoke"] = "demo"
    constraints: ConstraintsConfig = ConstraintsConfig()
    overrides: dict[str, Any] = Field(default_factory=dict)


class LearningConfig(Section):
    """The loop: seeds, then rounds of suggest, measure, refit."""

    seed_backbones: int = Field(default=12, ge=3)
    seed_neighbours: int = Field(default=0, ge=0)
    seed_settings: int = Field(default=3, ge=1)
    rounds: int = Field(default=3, ge=0)
    batch: int = Field(default=4, ge=1)
    draws: int = Field(default=64, ge=8)
    searches_on_draws: int = Field(default=1, ge=0)
    information_share: float = Field(default=0.25, ge=0.0, le=1.0)
    strategy: Strategy = "hvi"
    stop_gain: float = Field(default=0.001, ge=0.0, lt=1.0)
    stop_rounds: int = Field(default=2, ge=1)
    accuracy_job_s: float = Field(default=10.0, ge=0.0, allow_inf_nan=False)


class PolicyConfig(Section):
    """The runtime controller that decides when a sample leaves."""

    score: Literal["max-softmax", "margin", "entropy"] = "max-softmax"
    tolerance: float = Field(default=0.01, ge=0.0, le=0.5)


class StudyConfig(Section):
    """One study: one target, one data set, one configuration."""

    study: str = Field(default="study", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    store: str = Field(default="store.sqlite", pattern=r"\S")
    seed: int = Field(default=7, ge=0, le=2**63 - 1)
    space: Literal["mini", "attentivenas"] = "mini"
    head_width: int | None = Field(default=None, ge=1)
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
    "gpu": {
        "study": "study",
        "space": "attentivenas",
        "data": {"name": "cifar100"},
        "accuracy": {"preset": "gpu", "device": "auto"},
        "search": {"preset": "paper"},
        "learning": {"seed_backbones": 40, "batch": 8},
    },
}
"""Named starting points of ``hadas init --preset``."""

_TEMPLATE = """\
# A hadas study: one target, one data set, one configuration.  `hadas run {name}` does the whole loop.
study: {study}  # name of the study in its store
store: {store}  # SQLite file (relative to this one) or any SQLAlchemy URL; studies may share it
seed: {seed}  # fixes the run, given the supernet (its own seed: accuracy.supernet: {{seed: ...}})
space: {space}  # mini | attentivenas
head_width: {head_width}  # channels of the convolution in every exit head; null = the space's own (mini 5, attentivenas 224)
data:
  name: {data.name}  # digits (embedded) | cifar10 | cifar100 | tiny-imagenet
  path: {data.path}  # folder with the images as published or as hub parquet (relative to this file); null = data, where hadas is run; nothing is downloaded
  limit: {data.limit}  # at most this many underlying images per split, to try things out; null = all
device:
  kind: {device.kind}  # simulator (its results are marked SIMULATED) | host-cpu | cuda | jetson | replay (recorded rows)
  name: {device.name}  # simulator: tx2-pascal-gpu | tx2-denver-cpu | agx-volta-gpu | agx-carmel-cpu; else as in `devices`
  clocks: null  # JSON file {{"name": ..., "domains": {{"gpu": [Hz, ...], "emc": [Hz, ...]}}}} narrowing the table
  devices: null  # devices file that `name` is in (see `hadas devices --help`); 'left, right' = two of one kind at once
  log: null  # replay: the log (JSON lines) that answers instead of a device
  protocol: null  # full | quick: how rows are measured; null = quick on host-cpu, full elsewhere
accuracy:
  preset: {accuracy.preset}  # how supernet and exits are trained: demo | smoke | gpu (AttentiveNAS space) | hadas-code (gpu, exits as HADAS's code trains them)
  checkpoint: {accuracy.checkpoint}  # a supernet of this space and number of classes, used unchanged instead of training one
  start: {accuracy.start}  # or weights to fine-tune: a hadas or published AttentiveNAS checkpoint, also of other classes
  ema: {accuracy.ema}  # take state_dict_ema of a published file
  supernet: {{}}  # single fields of the supernet's recipe that differ from the preset, e.g. {{steps: 400}}
  exits: {{}}  # the same for the exits' recipe, e.g. {{epochs: 4}}
  device: {accuracy.device}  # cpu | cuda | auto (cuda where there is one): changes the rounding of results only
  workers: {accuracy.workers}  # threads | processes | gpus (a process each) | dask: what measures backbones side by side
  n_workers: {accuracy.n_workers}  # how many of them; null = as many as the recipe, processors, GPUs or cluster have
  cluster: {accuracy.cluster}  # dask: the scheduler's address, e.g. tcp://host:8786
surrogates:
  candidates: {surrogates.candidates}  # chosen per quantity by cross-validation
search:
  preset: {search.preset}  # demo | paper | thorough | smoke
  constraints: {search.constraints}  # what a network must keep to, expected under the controller; accuracy as a fraction; null = anything
  overrides: {{}}  # single settings of the search that differ from the preset, e.g. {{generations: 20}}
learning:
  seed_backbones: {learning.seed_backbones}  # both ends of the space, presets, then random ones
  seed_neighbours: {learning.seed_neighbours}  # of these, in place of random ones: backbones one choice above the smallest, where the cheap end of the front lies
  seed_settings: {learning.seed_settings}  # clock settings measured per seed backbone
  rounds: {learning.rounds}  # of suggest, measure, refit (with `hadas run --budget`: as many as fit into the budget)
  batch: {learning.batch}  # points measured per round
  draws: {learning.draws}  # joint draws of the predictors that weigh a suggestion
  searches_on_draws: {learning.searches_on_draws}  # extra searches on single draws that widen the pool
  information_share: {learning.information_share}  # share of a batch spent on what the predictors know least
  strategy: {learning.strategy}  # how a batch is chosen: hvi | random | variance | mean | thompson | spread | qlognehvi (all but hvi to compare with)
  stop_gain: {learning.stop_gain}  # stop when a best batch is expected to gain less than this share of the measured hypervolume ..
  stop_rounds: {learning.stop_rounds}  # .. in so many rounds on end; stop_gain 0 = never
  accuracy_job_s: {learning.accuracy_job_s}  # price of one accuracy job, in seconds, that suggestions are weighed with
    # (a fixed price keeps the run independent of the machine's speed)
policy:
  score: {policy.score}  # max-softmax | margin | entropy: what an exit's threshold is compared with
  tolerance: {policy.tolerance}  # accuracy an exit may lose against the final classifier on the samples it keeps
baselines: true  # measure the presets, backbone-only and random baselines too
"""


def template(name: str, preset: str, changes: Mapping[str, Any] | None = None) -> str:
    """The commented YAML text that ``hadas init`` writes; see :func:`.fields.written`."""
    return written(_TEMPLATE, StudyConfig, PRESETS, name, preset, changes)


def validate_config(document: Any, *, source: str) -> StudyConfig:
    """Check a parsed document.

    Raises:
        ConfigError: names every field at fault; for an unknown field, the nearest known one.
    """
    return validated(StudyConfig, document, source=source)


def load_config(path: Path) -> StudyConfig:
    """Read and check a study file.

    Raises:
        ConfigError: missing, empty or unreadable file, bad YAML (with the line), or bad fields (each named); a study
            of another system, with what works on it.
    """
    document = read_study_file(path)
    if is_edge(document):
        raise ConfigError(
            f"study file {path}: is of 'system: {EDGE}', on which this does not work; what does: "
            "hadas run, status, report"
        )
    return validate_config(document, source=f"study file {path}")


PLACE_FIELDS = ("device", "workers", "n_workers", "cluster")
"""Fields of ``accuracy`` that say where it is measured; of these ``device`` alone changes results, by rounding."""

FREE_FIELDS = frozenset(
    {
        "learning.rounds",
        "learning.stop_gain",
        "learning.stop_rounds",
        "baselines",
        "store",
        *(f"accuracy.{field}" for field in PLACE_FIELDS),
    }
)
"""Fields that may change in a study that has begun: none of them alters what is journalled already."""


def with_places(config: StudyConfig, changes: Mapping[str, Any]) -> StudyConfig:
    """A configuration whose accuracy is measured elsewhere.

    Args:
        changes: some of :data:`PLACE_FIELDS`; a ``cluster`` alone means Dask, other workers no cluster.

    Raises:
        ConfigError: fields that do not validate, or not together.
    """
    document = config.model_dump(mode="json")
    places = dict(changes)
    if "cluster" in places:
        places.setdefault("workers", "dask")
    elif places.get("workers", "dask") != "dask":
        places["cluster"] = None
    document["accuracy"] |= places
    return validate_config(document, source="command line")


def config_difference(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Lines ``field: old -> new`` for every field that differs and may not.

    A field that a study began without, because there was none yet, counts as its default: that is
    what was done before it could be said.
    """
    return difference(StudyConfig().model_dump(mode="json"), old, new, FREE_FIELDS)
