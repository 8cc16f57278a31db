"""The section on runtime policies: what deciding otherwise when an image leaves gives the same networks."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ...datasets.records import Statistic
from ...measurement.accuracy.policies import FinalOnly
from .charts import Axis, Chart, LegendEntry, Panel, Series, Symbol, cost_axis
from .content import PolicyNetwork, PolicyRow, ReportContent
from .markup import escaped, figure, section, table
from .wording import percent, quantity_label, with_error

Z_95 = 1.96
"""Half the width of a central 95 % interval, in standard errors of a normal value."""

_STYLES: dict[str, tuple[str, Symbol, bool, float]] = {
    "oracle": ("#8b949e", "star", False, 14),
    FinalOnly.name: ("#5d6878", "square", False, 14),
    "best single exit": ("#8b949e", "diamond", False, 13),
    "max-softmax": ("#2b7de9", "circle", True, 12),
    "margin": ("#e8871e", "diamond", True, 10),
    "entropy": ("#2f9e6e", "triangle", True, 8),
    "MSDNet shares": ("#8e6bd8", "square", True, 8),
    "patience 2": ("#c2557a", "triangle", True, 10),
    "patience 3": ("#84923a", "star", True, 10),
    "risk-controlled": ("#12908e", "cross", True, 8),
}
"""Colour, symbol, filling and size of each policy; later ones are drawn on top, smaller where values often agree."""

_OTHER: tuple[str, Symbol, bool, float] = ("#a0703c", "circle", False, 9)


def counted_cost(network: PolicyNetwork) -> str:
    """The cost that decides: energy where it was counted, else latency."""
    return "energy_mj" if all("energy_mj" in row.costs for row in network.rows) else "latency_ms"


# -- what is learned ---------------------------------------------------------------------------


def able_rows(network: PolicyNetwork) -> list[PolicyRow]:
    """Causal policies that cost less than running to the end and lose at most one standard error.

    Returns:
        Cheapest first; the standard error is that of the final classifier's accuracy.
    """
    cost, final = counted_cost(network), _final(network)
    least = final.accuracy.value - final.accuracy.standard_error
    able = [
        row
        for row in network.rows
        if row.causal
        and row is not final
        and row.accuracy.value >= least
        and row.costs[cost].value < final.costs[cost].value
    ]
    return sorted(able, key=lambda row: row.costs[cost].value)


def policy_finding(networks: Mapping[str, PolicyNetwork]) -> str:
    """The cheapest policy that keeps the accuracy of each network, in one sentence.

    Costs within a 95 % interval of each other are called not told apart.  Their errors are taken
    as independent; samples and stages that policies share make the interval too wide rather than
    too narrow.
    """
    verdicts = [
        f"on the {place} network ({network.backbone}) {_verdict(network)}"
        for place, network in networks.items()
    ]
    marks = {network.mark for network in networks.values() if network.mark}
    mark = f" by {' and '.join(sorted(marks))} costs" if marks else ""
    return (
        f"Cheapest causal policy{mark} whose accuracy is at most one standard error below that of the same network "
        f"run to the end: {'; '.join(verdicts)}."
    )


def _verdict(network: PolicyNetwork) -> str:
    able = able_rows(network)
    if not able:
        return "none that costs less than running to the end"
    name = counted_cost(network)
    best, final = able[0].costs[name], _final(network).costs[name]
    saving = f"{_saving(best, final)} less {quantity_label(name)[0]}"
    if not _apart(best, final):
        return f"{able[0].policy}, {saving}, which lies inside its 95 % interval"
    alike = [row.policy for row in able[1:] if not _apart(row.costs[name], best)]
    told = f", not told apart from {_listed(alike)}" if alike else ""
    return f"{able[0].policy}, {saving}{told}"


def _final(network: PolicyNetwork) -> PolicyRow:
    return next(row for row in network.rows if row.policy == FinalOnly.name)


def _saving(cost: Statistic, of: Statistic) -> str:
    ratio = cost.value / of.value
    error = ratio * math.hypot(cost.standard_error / cost.value, of.standard_error / of.value)
    return percent(1 - ratio, error)


def _apart(one: Statistic, other: Statistic) -> bool:
    return abs(one.value - other.value) > Z_95 * math.hypot(one.standard_error, other.standard_error)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


# -- the chart ---------------------------------------------------------------------------------


def policy_chart(networks: Mapping[str, PolicyNetwork]) -> Chart:
    """Accuracy against expected cost, one panel per network, one mark per policy."""
    names = list(dict.fromkeys(row.policy for network in networks.values() for row in network.rows))
    return Chart(
        "policies",
        "Runtime policies on chosen networks",
        "Up and to the left is better: the same exits at the same clocks, and another rule for when an image leaves. "
        "Bars are one standard error; the dashed line lies one standard error below the network run to the end. Being "
        "above it does not show that no accuracy is lost, and the cheapest is picked by these very test images.",
        tuple(_panel(place, network) for place, network in networks.items()),
        tuple(LegendEntry(_shown(name), *_style(name)[:3]) for name in names),
        height_px=380,
    )


def _panel(place: str, network: PolicyNetwork) -> Panel:
    cost, final = counted_cost(network), _final(network)
    label, unit, _ = quantity_label(cost)
    costs = tuple(row.costs[cost].value for row in network.rows)
    level = 100 * (final.accuracy.value - final.accuracy.standard_error)
    bar = Series(
        FinalOnly.name, _style(FinalOnly.name)[0], (min(costs), max(costs)), (level, level), "line", dashed=True
    )  # fmt: skip
    return Panel(
        f"{place}: {network.backbone}",
        cost_axis(f"expected {label} per image [{unit}]", costs),
        Axis("accuracy on the test split [%]"),
        (bar, *(_mark(row, cost) for row in network.rows)),
    )


def _mark(row: PolicyRow, cost: str) -> Series:
    colour, symbol, filled, size = _style(row.policy)
    value, error = row.costs[cost].value, row.costs[cost].standard_error
    accuracy = row.accuracy
    hover = "\n".join(
        (
            _shown(row.policy),
            f"accuracy {percent(accuracy.value, accuracy.standard_error)}",
            *(
                f"{quantity_label(name)[0]} {with_error(spent.value, spent.standard_error)} {quantity_label(name)[1]}"
                for name, spent in row.costs.items()
            ),
            f"{percent(sum(row.shares[:-1]), decimals=0)} leave early",
        )
    )
    return Series(
        _shown(row.policy), colour, (value,), (100 * accuracy.value,), symbol=symbol, filled=filled, size=size,
        x_error=((error, error),), y_error=((100 * accuracy.standard_error,) * 2,), hover=(hover,),
    )  # fmt: skip


def _style(policy: str) -> tuple[str, Symbol, bool, float]:
    return _STYLES.get(policy, _OTHER)


def _shown(policy: str) -> str:
    return "oracle (upper bound)" if policy == "oracle" else policy


# -- the section -------------------------------------------------------------------------------


def policies_section(content: ReportContent, charts: Mapping[str, Chart]) -> str:
    """What is learned, the chart, and a table of its values."""
    if "policies" not in charts:
        return ""
    notes = "".join(f"<li>{escaped(note)}</li>" for note in content.policy_notes)
    body = (
        f"<p>{escaped(policy_finding(content.policies))}</p>{figure(charts['policies'])}{_table(content)}"
        f"<details><summary>What the policies do</summary><ul>{notes}</ul></details>"
    )
    return section(content, charts["policies"].title, body, key="policies")


def _table(content: ReportContent) -> str:
    columns, groups = [("policy", False)], [("", 1)]
    able = {}
    for place, network in content.policies.items():
        label, unit, _ = quantity_label(counted_cost(network))
        columns += [("accuracy", True), (f"{label}, {unit}", True)]
        groups.append((f"{place}: {network.backbone}", 2))
        able[place] = {row.policy for row in able_rows(network)[:1]}
    rows = []
    for name in dict.fromkeys(row.policy for network in content.policies.values() for row in network.rows):
        own = " (the search’s)" if name == content.controller else ""
        cells = [f"{escaped(_shown(name))}{own}"]
        for place, network in content.policies.items():
            row = next((row for row in network.rows if row.policy == name), None)
            style = "plain" if row is None or row.causal else "bound"
            style = "own" if name in able[place] else style
            cells += [f'<span class="{style}">{cell}</span>' for cell in _cells(row, counted_cost(network))]
        rows.append(cells)
    return table(columns, rows, groups=groups)


def _cells(row: PolicyRow | None, cost: str) -> list[str]:
    if row is None:
        return ["–"] * 2
    spent = row.costs[cost]
    return [
        percent(row.accuracy.value, row.accuracy.standard_error),
        with_error(spent.value, spent.standard_error),
    ]
