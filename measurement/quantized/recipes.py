"""Recipes: how quantized early-exit networks are trained and evaluated.  Values only; imports without torch."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from ...errors import ConfigError
from ..accuracy.recipes import PRECISIONS

TRAINING_VERSION = 2
"""Raised whenever the code of this folder changes what a recipe gives."""

_START_FIELDS = (
    "start_steps", "start_learning_rate", "batch_size", "warmup_fraction", "momentum", "weight_decay",
    "label_smoothing", "clip_norm", "max_shift", "mirror", "precision", "seed",
)  # fmt: skip

_TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}


@dataclass(frozen=True, slots=True)
class QuantizedRecipe:
    """How all networks of a space start from the same weights, and how each is tuned from there.

    The shared start is trained in full precision with all exits, of both head types in turn.  Each network
    then takes the weights that it has a place for, and is tuned as a whole, backbone and exits, with its
    quantizers in place.

    Attributes:
        start_steps: optimizer steps of the shared start.
        tune_steps: optimizer steps of each network.
        start_learning_rate, tune_learning_rate: peaks of SGD's (Nesterov); cosine decay after a linear warm-up.
        batch_size: images per step.
        warmup_fraction: share of the steps that warm up.
        momentum, weight_decay: of SGD; no decay on batch norm and biases.
        label_smoothing: of every exit's cross-entropy.
        depth_weight: of exit k of e, k = 1..e, the loss counts (k / e) ** depth_weight, normalised: 0 = all alike.
        clip_norm: bound on the norm of the gradient.
        max_shift, mirror: random changes of training images: pixels either way, and mirroring.
        norm_batches: training batches that batch norm's statistics are taken from after tuning.
        precision: of the training passes; weights, rounding and evaluation stay ``float32``.
        evaluation_batch_size: images per forward pass without gradients.
        seed: fixes all randomness, with the network's identity.
    """

    start_steps: int = 400
    tune_steps: int = 40
    start_learning_rate: float = 0.1
    tune_learning_rate: float = 0.02
    batch_size: int = 64
    warmup_fraction: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    label_smoothing: float = 0.0
    depth_weight: float = 0.0
    clip_norm: float = 5.0
    max_shift: int = 0
    mirror: bool = False
    norm_batches: int = 8
    precision: str = "float32"
    evaluation_batch_size: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        for declared in fields(self):
            self._check_type(declared.name, type(declared.default))
        for field in (
            "start_steps", "tune_steps", "start_learning_rate", "tune_learning_rate", "clip_norm", "norm_batches",
            "evaluation_batch_size",
        ):  # fmt: skip
            if not getattr(self, field) > 0:
                raise self._error(field, "must be positive")
        for field in ("weight_decay", "max_shift", "seed", "depth_weight"):
            if not getattr(self, field) >= 0:
                raise self._error(field, "must not be negative")
        for field in ("warmup_fraction", "momentum", "label_smoothing"):
            if not 0 <= getattr(self, field) < 1:
                raise self._error(field, "must be at least 0 and below 1")
        if self.batch_size < 2:
            raise self._error("batch_size", "must be at least 2: batch norm learns nothing from one image")
        if self.precision not in PRECISIONS:
            raise self._error("precision", f"must be one of {list(PRECISIONS)}")

    def _check_type(self, field: str, wanted: type[Any]) -> None:
        """See that a value is of its default's type; a whole number will do where a number is wanted."""
        value: Any = getattr(self, field)
        if wanted is float and type(value) is int:
            object.__setattr__(self, field, float(value))  # equal recipes have equal hashes
        elif type(value) is not wanted:
            raise self._error(field, f"must be {_TYPE_NAMES[wanted]}")
        elif wanted is float and not math.isfinite(value):
            raise self._error(field, "must be a finite number")

    def _error(self, field: str, reason: str) -> ConfigError:
        return ConfigError(f"QuantizedRecipe.{field} = {getattr(self, field)!r}: {reason}")

    @property
    def definition(self) -> dict[str, Any]:
        """All fields that a result depends on."""
        return asdict(self)

    @property
    def start_definition(self) -> dict[str, Any]:
        """The fields that the shared start depends on: recipes that tune differently share one."""
        return {name: getattr(self, name) for name in _START_FIELDS}

    @property
    def recipe_id(self) -> str:
        """Hash of :attr:`definition` and of the code's version."""
        return content_id("quantized", self.definition)


def content_id(kind: str, content: dict[str, Any]) -> str:
    """Readable and unique: the kind and 12 hex digits over content and code version."""
    text = json.dumps({"kind": kind, "version": TRAINING_VERSION, **content}, sort_keys=True)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


DEMO = QuantizedRecipe()
"""For the digits, ``mobilenetv2-small`` and two CPU cores."""

SMOKE = QuantizedRecipe(start_steps=4, tune_steps=3, batch_size=16, norm_batches=1)
"""For tests: everything is real, nothing is good."""

CIFAR10 = QuantizedRecipe(
    start_steps=31_250, tune_steps=3_125, start_learning_rate=0.1, tune_learning_rate=0.02, batch_size=256,
    weight_decay=5e-4, max_shift=4, mirror=True, norm_batches=40, precision="bfloat16", evaluation_batch_size=1000,
)  # fmt: skip
"""For one GPU, ``mobilenetv2`` and CIFAR-10: 200 passes over 40,000 images for the start, 20 per network.
A starting point that no measurement on a GPU has confirmed yet."""

QUANTIZED_RECIPES = {"demo": DEMO, "smoke": SMOKE, "cifar10": CIFAR10}
"""Recipes by name."""
