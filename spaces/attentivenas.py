"""The AttentiveNAS space: 28 genes, 4 * 1536 * 6912 * 128 * 81 backbones, presets a0..a6.

The choices are published facts of AttentiveNAS (Wang et al., CVPR 2021); its code and
weights carry a non-commercial licence and are not used here.
"""

from __future__ import annotations

from functools import cache

from .backbone import MBConvSpace
from .macro import Backbone, MacroArchitecture, StageChoices

_K = (3, 5)
_E = (4, 5, 6)

_MACRO = MacroArchitecture(
    resolutions=(192, 224, 256, 288),
    stem_widths=(16, 24),
    stem_stride=2,
    stages=(
        StageChoices("mb1", (16, 24), (1, 2), _K, (1,), 1, squeeze_excite=False),
        StageChoices("mb2", (24, 32), (3, 4, 5), _K, _E, 2, squeeze_excite=False),
        StageChoices("mb3", (32, 40), (3, 4, 5, 6), _K, _E, 2, squeeze_excite=True),
        StageChoices("mb4", (64, 72), (3, 4, 5, 6), _K, _E, 2, squeeze_excite=False),
        StageChoices("mb5", (112, 120, 128), (3, 4, 5, 6, 7, 8), _K, _E, 1, squeeze_excite=True),
        StageChoices("mb6", (192, 200, 208, 216), (3, 4, 5, 6, 7, 8), _K, (6,), 2, squeeze_excite=True),
        StageChoices("mb7", (216, 224), (1, 2), _K, (6,), 1, squeeze_excite=True),
    ),
    tail_widths=(1792, 1984),
    tail_expand=6,
    head_width=224,
    first_exit=5,
)

_PRESETS: dict[str, tuple[int, tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
    "a0": (192, (16, 16, 24, 32, 64, 112, 192, 216, 1792), (1, 3, 3, 3, 3, 3, 1), (3, 3, 3, 3, 3, 3, 3), (1, 4, 4, 4, 4, 6, 6)),
    "a1": (224, (16, 16, 24, 32, 64, 112, 192, 216, 1984), (1, 3, 3, 3, 3, 3, 1), (3, 3, 3, 5, 3, 5, 3), (1, 4, 4, 4, 4, 6, 6)),
    "a2": (224, (16, 16, 24, 32, 64, 112, 200, 224, 1984), (1, 3, 3, 3, 3, 4, 1), (3, 3, 3, 3, 3, 5, 3), (1, 4, 5, 4, 4, 6, 6)),
    "a3": (224, (16, 16, 24, 32, 64, 112, 208, 224, 1984), (2, 3, 3, 4, 3, 5, 1), (3, 3, 3, 5, 3, 3, 3), (1, 4, 4, 4, 4, 6, 6)),
    "a4": (256, (16, 16, 24, 32, 64, 112, 192, 216, 1984), (1, 3, 3, 4, 3, 5, 1), (3, 3, 3, 5, 3, 5, 3), (1, 4, 4, 5, 4, 6, 6)),
    "a5": (256, (16, 16, 24, 32, 72, 112, 192, 216, 1792), (1, 3, 3, 3, 4, 6, 1), (3, 3, 3, 5, 3, 3, 3), (1, 4, 5, 4, 4, 6, 6)),
    "a6": (288, (16, 16, 24, 32, 64, 112, 216, 224, 1984), (1, 3, 3, 4, 4, 6, 1), (3, 3, 3, 3, 3, 5, 3), (1, 4, 6, 5, 4, 6, 6)),
}  # fmt: skip


@cache
def attentivenas_space() -> MBConvSpace:
    """The AttentiveNAS space with its seven published presets."""
    space = MBConvSpace("attentivenas", _MACRO)
    for name, (resolution, width, depth, kernel, expand) in _PRESETS.items():
        space.add_preset(name, Backbone(space.name, resolution, width, depth, kernel, expand))
    return space
