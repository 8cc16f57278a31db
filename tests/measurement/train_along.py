"""One of several processes of a training: run by torchrun, from a test.

Trains every recipe of ``recipes.json`` and writes what it ended with; goes on with a training that
the other process does not see; runs ``hadas train``.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

from hadas import cli
from hadas.datasets.images import ImageData, load_images
from hadas.errors import CheckpointError
from hadas.measurement.accuracy.checkpoints import read_checkpoint, tensors_id
from hadas.measurement.accuracy.distributed import launched_rank
from hadas.measurement.accuracy.recipes import SupernetRecipe
from hadas.measurement.accuracy.training import train_supernet
from hadas.spaces import mini_space


def main(directory: Path) -> None:
    rank = launched_rank()
    data = load_images("digits", limit=10)
    ended = []
    for fields in json.loads((directory / "recipes.json").read_text()):
        losses: list[float] = []
        trained = train_supernet(
            mini_space(), data, SupernetRecipe(**fields), directory=directory / "weights",
            progress=lambda step, steps, loss, losses=losses: losses.append(loss),
        )  # fmt: skip
        stored = read_checkpoint(trained.path)
        trainable = {n: t for n, t in stored.tensors.items() if "running" not in n and "num_batches" not in n}
        ended.append(
            {
                "path": str(trained.path),
                "weights_id": trained.weights_id,
                "stored_id": tensors_id(trainable),
                "losses": losses,
            }
        )
    (directory / f"apart{rank}.txt").write_text(_go_on_apart(data, directory / f"weights-of-{rank}"))
    (directory / f"rank{rank}.json").write_text(json.dumps(ended))


class _KilledError(Exception):
    pass


def _go_on_apart(data: ImageData, directory: Path) -> str:
    """Train in folders that the processes do not share, go on after a kill; returns the complaint."""
    recipe = SupernetRecipe(steps=3, batch_size=4, sampled=0, threads=1)

    def kill(step: int, _steps: int, _loss: float) -> None:
        if step == 2:
            raise _KilledError

    with contextlib.suppress(_KilledError):
        train_supernet(mini_space(), data, recipe, directory=directory, progress=kill, save_every_s=0.0)
    try:
        train_supernet(mini_space(), data, recipe, directory=directory)
    except CheckpointError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    sys.argv = ["hadas", "train", str(Path(sys.argv[1]) / "study.yaml")]
    cli.main()
