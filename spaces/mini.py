"""The mini space: the AttentiveNAS macro-architecture scaled to small images and two CPU cores.

Twelve to eighteen blocks, at least 4 x 4 pixels at the last one, exits from block 3 on.
Its presets m0..m6 grow like a0..a6 and, like them, lie inside the space, not at its ends.

Both strides come early, so that all blocks from the second stage on cost about the same and a
supernet trains in minutes.  Exit heads are narrow against the features they read: that is what
spreads the exits' accuracy on images as small as these.
"""

from __future__ import annotations

from functools import cache

from .backbone import MBConvSpace
from .macro import Backbone, MacroArchitecture, StageChoices

_K = (3, 5)
_E = (2, 3)

_MACRO = MacroArchitecture(
    resolutions=(16, 20, 24),
    stem_widths=(4, 8),
    stem_stride=2,
    stages=(
        StageChoices("mb1", (4, 8), (1, 2), _K, (1,), 1, squeeze_excite=False),
        StageChoices("mb2", (4, 8, 12), (2, 3), _K, _E, 2, squeeze_excite=False),
        StageChoices("mb3", (4, 8, 16), (2, 3), _K, _E, 1, squeeze_excite=True),
        StageChoices("mb4", (8, 16, 24), (2, 3), _K, _E, 1, squeeze_excite=False),
        StageChoices("mb5", (8, 16, 24), (2, 3), _K, _E, 1, squeeze_excite=True),
        StageChoices("mb6", (8, 16, 32), (2, 3), _K, (3,), 1, squeeze_excite=True),
        StageChoices("mb7", (8, 16, 32), (1,), _K, (3,), 1, squeeze_excite=True),
    ),
    tail_widths=(16, 64),
    tail_expand=3,
    head_width=5,
    first_exit=3,
)

_PRESETS: dict[str, tuple[int, tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
    "m0": (16, (4, 4, 8, 8, 8, 8, 8, 16, 16), (1, 2, 2, 2, 2, 2, 1), (3, 3, 3, 3, 3, 5, 3), (1, 2, 2, 2, 3, 3, 3)),
    "m1": (16, (4, 4, 8, 8, 16, 8, 16, 16, 16), (1, 2, 2, 2, 2, 2, 1), (3, 3, 3, 5, 3, 5, 3), (1, 2, 2, 2, 3, 3, 3)),
    "m2": (16, (4, 8, 8, 8, 16, 16, 16, 16, 64), (1, 2, 2, 2, 3, 3, 1), (3, 3, 3, 3, 3, 5, 3), (1, 2, 2, 3, 3, 3, 3)),
    "m3": (20, (8, 8, 8, 16, 16, 16, 16, 16, 64), (1, 2, 3, 2, 3, 3, 1), (3, 3, 3, 5, 3, 3, 3), (1, 3, 2, 3, 3, 3, 3)),
    "m4": (20, (8, 8, 12, 16, 16, 24, 16, 32, 64), (1, 3, 3, 3, 3, 3, 1), (3, 3, 5, 5, 3, 5, 3), (1, 3, 3, 3, 3, 3, 3)),
    "m5": (24, (8, 8, 12, 16, 16, 24, 16, 32, 64), (1, 3, 3, 3, 3, 3, 1), (3, 5, 3, 5, 5, 3, 3), (1, 3, 2, 3, 3, 3, 3)),
    "m6": (24, (8, 8, 12, 16, 24, 24, 32, 16, 64), (1, 3, 3, 3, 3, 3, 1), (3, 3, 5, 3, 5, 5, 3), (1, 3, 3, 3, 3, 3, 3)),
}  # fmt: skip


@cache
def mini_space() -> MBConvSpace:
    """The mini space with its seven presets."""
    space = MBConvSpace("mini", _MACRO)
    for name, (resolution, width, depth, kernel, expand) in _PRESETS.items():
        space.add_preset(name, Backbone(space.name, resolution, width, depth, kernel, expand))
    return space
