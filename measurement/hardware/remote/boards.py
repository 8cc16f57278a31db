"""Names of boards and processors, from what their device tree says.

The most special sign counts; a board that is not listed goes by its chip, or by its own words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_BOARDS = (
    ("p3636", "jetson-tx2-nx"),
    ("p3310", "jetson-tx2"),
    ("quill", "jetson-tx2"),
    ("p3489", "jetson-tx2i"),
    ("p2972", "jetson-agx-xavier"),
    ("p2888", "jetson-agx-xavier"),
    ("p3668", "jetson-xavier-nx"),
    ("p3448", "jetson-nano"),
    ("p3450", "jetson-nano"),
    ("p3701", "jetson-agx-orin"),
    ("p3767-0000", "jetson-orin-nx"),
    ("p3767-0001", "jetson-orin-nx"),
    ("p3767", "jetson-orin-nano"),
    ("tegra186", "jetson-tx2"),
    ("tegra194", "jetson-xavier"),
    ("tegra234", "jetson-orin"),
    ("tegra210", "jetson-nano"),
    ("tegra264", "jetson-thor"),
)

_GPUS = (
    ("tegra210", "maxwell-gpu"),
    ("tegra186", "pascal-gpu"),
    ("tegra194", "volta-gpu"),
    ("tegra234", "ampere-gpu"),
    ("tegra264", "blackwell-gpu"),
)
_CPUS = (
    ("tegra210", "a57-cpu"),
    ("tegra194", "carmel-cpu"),
    ("tegra234", "a78ae-cpu"),
)


def board_name(board: Mapping[str, Any]) -> str:
    """Name of the module, e.g. ``jetson-tx2``, from the ``board`` member of a discovery."""
    words = re.sub(r"[^a-z0-9]+", "-", str(board["model"]).lower()).strip("-")
    return _first(_BOARDS, board) or words or "unknown-board"


def gpu_name(board: Mapping[str, Any]) -> str:
    """Family of the GPU, e.g. ``pascal-gpu``."""
    return _first(_GPUS, board) or "gpu"


def cpu_name(board: Mapping[str, Any], domains: Sequence[str]) -> str:
    """Family of the cores of the given clock domains; TX2 has two families, each a domain."""
    if "nvidia,tegra186" in board["compatible"] and len(domains) == 1:
        return "denver-cpu" if domains[0] == "cpu1" else "a57-cpu"
    return _first(_CPUS, board) or "cpu"


def release_name(text: str) -> str:
    """``L4T 32.3.1`` from the text of ``/etc/nv_tegra_release``; other texts as they are."""
    found = re.search(r"R(\d+)\b.*?REVISION:\s*([\d.]+)", text, re.DOTALL)
    return f"L4T {found.group(1)}.{found.group(2)}" if found else text.strip() or "unknown release"


def _first(known: Sequence[tuple[str, str]], board: Mapping[str, Any]) -> str:
    compatible = " ".join(board["compatible"])
    return next((name for sign, name in known if sign in compatible), "")
