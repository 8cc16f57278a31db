"""Take the cheapest measured network that is accurate enough, and say how to run it.

python examples/choose_network.py runs/demo/study.yaml --accuracy 0.88
"""

import argparse
import sys
from pathlib import Path

from hadas.errors import HadasError
from hadas.search.designs import PolicyCost, evaluate_measured
from hadas.study import Study


def cost_of(mean: PolicyCost) -> float:
    """Energy where the device measures it, else latency; one or the other for all points of a study."""
    return mean.latency_ms if mean.energy_mj is None else mean.energy_mj


def main() -> None:
    """Print one network of the measured front with its exits, clocks and thresholds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument(
        "--accuracy", type=float, required=True, help="least accuracy, 0..1, on the calibration split"
    )
    arguments = parser.parse_args()

    study = Study.open(arguments.study)
    front = study.findings.front(study.findings.loop_points())
    able = [point for point in front if point.outcome.controller.accuracy >= arguments.accuracy]
    if not able:
        best = max(point.outcome.controller.accuracy for point in front)
        parser.error(f"no measured network reaches {arguments.accuracy}; the best reaches {best:.3f}")
    chosen = min(able, key=lambda point: cost_of(point.outcome.controller))

    # The split that no decision has seen tells what to expect in use.
    controller = study.parts.controller
    expected = evaluate_measured(
        chosen.design, chosen.accuracy, chosen.cost, split="test", controller=controller
    ).controller
    print(f"backbone    {chosen.design.backbone.describe()}")
    print(f"clocks      {chosen.design.setting}")
    for position, threshold, share in zip(
        chosen.design.exits.positions, chosen.outcome.thresholds, expected.shares, strict=False
    ):
        print(
            f"exit        after block {position}: leave if {controller.name} >= {threshold:.3f} ({share:.0%} do)"
        )
    cost = f"{expected.latency_ms:.2f} ms"
    if expected.energy_mj is not None:
        cost += f", {expected.energy_mj:.2f} mJ"
    print(f"expected    {expected.accuracy:.1%} ± {expected.accuracy_se:.1%} at {cost} on the test split")


if __name__ == "__main__":
    try:
        main()
    except HadasError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
