"""Supernet checkpoints: the names that published AttentiveNAS files use, reading and writing.

A supernet of ours has exactly the published names and shapes (facts of the release; none of its
code), so a published file loads unchanged and a file of ours loads elsewhere.  Reading never runs
code from a file: ``torch.load`` with ``weights_only=True``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import CheckpointError
from .network import Normalization

Tensors = dict[str, Tensor]

FORMAT = "hadas-supernet-2"
CLASSIFIER = ("classifier.linear.linear.weight", "classifier.linear.linear.bias")
STATE_DICTS = ("state_dict", "state_dict_ema")
_PREFIX = "module."
_RECORDED = ("space", "n_classes", "finished", "seconds", "normalization")
_RECORDED_UNFINISHED = ("step", "momentum", "n_processes")
_OTHER_FILE = "name another file, or move this one away if hadas wrote it, to train again"

_LAYERS = {
    "stem.conv": "first_conv.conv.conv",
    "stem.bn": "first_conv.bn.bn",
    "tail.expand.conv": "last_conv.final_expand_layer.conv.conv",
    "tail.expand.bn": "last_conv.final_expand_layer.bn.bn",
    "tail.mix": "last_conv.feature_mix_layer.conv.conv",
    "tail.classifier": "classifier.linear.linear",
}
_BLOCK_LAYERS = {
    "expand.conv": "mobile_inverted_conv.inverted_bottleneck.conv.conv",
    "expand.bn": "mobile_inverted_conv.inverted_bottleneck.bn.bn",
    "depthwise.conv": "mobile_inverted_conv.depth_conv.conv.conv",
    "depthwise.bn": "mobile_inverted_conv.depth_conv.bn.bn",
    "se.reduce": "mobile_inverted_conv.depth_conv.se.fc.reduce",
    "se.expand": "mobile_inverted_conv.depth_conv.se.fc.expand",
    "project.conv": "mobile_inverted_conv.point_linear.conv.conv",
    "project.bn": "mobile_inverted_conv.point_linear.bn.bn",
    "shortcut": "shortcut.conv.conv",
}


def published_name(name: str) -> str:
    """The name that published files give to a weight of our networks.

    Args:
        name: as in :class:`~.network.EarlyExitNetwork`, blocks numbered as in the deepest backbone.
    """
    layer, _, role = name.rpartition(".")
    if not layer.startswith("blocks."):
        return f"{_LAYERS[layer]}.{role}"
    _, block, rest = layer.split(".", 2)
    return f"blocks.{block}.{_BLOCK_LAYERS[rest]}.{role}"


@dataclass(frozen=True)
class StoredWeights:
    """What a checkpoint file holds.

    Attributes:
        path: where it was read.
        tensors: by published name, without the ``module.`` prefix; floating-point ones as float32.
        normalization: of the images that the weights were trained on.
        record: what hadas wrote beside the weights (space, classes, steps ...); ``None`` in a file
            that others wrote.
    """

    path: Path
    tensors: Tensors
    normalization: Normalization
    record: dict[str, Any] | None

    @property
    def n_classes(self) -> int:
        """Outputs of the classifier.

        Raises:
            CheckpointError: the file has none, or one that is no matrix.
        """
        weight = self.tensors.get(CLASSIFIER[0])
        if weight is None:
            raise CheckpointError(f"{self.path}: lacks weight '{CLASSIFIER[0]}'")
        if weight.dim() != 2:
            raise CheckpointError(
                f"{self.path}: weight '{CLASSIFIER[0]}' has shape {tuple(weight.shape)}, not (classes, features)"
            )
        return int(weight.shape[0])

    @property
    def content_id(self) -> str:
        """SHA-256 over names and values (first 16 hex digits)."""
        return tensors_id(self.tensors)


def tensors_id(tensors: Tensors) -> str:
    """SHA-256 over all names and values (first 16 hex digits)."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def non_finite_weight(tensors: Mapping[str, Tensor]) -> str | None:
    """Name of the first tensor with an infinite or undefined value, if there is one."""
    return next((name for name, value in tensors.items() if not value.isfinite().all()), None)


