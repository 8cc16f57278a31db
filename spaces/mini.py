"""The mini space: the AttentiveNAS macro-architecture scaled to small images and two CPU cores.

Twelve to eighteen blocks, at least 4 x 4 pixels at the last one, exits from block 4 on.
Its presets m0..m6 grow like a0..a6: from the smallest backbone to one near the largest.
"""

from __future__ import annotations

from functools import cache

from .backbone import Backbone, MacroArchitecture, MBConvSpace, StageChoices

_K = (3, 5)
_E = (2, 3, 4)

_MACRO = MacroArchitecture(
    resolutions=(16, 20, 24),
    stem_widths=(8, 12),
    stem_stride=1,
    stages=(
        StageChoices("mb1", (8, 12), (1, 2), _K, (1,), 1, squeeze_excite=False),
        StageChoices("mb2", (8, 12, 16), (2, 3), _K, _E, 2, squeeze_excite=False),
        StageChoices("mb3", (12, 16), (2, 3), _K, _E, 1, squeeze_excite=True),
        StageChoices("mb4", (12, 16, 24), (2, 3), _K, _E, 2, squeeze_excite=False),
        StageChoices("mb5", (16, 20, 24), (2, 3), _K, _E, 1, squeeze_excite=True),
        StageChoices("mb6", (16, 24, 32), (2, 3), _K, (4,), 1, squeeze_excite=True),
        StageChoices("mb7", (24, 32), (1,), _K, (4,), 1, squeeze_excite=True),
    ),
    tail_widths=(48, 64),
    tail_expand=4,
    head_width=24,
    first_exit=4,
)

_PRESETS: dict[str, tuple[int, tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
    "m0": (16, (8, 8, 8, 12, 12, 16, 16, 24, 48), (1, 2, 2, 2, 2, 2, 1), (3, 3, 3, 3, 3, 3, 3), (1, 2, 2, 2, 2, 4, 4)),
    "m1": (16, (8, 8, 12, 12, 16, 16, 24, 24, 48), (1, 2, 2, 2, 2, 2, 1), (3, 3, 3, 5, 3, 5, 3), (1, 2, 2, 2, 3, 4, 4)),
    "m2": (16, (8, 8, 12, 16, 16, 20, 24, 32, 64), (1, 2, 2, 2, 3, 3, 1), (3, 3, 3, 3, 3, 5, 3), (1, 3, 2, 3, 3, 4, 4)),
    "m3": (20, (8, 8, 12, 16, 16, 20, 24, 32, 64), (1, 2, 3, 2, 3, 3, 1), (3, 3, 3, 5, 3, 3, 3), (1, 3, 3, 3, 3, 4, 4)),
    "m4": (20, (8, 12, 12, 16, 24, 24, 32, 32, 64), (1, 3, 3, 3, 3, 3, 1), (3, 3, 5, 5, 3, 5, 3), (1, 3, 3, 3, 4, 4, 4)),
    "m5": (24, (12, 12, 16, 16, 24, 24, 32, 32, 64), (1, 3, 3, 3, 3, 3, 1), (3, 5, 3, 5, 5, 3, 3), (1, 3, 4, 4, 4, 4, 4)),
    "m6": (24, (12, 12, 16, 16, 24, 24, 32, 32, 64), (2, 3, 3, 3, 3, 3, 1), (5, 5, 5, 5, 5, 5, 5), (1, 4, 4, 4, 4, 4, 4)),
}  # fmt: skip


@cache
def mini_space() -> MBConvSpace:
    """The mini space with its seven presets."""
    space = MBConvSpace("mini", _MACRO)
    for name, (resolution, width, depth, kernel, expand) in _PRESETS.items():
        space.add_preset(name, Backbone(space.name, resolution, width, depth, kernel, expand))
    return space
