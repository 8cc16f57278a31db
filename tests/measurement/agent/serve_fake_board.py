"""Run the real agent on a fake board, as another process would on a Jetson.

    serve_fake_board.py TREE [--flavour 4.9|5.x] [--fault NAME ...] [--kill-at-write N] -- serve --allow-dvfs ...

What follows ``--`` is the agent's own command line; ``workload`` works as well.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from fake_board import FAULTS, FLAVOURS, FakeBoard

from hadas.measurement.hardware.agent.main import main


def run(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="serve_fake_board.py", description=__doc__)
    parser.add_argument("tree")
    parser.add_argument("--flavour", choices=FLAVOURS, default="4.9")
    parser.add_argument("--fault", choices=FAULTS, action="append", default=[])
    parser.add_argument("--kill-at-write", type=int, default=0)
    own, agent = (
        (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, ["serve"])
    )
    arguments = parser.parse_args(own)
    board = FakeBoard(arguments.tree, arguments.flavour, tuple(arguments.fault), arguments.kill_at_write)
    return main(agent, board)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
