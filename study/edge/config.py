"""The study file of the system ``edge``: exits, quantization and mapping on an edge accelerator.

Its first field is ``system: edge``; ``hadas init edge.yaml --preset edge`` writes one with comments.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ...errors import ConfigError
from ...spaces.quantized import edge_space
from ..config import DataConfig, Strategy
from ..fields import EDGE, Section, difference, is_edge, read_study_file, validated, written
from .seeds import fewest_seeds

Style = Literal["edge-tpu", "eyeriss", "meta-prototype"]
Styles = Annotated[tuple[Style, ...], Field(strict=False, min_length=1)]


class EdgeDataConfig(DataConfig):
    """Which images; those of ten classes, as the heads have."""

    name: Literal["digits", "cifar10"] = "digits"


class AcceleratorConfig(Section):
    """Which accelerator the costs are modelled for; fields that are set override the preset."""

    preset: Literal["quad-edge-tpu", "quad-mixed"] = "quad-edge-tpu"
    cores: Styles | None = None
    link_bits_per_cycle: float | None = Field(default=None, gt=0.0, allow_inf_nan=False)
    link_pj_per_bit: float | None = Field(default=None, ge=0.0, allow_inf_nan=False)
    core_hz: int | None = Field(default=None, ge=1_000_000)
    map_segments: bool = False
    lpf_limit: int = Field(default=4, ge=3, le=12)
    n_workers: int | None = Field(default=None, ge=1)


class TrainingConfig(Section):
    """How networks are trained with their quantizers, and where."""

    preset: Literal["demo", "smoke", "cifar10"] = "demo"
    recipe: dict[str, Any] = Field(default_factory=dict)
    device: Literal["cpu", "cuda", "auto"] = "cpu"
    n_workers: int | None = Field(default=None, ge=1)


class LimitsConfig(Section):
    """What a network must keep to, expected under its exit policy; ``None`` = anything goes."""

    min_accuracy: float | None = Field(default=None, gt=0.0, allow_inf_nan=False)
    max_latency_ms: float | None = Field(default=None, gt=0.0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _fraction(self) -> Self:
        accuracy = self.min_accuracy
        if accuracy is not None and accuracy > 1.0:
            hint = f"; write {accuracy / 100:g} for {accuracy:g} %" if accuracy <= 100.0 else ""
            raise ValueError(f"'min_accuracy' must be a fraction from 0 to 1{hint}")
        return self


class ArchiveSearchConfig(Section):
    """NSGA-II on the predictors, and what it must keep to."""

    population: int = Field(default=64, ge=4)
    generations: int = Field(default=20, ge=1)
    constraints: LimitsConfig = LimitsConfig()


class ArchiveConfig(Section):
    """The loop: seeds, then rounds of predict, search, train, append."""

    seeds: int = Field(default=10, ge=5)
    rounds: int = Field(default=3, ge=0)
    batch: int = Field(default=4, ge=1)
    draws: int = Field(default=32, ge=8)
    information_share: float = Field(default=0.25, ge=0.0, le=1.0)
    strategy: Strategy = "hvi"
    stop_gain: float = Field(default=0.001, ge=0.0, lt=1.0)
    stop_rounds: int = Field(default=2, ge=1)


class ExitPolicyConfig(Section):
    """When a sample leaves: thresholds of the exits, calibrated on a split of their own."""

    kind: Literal["network", "exit"] = "network"
    tolerance: float = Field(default=0.01, ge=0.0, le=0.5)


class EdgeConfig(Section):
    """One study of the system ``edge``: one space, one data set, one accelerator."""

    system: Literal["edge"] = "edge"
    study: str = Field(default="edge", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    store: str = Field(default="store.sqlite", pattern=r"\S")
    seed: int = Field(default=7, ge=0, le=2**63 - 1)
    space: Literal["mobilenetv2", "mobilenetv2-small"] = "mobilenetv2-small"
    bits: Literal["pairs", "per-segment"] = "pairs"
    data: EdgeDataConfig = EdgeDataConfig()
    accelerator: AcceleratorConfig = AcceleratorConfig()
    accuracy: TrainingConfig = TrainingConfig()
    search: ArchiveSearchConfig = ArchiveSearchConfig()
    learning: ArchiveConfig = ArchiveConfig()
    policy: ExitPolicyConfig = ExitPolicyConfig()

    @model_validator(mode="after")
    def _seeds(self) -> Self:
        fewest = fewest_seeds(edge_space(self.space, bits=self.bits))
        if self.learning.seeds < fewest:
            raise ValueError(
                f"'learning.seeds' = {self.learning.seeds}: give at least {fewest}, a static network for each of "
                f"{fewest - 1} pairs of bits and one with exits"
            )
        return self


PRESETS: dict[str, dict[str, Any]] = {
    "edge": {},
    "edge-smoke": {
        "study": "edge-smoke",
        "data": {"limit": 100},
        "accuracy": {"preset": "smoke"},
        "search": {"population": 8, "generations": 2},
        "learning": {"seeds": 6, "rounds": 1, "batch": 2, "draws": 8},
    },
    "edge-gpu": {
        "space": "mobilenetv2",
        "data": {"name": "cifar10"},
        "accuracy": {"preset": "cifar10", "device": "auto"},
        "search": {"population": 100, "generations": 50, "constraints": {"min_accuracy": 0.85}},
        "learning": {"seeds": 24, "rounds": 7, "batch": 10, "draws": 64},
    },
}
"""Named starting points of ``hadas init --preset``."""

_TEMPLATE = """\
# A hadas study of exits, quantization and mapping on an edge accelerator.  `hadas run {name}` does the whole loop.
system: {system}  # which of the two systems the file is for
study: {study}  # name of the study in its store
store: {store}  # SQLite file (relative to this one) or any SQLAlchemy URL; studies may share it
seed: {seed}  # fixes the run
space: {space}  # mobilenetv2 (32 px, the paper's) | mobilenetv2-small (16 px, a quarter as wide)
bits: {bits}  # pairs: of backbone and heads, 32+32, 8+8, 8+4, 4+8 or 4+4 | per-segment: 4 or 8 for each, and for the heads
data:
  name: {data.name}  # digits (embedded) | cifar10
  path: {data.path}  # folder with the images as published or as hub parquet (relative to this file); null = data, where hadas is run; nothing is downloaded
  limit: {data.limit}  # at most this many underlying images per split, to try things out; null = all
