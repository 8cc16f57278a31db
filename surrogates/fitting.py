"""One quantity's model, fitted once: what has not changed is found again and not fitted again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from .features import FEATURE_VERSION
from .models import Model
from .selection import ModelSummary, TrainingRows, select_model
from .sum_process import SumProcess
from .sums import SumRows, fit_sums


@dataclass(frozen=True)
class FittedQuantity:
    """A model, why it was chosen, and what it depends on.

    Attributes:
        digest: SHA-256 over training rows, feature version, seed and candidates.
    """

    model: Model
    summary: ModelSummary
    digest: str


Earlier = Callable[[str, str], FittedQuantity | None]
"""Finds what was fitted to the same before, by quantity and digest."""


def nothing_earlier(quantity: str, digest: str) -> FittedQuantity | None:
    """Where nothing was fitted before."""
    return None


@dataclass(frozen=True)
class Fitter:
    """How models of quantities are chosen and fitted.

    Attributes:
        candidates: model kinds, the preferred one first.
        chosen: kinds by quantity, for which nothing is compared any more.
        earlier: where to look before anything is fitted.
    """

    candidates: Sequence[str]
    chosen: Mapping[str, str] = field(default_factory=dict)
    earlier: Earlier = nothing_earlier

    def fit(self, quantity: str, unit: str, data: TrainingRows, *, seed: int) -> FittedQuantity:
        """Choose and fit a model, or find it.

        Raises:
            ModelError: no candidate, an unknown one, or no row.
        """
        kind = self.chosen.get(quantity)
        if kind == SumProcess.kind:  # what was chosen for sums is, for single rows, the process itself
            kind = "gp"
        candidates = self.candidates if kind is None else (kind,)
        digest = rows_digest(data, quantity, seed, kind, candidates)
        found = self.earlier(quantity, digest)
        if found is not None:
            return found
        model, summary = select_model(
            quantity, unit, data, candidates=candidates, seed=seed, score=kind is None
        )
        return FittedQuantity(model, summary, digest)

    def fit_sums(
        self, quantity: str, unit: str, data: SumRows, *, n_groups: int, seed: int
    ) -> FittedQuantity:
        """Fit to sums of parts, or find the model; no other model can, so there is nothing to choose from.

        Raises:
            ModelError: no row.
        """
        digest = rows_digest(data, quantity, seed)
        found = self.earlier(quantity, digest)
        if found is not None:
            return found
        model = fit_sums(quantity, unit, data, seed=seed)
        return FittedQuantity(
            model, ModelSummary(quantity, unit, model.kind, len(data.y), n_groups, ()), digest
        )


def rows_digest(data: TrainingRows | SumRows, *context: object) -> str:
    """SHA-256 over training rows, the feature version and whatever else a fit depends on."""
    digest = hashlib.sha256(repr((type(data).__name__, FEATURE_VERSION, *context)).encode())
    for item in fields(data):
        value = getattr(data, item.name)
        digest.update(f";{item.name}:".encode())
        if isinstance(value, np.ndarray):
            digest.update(f"{value.dtype}{value.shape}".encode())
            digest.update(np.ascontiguousarray(value).tobytes())
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()
