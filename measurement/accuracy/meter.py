"""The interface behind which accuracy is measured."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Protocol

from ...datasets.records import AccuracyRecord
from ...spaces import Backbone


class AccuracyMeter(Protocol):
    """Something that can say what a backbone and all its exits get right."""

    @property
    def weights_id(self) -> str: ...
    @property
    def recipe_id(self) -> str: ...
    @property
    def split_id(self) -> str: ...
    def measure(
        self, backbones: Sequence[Backbone], *, session: str, first_row: int = 0
    ) -> Generator[AccuracyRecord, None, None]:
        """Yield one record per backbone; row numbers count from ``first_row``.

        The record of a backbone depends on the backbone, the weights and the recipe alone,
        not on its place in the sequence.
        """
        ...
