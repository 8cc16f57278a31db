"""The skeleton that backbones of a space share, and one backbone: values only."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, slots=True)
class StageChoices:
    """One of the seven MBConv stages: what may be chosen and what is fixed."""

    name: str
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    kernels: tuple[int, ...]
    expands: tuple[int, ...]
    stride: int
    squeeze_excite: bool


@dataclass(frozen=True)
class MacroArchitecture:
    """The skeleton that all backbones of a space share.

    Attributes:
        resolutions: input side lengths, pixels.
        stem_widths, stem_stride: the first 3x3 convolution.
        stages: the MBConv stages.
        tail_widths: width of the feature-mixing layer before the classifier.
        tail_expand: the final expansion is the last stage's width times this.
        head_width: channels of the 3x3 convolution in an exit head.
        first_exit: 0-based block index of the first exit position.
    """

    resolutions: tuple[int, ...]
    stem_widths: tuple[int, ...]
    stem_stride: int
    stages: tuple[StageChoices, ...]
    tail_widths: tuple[int, ...]
    tail_expand: int
    head_width: int
    first_exit: int


@dataclass(frozen=True)
class Backbone:
    """One subnet: the values its genome chose.  Weights are not part of it.

    Attributes:
        space: name of the space it belongs to.
        resolution: input side, pixels.
        width: channels of the stem, of the seven stages, and of the tail (9 values).
        depth, kernel, expand: blocks, depthwise kernel and expansion ratio per stage (7 values each).
    """

    space: str
    resolution: int
    width: tuple[int, ...]
    depth: tuple[int, ...]
    kernel: tuple[int, ...]
    expand: tuple[int, ...]

    @cached_property
    def arch_id(self) -> str:
        """Readable and unique: the space's name and 12 hex digits of the SHA-256 of the values."""
        text = repr((self.space, self.resolution, self.width, self.depth, self.kernel, self.expand))
        return f"{self.space}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    @property
    def n_blocks(self) -> int:
        """Number of MBConv blocks, L."""
        return sum(self.depth)

    def describe(self) -> str:
        """The values in one line, for people."""
        parts = (("w", self.width), ("d", self.depth), ("k", self.kernel), ("e", self.expand))
        return f"r{self.resolution} " + " ".join(name + "-".join(map(str, values)) for name, values in parts)
