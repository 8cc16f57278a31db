"""Recipes: how the supernet and the exits are trained.  Values only; imports without torch."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import Any

from ...errors import ConfigError

TRAINING_VERSION = 1
"""Raised whenever the code of this folder changes what a recipe gives."""


PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True, slots=True)
class SupernetRecipe:
    """How a supernet is trained.

    Attributes:
        steps: optimizer steps; each runs the largest, ``sampled`` random and the smallest backbone.
        batch_size: images per step.
        learning_rate: peak of SGD's (Nesterov); cosine decay after a linear warm-up.
        warmup_fraction: share of the steps that warm up.
        momentum, weight_decay: of SGD; no decay on batch norm and biases.
        label_smoothing: of the largest backbone's cross-entropy.
        clip_norm: bound on the norm of the gradient summed over the step's backbones.
        sampled: random backbones per step between the largest and the smallest.
        max_shift: pixels by which training images move at random, either way.
        mirror: whether training images are mirrored at random.
        sampling: how the random backbones are chosen: ``uniform``; or, at a random target of MACs,
            the ``best`` or ``worst`` of ``candidates`` by the loss on the step's images.
        candidates: backbones that such a choice compares.
        distillation: ``kl`` or ``alpha``, the adaptive alpha-divergence.  In short trainings on the
            digits ``alpha`` was worse than ``kl`` (``benchmarks/distillation.py``); compare before trusting it.
        alpha_min, alpha_max, alpha_clip: of the alpha-divergence: its two exponents, and the bound
            on the ratio of probabilities where a power of it would explode.
        dropout: before the classifier of the largest backbone.
        drop_connect: share of samples that skip a residual branch in the largest backbone's last two
            stages, growing to this at the last block.
        precision: of the forward and backward passes; weights stay ``float32``.
        seed: with the step's number it fixes all randomness.
        threads: backbones whose gradients are computed side by side; changes no result.
    """

    steps: int = 300
    batch_size: int = 64
    learning_rate: float = 0.3
    warmup_fraction: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    label_smoothing: float = 0.1
    clip_norm: float = 5.0
    sampled: int = 2
    max_shift: int = 0
    mirror: bool = False
    sampling: str = "uniform"
    candidates: int = 3
    distillation: str = "kl"
    alpha_min: float = -1.0
    alpha_max: float = 1.0
    alpha_clip: float = 5.0
    dropout: float = 0.0
    drop_connect: float = 0.0
    precision: str = "float32"
    seed: int = 0
    threads: int = 2

    def __post_init__(self) -> None:
        _finite(self)
        _positive(
            self, "steps", "batch_size", "learning_rate", "clip_norm", "threads", "candidates", "alpha_clip"
        )
        _fraction(self, "warmup_fraction", "momentum", "label_smoothing", "dropout", "drop_connect")
        _one_of(self, "sampling", ("uniform", "best", "worst"))
        _one_of(self, "distillation", ("kl", "alpha"))
        _one_of(self, "precision", PRECISIONS)
        _not_negative(self, "weight_decay", "sampled", "max_shift", "seed")
        if self.alpha_clip < 1:
            raise ConfigError(
                f"SupernetRecipe.alpha_clip = {self.alpha_clip!r}: must be at least 1, the ratio of equal probabilities"
            )

    @property
    def definition(self) -> dict[str, Any]:
        """All fields that a result depends on."""
        return _without_threads(asdict(self))

    @property
    def recipe_id(self) -> str:
        """Hash of :attr:`definition` and of the code's version."""
        return content_id("supernet", self.definition)


@dataclass(frozen=True, slots=True)
class ExitRecipe:
    """How a backbone's batch norm is calibrated, its exits trained, and all of it evaluated.

    Attributes:
        calibration_batches, calibration_batch_size: training images for the batch norm of the backbone
            and, after their training, of the heads.
        train_images: training images whose features the heads learn from.
        epochs: passes of the heads over these.
        batch_size: images per step of the heads.
        optimizer: ``adam``, or ``sgd`` with momentum 0.9.
        learning_rate: at its peak.
        schedule: decay after a linear warm-up, ``cosine`` or ``linear``.
        warmup_fraction: share of the steps that warm up.
        weight_decay: on convolution and linear weights of the heads.
        clip_norm: bound on the norm of all heads' gradient; 0 = none.
        max_shift, mirror: random changes of the training images, as in :class:`SupernetRecipe`.
        backbone_norm: ``calibrated``: the frozen backbone's batch norm stays in evaluation mode;
            ``batch``: it runs on the statistics of each batch while exits train, as HADAS's code does.
        cache_features: run the frozen backbone once and keep what the heads read, instead of once per
            step; needs memory for all of it, unchanged images and calibrated batch norm.
        temperature: ``one``, or ``fitted``: divide each exit's logits by the temperature that
            minimises its loss on the calibration split; accuracy does not change.
        precision: of the backbone's and heads' passes, on any device; weights stay ``float32``.
        evaluation_batch_size: images per forward pass without gradients.
        seed: with the backbone's identity it fixes all randomness.
        threads: backbones measured side by side; changes no result.
    """

    calibration_batches: int = 16
    calibration_batch_size: int = 128
    train_images: int = 2560
    epochs: int = 6
    batch_size: int = 128
    optimizer: str = "adam"
    learning_rate: float = 2e-2
    schedule: str = "cosine"
    warmup_fraction: float = 0.1
    weight_decay: float = 1e-5
    clip_norm: float = 0.0
    max_shift: int = 0
    mirror: bool = False
    backbone_norm: str = "calibrated"
    cache_features: bool = True
    temperature: str = "one"
    precision: str = "float32"
    evaluation_batch_size: int = 256
    seed: int = 0
    threads: int = 2

    def __post_init__(self) -> None:
        _finite(self)
        _positive(
            self, "calibration_batches", "calibration_batch_size", "train_images", "epochs", "batch_size"
        )
        _positive(self, "learning_rate", "evaluation_batch_size", "threads")
        _fraction(self, "warmup_fraction")
        _not_negative(self, "weight_decay", "clip_norm", "max_shift", "seed")
        _one_of(self, "optimizer", ("adam", "sgd"))
        _one_of(self, "schedule", ("cosine", "linear"))
        _one_of(self, "backbone_norm", ("calibrated", "batch"))
        _one_of(self, "temperature", ("one", "fitted"))
        _one_of(self, "precision", PRECISIONS)
        changes = {"max_shift": self.max_shift > 0, "mirror": self.mirror}
        changes["backbone_norm"] = self.backbone_norm == "batch"
        for field, changing in changes.items():
            if changing and self.cache_features:
                raise ConfigError(
                    f"ExitRecipe.{field} = {getattr(self, field)!r}: features differ from epoch to epoch then; "
                    "set cache_features to false"
                )

    @property
    def definition(self) -> dict[str, Any]:
        """All fields that a result depends on."""
        return _without_threads(asdict(self))

    @property
    def recipe_id(self) -> str:
        """Hash of :attr:`definition` and of the code's version."""
        return content_id("exits", self.definition)


