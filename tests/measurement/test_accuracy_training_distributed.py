from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hadas.datasets.images import load_images
from hadas.errors import ConfigError
from hadas.measurement.accuracy.checkpoints import read_checkpoint
from hadas.measurement.accuracy.distributed import Processes, join_processes, launched_rank
from hadas.measurement.accuracy.recipes import SMOKE_SUPERNET, warmup_cosine
from hadas.measurement.accuracy.sandwich import Sandwich, step_workers
from hadas.measurement.accuracy.supernet import Supernet
from hadas.spaces import mini_space
from hadas.study.config import template

RECIPE = replace(
    SMOKE_SUPERNET, steps=3, batch_size=7, sampled=1, max_shift=1, mirror=True, distillation="alpha",
    dropout=0.2, drop_connect=0.2,
)  # fmt: skip
BEST = replace(RECIPE, sampling="best", candidates=2, precision="bfloat16", steps=1)
PROGRAM = Path(__file__).with_name("train_along.py")


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of what two processes that trained together ended with."""
    directory = tmp_path_factory.mktemp("together")
    (directory / "recipes.json").write_text(json.dumps([asdict(RECIPE), asdict(BEST)]))
    study = template("study.yaml", "smoke").replace("supernet: {}", "supernet: {steps: 1}")
    (directory / "study.yaml").write_text(study)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, str(PROGRAM), str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as launched:
        try:
            said, complained = launched.communicate(timeout=120)
        finally:
            launched.terminate()  # the launcher ends what it started; to kill it would not
    assert launched.returncode == 0, complained
    left = sorted(path.suffix for path in (directory / "weights").iterdir())
    assert left == [".pt", ".pt", ".pt"]
    (directory / "said.txt").write_text(said)
    return directory


@pytest.fixture(scope="module")
def ended(together: Path) -> list[list[dict[str, Any]]]:
    """By process, by recipe."""
    return [json.loads((together / f"rank{rank}.json").read_text()) for rank in range(2)]


def test_the_command_speaks_for_both_processes_once(together: Path) -> None:
    said = (together / "said.txt").read_text()
    assert said.count("Supernet:") == 1
    assert re.search(r"weights/supernet-\w+\.pt \(weights \w+; last loss .*; its training took", said)


def test_both_processes_end_with_the_weights_that_the_first_wrote(ended: list[list[dict[str, Any]]]) -> None:
    assert ended[0] == ended[1]
    assert len(ended[0]) == 2
    for result in ended[0]:
        assert result["weights_id"] == result["stored_id"]


def test_processes_that_see_different_files_do_not_go_on(together: Path) -> None:
    """Only the first wrote, into a folder of its own: it would go on from step 1, the other begin anew."""
    for rank in range(2):
        complaint = (together / f"apart{rank}.txt").read_text()
        assert "different steps ([1, 0]); give them one folder that all of them see" in complaint


def test_two_processes_do_the_step_of_the_mean_gradient(ended: list[list[dict[str, Any]]]) -> None:
    """Reference: one process computes both parts' gradients, adds them up and steps by itself."""
    data, net = load_images("digits", limit=10), Supernet(mini_space(), 10, seed=RECIPE.seed)
    weights = list(net.shared.values())
    groups = [
        {"params": [w for w in weights if w.dim() > 1], "weight_decay": RECIPE.weight_decay},
        {"params": [w for w in weights if w.dim() == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, lr=1.0, momentum=RECIPE.momentum, nesterov=True)
    losses = []
    with step_workers(net.device, 1) as workers:
        halves = [Sandwich(net, data.train, RECIPE, workers, Processes(rank, 2, "cpu")) for rank in range(2)]
        for step in range(RECIPE.steps):
            (loss, mine), (other_loss, others) = (half.gradients(step) for half in halves)
            losses.append(float(loss + other_loss))
            for weight, a, b in zip(weights, mine, others, strict=True):
                weight.grad = None if a is None or b is None else a + b
            for group in optimizer.param_groups:
                factor = warmup_cosine(step, RECIPE.steps, RECIPE.warmup_fraction)
                group["lr"] = RECIPE.learning_rate * factor
            torch.nn.utils.clip_grad_norm_(weights, RECIPE.clip_norm)
            optimizer.step()
    result = ended[0][0]
    np.testing.assert_allclose(result["losses"], losses, rtol=1e-6)
    stored = read_checkpoint(result["path"]).tensors
    for name, weight in net.tensors().items():
        torch.testing.assert_close(stored[name], weight, rtol=1e-6, atol=1e-6, msg=name)


def test_parts_of_a_step_are_disjoint_and_cover_it() -> None:
    for n, size in ((15, 2), (16, 3), (4, 4)):
        rows = [list(range(n))[Processes(rank, size, "cpu").part(n)] for rank in range(size)]
        assert [row for part in rows for row in part] == list(range(n))
        assert max(map(len, rows)) - min(map(len, rows)) <= 1
    with pytest.raises(ConfigError, match=r"3 images per step are too few for 4 processes: raise batch_size"):
        Processes(0, 4, "cpu").part(3)


def test_without_torchrun_nothing_is_initialised() -> None:
    assert join_processes("cpu", {}) == Processes(0, 1, "cpu")
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize("rank", [None, "-1", "one"])
def test_a_broken_environment_is_named(rank: str | None) -> None:
    environment = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", **({} if rank is None else {"RANK": rank})}
    with pytest.raises(ConfigError, match=rf"^RANK = {rank!r} .*use: torchrun --nproc-per-node"):
        launched_rank(environment)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said_to_be_missing() -> None:
    with pytest.raises(ConfigError, match=r"device 'cuda': torch finds no CUDA GPU here; use 'cpu'"):
        join_processes("cuda", {})
