"""From a supernet checkpoint to a study: what is in the file, and what a study may do with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..datasets.images import N_CLASSES
from ..errors import CheckpointError, ConfigError
from ..spaces import MBConvSpace, attentivenas_space, mini_space

if TYPE_CHECKING:
    from ..measurement.accuracy.checkpoints import StoredWeights


def adopt_checkpoint(
    path: Path, *, data: str | None, data_path: Path | None, ema: bool
) -> tuple[dict[str, dict[str, Any] | str], str]:
    """Read a checkpoint whole, and say how a study uses it; the study will name it by its whole path.

    A finished supernet for as many classes as the images have is used unchanged; any other is
    where fine-tuning starts from.

    Args:
        path: a checkpoint of hadas or a published AttentiveNAS file.
        data, data_path: name of the images, and the folder that holds them; by default the digits for
            the mini space and CIFAR-100 for the AttentiveNAS space.
        ema: take the exponential moving average.

    Returns:
        The fields that a study file needs, by section, and a sentence for people.

    Raises:
        CheckpointError: not a supernet of any space that hadas knows; names the weight at fault.
        ConfigError: no data set of that name.
    """
    from ..measurement.accuracy.checkpoints import read_checkpoint
    from ..measurement.accuracy.training import starting_supernet

    if data is not None and data not in N_CLASSES:
        raise ConfigError(f"no data set '{data}'; known: {sorted(N_CLASSES)}")
    stored = read_checkpoint(path, ema=ema)
    space = _space_of(stored)
    data = data or ("digits" if space is mini_space() else "cifar100")
    starting_supernet(space, stored.n_classes, 0, stored)  # every name and every shape
    finished = stored.record is None or bool(stored.record["finished"])
    unchanged = finished and stored.n_classes == N_CLASSES[data]
    named = {"checkpoint" if unchanged else "start": str(path.resolve()), "ema": ema}
    fields: dict[str, dict[str, Any] | str] = {
        "space": space.name,
        "data": {"name": data, **({} if data_path is None else {"path": str(data_path.resolve())})},
        "accuracy": named,
    }
    if unchanged:
        use = "used unchanged"
    elif stored.n_classes == N_CLASSES[data]:
        use = "trained further, because its training was not finished"
    else:
        use = f"fine-tuned with a fresh classifier for the {N_CLASSES[data]} classes of {data}"
    origin = "published" if stored.record is None else "hadas"
    return (
        fields,
        f"{path}: a {origin} supernet of space '{space.name}' for {stored.n_classes} classes, {use}",
    )


def _space_of(stored: StoredWeights) -> MBConvSpace:
    """The space that a checkpoint names; published ones are of the AttentiveNAS space."""
    from ..measurement.accuracy.training import space_digest

    if stored.record is None:
        return attentivenas_space()
    known = {space_digest(space): space for space in (mini_space(), attentivenas_space())}
    named = str(stored.record["space"])
    if named not in known:
        raise CheckpointError(
            f"{stored.path}: a checkpoint of space '{named}', which hadas does not know; known: "
            f"{sorted(known)}"
        )
    return known[named]