def content_id(kind: str, content: dict[str, Any]) -> str:
    """Readable and unique: the kind and 12 hex digits over content and code version."""
    text = json.dumps({"kind": kind, "version": TRAINING_VERSION, **content}, sort_keys=True)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def warmup_cosine(step: int, n_steps: int, warmup_fraction: float) -> float:
    """Learning-rate factor: linear from 1 / warm-up steps to 1, then a half cosine towards 0."""
    warmup = max(1, round(n_steps * warmup_fraction))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, n_steps - warmup)))


def warmup_linear(step: int, n_steps: int, warmup_fraction: float) -> float:
    """Learning-rate factor: as :func:`warmup_cosine`, but along a straight line towards 0."""
    warmup = max(1, round(n_steps * warmup_fraction))
    if step < warmup:
        return (step + 1) / warmup
    return 1.0 - (step - warmup) / max(1, n_steps - warmup)


def _without_threads(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != "threads"}


def _finite(recipe: SupernetRecipe | ExitRecipe) -> None:
    for field, value in asdict(recipe).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{type(recipe).__name__}.{field} = {value!r}: must be a finite number")


def _positive(recipe: object, *fields: str) -> None:
    for field in fields:
        if not getattr(recipe, field) > 0:
            raise ConfigError(
                f"{type(recipe).__name__}.{field} = {getattr(recipe, field)!r}: must be positive"
            )


def _not_negative(recipe: object, *fields: str) -> None:
    for field in fields:
        if not getattr(recipe, field) >= 0:
            raise ConfigError(
                f"{type(recipe).__name__}.{field} = {getattr(recipe, field)!r}: must not be negative"
            )


def _fraction(recipe: object, *fields: str) -> None:
    for field in fields:
        if not 0 <= getattr(recipe, field) < 1:
            raise ConfigError(
                f"{type(recipe).__name__}.{field} = {getattr(recipe, field)!r}: must be at least 0 and below 1"
            )


def _one_of(recipe: object, field: str, known: tuple[str, ...]) -> None:
    if getattr(recipe, field) not in known:
        raise ConfigError(
            f"{type(recipe).__name__}.{field} = {getattr(recipe, field)!r}: must be one of {list(known)}"
        )


DEMO_SUPERNET = SupernetRecipe()
DEMO_EXITS = ExitRecipe()
"""For two CPU cores and the digits: a spread between backbones worth searching in."""

SMOKE_SUPERNET = SupernetRecipe(steps=8, batch_size=32, threads=1)
SMOKE_EXITS = ExitRecipe(calibration_batches=2, train_images=256, epochs=1, threads=1)
"""For tests: everything is real, nothing is good.  One thread, because tests run side by side."""

GPU_SUPERNET = SupernetRecipe(
    steps=12_500, learning_rate=0.02, max_shift=4, mirror=True, dropout=0.2, drop_connect=0.2, clip_norm=1.0,
    precision="bfloat16",
)  # fmt: skip
GPU_EXITS = ExitRecipe(
    calibration_batches=64, train_images=10**9, epochs=10, batch_size=256, learning_rate=5e-3, max_shift=4,
    mirror=True, cache_features=False, precision="bfloat16",
)  # fmt: skip
"""For one GPU, the AttentiveNAS space and CIFAR: twenty passes over 40,000 images to fine-tune a supernet,
ten for the exits.  Starting points that no measurement on a GPU has confirmed yet."""

HADAS_CODE_EXITS = ExitRecipe(
    calibration_batches=64, calibration_batch_size=64, train_images=10**9, epochs=30, batch_size=64,
    optimizer="sgd", learning_rate=0.01, schedule="linear", warmup_fraction=5 / 30, weight_decay=1e-5,
    clip_norm=1.0, backbone_norm="batch", cache_features=False,
)  # fmt: skip
"""What HADAS's released code does: 30 epochs of SGD over all images, batch statistics while exits train."""

RECIPE_PRESETS = {
    "demo": (DEMO_SUPERNET, DEMO_EXITS),
    "smoke": (SMOKE_SUPERNET, SMOKE_EXITS),
    "gpu": (GPU_SUPERNET, GPU_EXITS),
    "hadas-code": (GPU_SUPERNET, HADAS_CODE_EXITS),
}
