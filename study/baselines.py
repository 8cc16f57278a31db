"""The baselines: what others would have measured instead, at the same cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .journal import design_to_json

if TYPE_CHECKING:
    from .assembly import ProgressCallback
    from .budget import Budget
    from .loop import Study

BASELINES = ("presets optimized", "backbone only", "random")
"""Their names, in the order that they are measured in."""


def measure_baselines(study: Study, progress: ProgressCallback, budget: Budget | None = None) -> None:
    """Measure what the baselines propose, as many points each as the loop suggested.

    Raises:
        BudgetSpent: not all of it fits into the budget.
    """
    from ..search import baselines

    findings, space, table = study.findings, study.parts.space, study.parts.table
    n = sum(point.strategy == "hadas" for point in findings.loop_points())
    if n == 0 or all(findings.event(f"measured:{name}") for name in BASELINES):
        return
    for i, name in enumerate(BASELINES):
        if findings.event(f"plan:{name}") is None:
            seed = study.seed_for(8, i)
            if name == "random":
                designs = baselines.random_designs(space, table, n, seed)
            else:
                chosen = name == "presets optimized"
                propose = baselines.presets_optimized if chosen else baselines.backbone_only
                designs = propose(space, study.worlds(progress).mean, study.parts.search_settings, n, seed)
            documents = [design_to_json(d.backbone, d.exits, d.setting) for d in designs]
            study.journal(f"plan:{name}", {"designs": documents, "predictions": []})
        if findings.event(f"measured:{name}") is None:
            study.measure_designs(name, name, progress, budget)
            study.journal(f"measured:{name}", {"n": n})