def write_checkpoint(
    path: Path, tensors: Tensors, normalization: Normalization, record: dict[str, Any]
) -> None:
    """Write a checkpoint so that a reader, or a kill, sees the old file or the new one, never a part."""
    content = {
        "format": FORMAT,
        **record,
        "normalization": str(normalization),
        "state_dict": {_PREFIX + name: value.detach().cpu() for name, value in tensors.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    torch.save(content, temporary)
    os.replace(temporary, path)


def remove_stale_parts(*paths: Path) -> None:
    """Remove half-written files of these checkpoints, left by processes that were killed in a save."""
    for path in paths:
        for part in path.parent.glob(f"{path.name}.*.tmp"):
            pid = part.name.removeprefix(f"{path.name}.").removesuffix(".tmp")
            if pid.isdecimal() and not Path("/proc", pid).exists():  # one that lives may be saving now
                part.unlink(missing_ok=True)


def read_checkpoint(path: str | Path, *, ema: bool = False) -> StoredWeights:
    """Read a checkpoint of ours or a published one, whatever its keys are prefixed with.

    Args:
        ema: take the exponential moving average (``state_dict_ema``) where a file has both.

    Raises:
        CheckpointError: no file, not a checkpoint, cut short, or one that holds more than plain values.
    """
    path = Path(path)
    content = _load(path)
    wanted = STATE_DICTS[::-1] if ema else STATE_DICTS
    if ema and STATE_DICTS[1] not in content:
        raise CheckpointError(f"{path}: has no '{STATE_DICTS[1]}'; leave 'ema' off")
    key = next((name for name in wanted if name in content), None)
    tensors = content if key is None else content[key]
    if not isinstance(tensors, dict) or not tensors or not all(map(torch.is_tensor, tensors.values())):
        raise CheckpointError(
            f"{path}: not a supernet checkpoint (no tensors under 'state_dict' or 'state_dict_ema'); {_OTHER_FILE}"
        )
    # Half precision is how some store weights; here they are float32 from the file on.
    plain = {
        str(name).removeprefix(_PREFIX): value.float() if value.is_floating_point() else value
        for name, value in tensors.items()
    }
    if "format" not in content:
        return StoredWeights(path, plain, Normalization.IMAGENET, None)
    return StoredWeights(path, plain, *_our_record(path, content))


def _load(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint; train one, or correct the path") from error
    except Exception as error:  # torch raises many kinds for a file that is not its own
        # Torch's own advice on a file that does not unpickle is to switch the protection off; where it
        # stumbles over a text, it names a byte of it as a missing key.
        said = "" if isinstance(error, LookupError) else str(error)
        lines = (s for s in said.splitlines() if s.strip() and "weights_only" not in s)
        first_line = next(lines, "not written by torch.save")
        if "weights_only" in str(error).lower() and "GLOBAL" in str(error):
            raise CheckpointError(
                f"{path}: holds Python objects beside its weights, and hadas runs no code from a file. Where you "
                "trust it, save the weights alone: torch.save({'state_dict': "
                "torch.load(FILE, weights_only=False)['state_dict']}, NEW_FILE)"
            ) from error
        raise CheckpointError(
            f"{path}: not a readable checkpoint, or cut short ({first_line}); {_OTHER_FILE}"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not a supernet checkpoint; {_OTHER_FILE}")
    return content


def _our_record(path: Path, content: dict[str, Any]) -> tuple[Normalization, dict[str, Any]]:
    if content["format"] != FORMAT:
        raise CheckpointError(f"{path}: of format '{content['format']}', not '{FORMAT}'; {_OTHER_FILE}")
    for key in _RECORDED if content.get("finished") else _RECORDED + _RECORDED_UNFINISHED:
        if key not in content:
            raise CheckpointError(f"{path}: lacks '{key}', so it is damaged; {_OTHER_FILE}")
    if content["normalization"] not in tuple(Normalization):
        raise CheckpointError(
            f"{path}: normalization '{content['normalization']}' is none of {[str(n) for n in Normalization]}, so the "
            f"file is damaged or of a newer hadas; {_OTHER_FILE}"
        )
    record = {name: value for name, value in content.items() if name not in STATE_DICTS}
    return Normalization(content["normalization"]), record
