"""A search killed at ten random moments resumes to the archive of a run that nobody disturbed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hadas.search.baselines import random_designs
from hadas.surrogates.predictor_set import PredictorSet

from .conftest import SyntheticWorld

N_KILLS, GENERATIONS, EVENTS_A_GENERATION = 10, 5, 4
PRESETS = ("m0", "m2", "m4", "m6")

SCRIPT = """
import json, os, signal, sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from conftest import SyntheticWorld
from hadas.search.outcomes import OutcomeLibrary
from hadas.search.outer import nested_search, search_settings
from hadas.search.world import MeanView, PredictedWorld
from hadas.surrogates.predictor_set import PredictorSet

directory, generations = Path(sys.argv[2]), int(sys.argv[3])
settings = search_settings("smoke", {"population": 10, "survivors": 4, "generations": generations})

def search(name, checkpoint):
    # Predictors and outcomes are read anew, as in a process that was started anew.
    truth = SyntheticWorld(n_samples=150)
    space, table = truth.space, truth.clock_table
    library = OutcomeLibrary([truth.accuracy_record(space.presets[preset]) for preset in json.loads(sys.argv[4])])
    view = MeanView(space, PredictorSet.load(directory / "predictors", space, table))
    world = PredictedWorld(space, table, view, library, n_classes=10)
    found = nested_search(space, world, settings, 3, checkpoint=checkpoint)
    (directory / name).write_text(repr(found))

def count_down(owner, name, left):
    original = getattr(owner, name)
    def counted(*arguments, **keywords):
        found = original(*arguments, **keywords)
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return found
    setattr(owner, name, counted)

def killed(name, checkpoint, moment):
    left = [moment]
    # Static evaluations, tables, a checkpoint written but not in its place, and one in its place.
    for owner, method in ((PredictedWorld, "static"), (PredictedWorld, "tables"), (os, "fsync"), (os, "replace")):
        count_down(owner, method, left)
    search(name, checkpoint)

def in_child(function, *arguments):
    child = os.fork()
    if child == 0:
        try:
            function(*arguments)
        finally:
            sys.stderr.flush()
            os._exit(sys.exc_info()[0] is not None)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

states = [in_child(search, "whole", None)]
for i, moment in enumerate(json.loads(sys.argv[5])):
    checkpoint = directory / f"{i}.json"
    states += [in_child(killed, f"never-{i}", checkpoint, moment), checkpoint.exists()]
    states += [in_child(search, f"resumed-{i}", checkpoint)]
print(json.dumps(states))
"""


@pytest.fixture
def directory(tmp_path):
    """Where the real predictors lie, fitted to a few rows of a synthetic world."""
    synthetic_world = SyntheticWorld(n_samples=150)
    space, table = synthetic_world.space, synthetic_world.clock_table
    records = [synthetic_world.accuracy_record(space.presets[name]) for name in PRESETS]
    designs = random_designs(space, table, 8, 0)
    costs = [synthetic_world.cost_record(design, i) for i, design in enumerate(designs)]
    PredictorSet.fit(space, table, records, costs, n_classes=10, seed=0, candidates=("gp",)).save(
        tmp_path / "predictors"
    )
    return tmp_path


def test_killed_at_ten_random_moments_it_resumes_to_the_same_archive(directory):
    moments = np.random.default_rng(10).integers(1, EVENTS_A_GENERATION * GENERATIONS + 1, N_KILLS)
    arguments = [
        Path(__file__).parent,
        directory,
        GENERATIONS,
        json.dumps(PRESETS),
        json.dumps(moments.tolist()),
    ]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, arguments)], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    whole_ended, *states = json.loads(done.stdout)
    assert whole_ended == 0, done.stderr
    kills, had_checkpoint, resumed = states[0::3], states[1::3], states[2::3]
    assert kills == [-9] * N_KILLS, done.stderr
    # Most had something to go on from, some not even a first generation.
    assert 5 <= sum(had_checkpoint) < N_KILLS
    assert resumed == [0] * N_KILLS, done.stderr
    whole = (directory / "whole").read_text()
    for i in range(N_KILLS):
        assert (directory / f"resumed-{i}").read_text() == whole
    assert not list(directory.glob("never-*"))
    assert not list(directory.glob("*.tmp"))
