from __future__ import annotations

import sys
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from interval_coverage import FORMS, CorrelatedRig, cell


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.95])
def test_blocks_scatter_and_go_together_as_asked_for(rho: float) -> None:
    rig = CorrelatedRig(FORMS["full"], rho, 0.03, np.random.default_rng(0))
    blocks = list(islice(rig, 20_000))
    values = np.log([block.run_s[0] / 0.1 for block in blocks])
    assert np.std(values) == pytest.approx(0.03, rel=0.1)
    assert np.median(values) == pytest.approx(0.0, abs=0.005)
    assert np.corrcoef(values[1:], values[:-1])[0, 1] == pytest.approx(rho, abs=0.02)
    assert all(a.end_s == b.start_s for a, b in pairwise(blocks))


@pytest.mark.parametrize("form", FORMS)
def test_intervals_hold_although_loops_stop_themselves_and_blocks_are_alike(form: str) -> None:
    found = cell(form, 0.5, 0.02, 60)
    assert found["coverage"] >= 0.9
    assert found["bootstrap"] < 0.9
