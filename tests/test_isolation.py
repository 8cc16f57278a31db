"""What a bare GPU machine needs: torch, numpy, pyarrow and pillow, and nothing else of ours."""

import subprocess
import sys
import textwrap

PROGRAM = """
import sys

OURS = {
    "torchvision", "sklearn", "scipy", "pandas", "xgboost", "botorch", "gpytorch", "pymoo", "moocore", "joblib",
    "threadpoolctl", "sqlalchemy", "pydantic", "yaml", "typer", "rich", "plotly", "matplotlib", "safetensors",
}

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in OURS:
            raise ModuleNotFoundError(f"{name} is not on a bare machine")

sys.meta_path.insert(0, Block())
import importlib, pkgutil
import numpy as np
import hadas.datasets.images, hadas.datasets.records, hadas.spaces, hadas.measurement.accuracy

for package in (hadas.spaces, hadas.measurement.accuracy):
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
from hadas.measurement.accuracy.network import build_network
space = hadas.spaces.mini_space()
network = build_network(space.macro, space.smallest, 10)
print(sum(p.numel() for p in network.parameters()))
"""


def test_spaces_and_accuracy_run_on_a_bare_machine():
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10_000


def test_help_loads_no_heavy_library():
    """`hadas --help` answers at once because it imports neither torch nor numpy."""
    program = (
        "import sys, hadas.cli; print(sorted({'torch', 'numpy', 'pandas', 'sqlalchemy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