accelerator:  # energy and latency come from an analytical cost model (zigzag-dse) and are marked MODELLED
  preset: {accelerator.preset}  # quad-edge-tpu (four equal cores) | quad-mixed (four cores of three styles)
  cores: {accelerator.cores}  # a list of your own instead, of edge-tpu, eyeriss, meta-prototype; null = the preset's
  link_bits_per_cycle: {accelerator.link_bits_per_cycle}  # of the link between cores; null = the preset's
  link_pj_per_bit: {accelerator.link_pj_per_bit}  # energy of a bit that crosses it; null = the preset's
  core_hz: {accelerator.core_hz}  # cycles per second, integer Hz; null = the preset's
  map_segments: {accelerator.map_segments}  # also choose the core of every segment, by what costs least; false = all on the first core
  lpf_limit: {accelerator.lpf_limit}  # how finely zigzag-dse splits loops; dearer with every step
  n_workers: {accelerator.n_workers}  # processes that fill the table of layer costs; null = as many as processors
accuracy:  # measured: each network is trained with its quantizers
  preset: {accuracy.preset}  # demo | smoke | cifar10
  recipe: {accuracy.recipe}  # single fields of the recipe that differ from the preset
  device: {accuracy.device}  # cpu | cuda | auto (cuda where there is one)
  n_workers: {accuracy.n_workers}  # networks trained side by side; null = as many as the device allows; results do not depend on it
search:
  population: {search.population}  # of NSGA-II on the predictors
  generations: {search.generations}  # of it
  constraints: {search.constraints}  # what a network must keep to, expected under its exit policy; accuracy as a fraction; null = anything
learning:
  seeds: {learning.seeds}  # networks trained first: static ones, the paper's exits, then such as fill the space
  rounds: {learning.rounds}  # of predict, search, train, append
  batch: {learning.batch}  # networks trained per round
  draws: {learning.draws}  # joint draws of the predictors that weigh a batch
  information_share: {learning.information_share}  # share of a batch spent on what the predictors know least
  strategy: {learning.strategy}  # how a batch is chosen: hvi | random | variance | mean | thompson | spread | qlognehvi (all but hvi to compare with)
  stop_gain: {learning.stop_gain}  # stop when a best batch is expected to gain less than this share of the hypervolume ..
  stop_rounds: {learning.stop_rounds}  # .. in so many rounds on end; stop_gain 0 = never
policy:
  kind: {policy.kind}  # network (one threshold for all its exits) | exit (one for each)
  tolerance: {policy.tolerance}  # accuracy that leaving early may lose against the final exit, as a fraction
"""

FREE_FIELDS = frozenset(
    {
        "store", "learning.rounds", "learning.stop_gain", "learning.stop_rounds", "accuracy.device",
        "accuracy.n_workers", "accelerator.n_workers",
    }
)  # fmt: skip
"""Fields that may change in a study that has begun: none of them alters what is journalled already."""

GENOME_FIELDS = frozenset({"space", "bits"})
"""Fields that say what a genome means, so that no study can go on with others."""


def edge_template(name: str, preset: str, changes: Mapping[str, Any] | None = None) -> str:
    """The commented YAML text that ``hadas init`` writes; see :func:`..fields.written`."""
    return written(_TEMPLATE, EdgeConfig, PRESETS, name, preset, changes)


def validate_edge(document: Any, *, source: str) -> EdgeConfig:
    """Check a parsed document.

    Raises:
        ConfigError: names every field at fault; for an unknown field, the nearest known one.
    """
    return validated(EdgeConfig, document, source=source)


def load_edge_config(path: Path) -> EdgeConfig:
    """Read and check a study file.

    Raises:
        ConfigError: missing, empty or unreadable file, bad YAML (with the line), bad fields (each named), or a file of
            another system.
    """
    document = read_study_file(path)
    if isinstance(document, dict) and not is_edge(document):
        raise ConfigError(f"study file {path}: its first field must be 'system: {EDGE}'")
    return validate_edge(document, source=f"study file {path}")


def edge_difference(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Lines ``field: old -> new`` for every field that differs and may not."""
    return difference(EdgeConfig().model_dump(mode="json"), old, new, FREE_FIELDS)
