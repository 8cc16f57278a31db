"""Rows of our own log checked field by field, before anything is made of them.

Almost every row of a log is fine, so the common case is decided by one function without an object per
statistic (:meth:`RowReader._is_plainly_fine`).  Whatever it does not vouch for goes the long way, which
names the field at fault and ends in :meth:`CostRecord.check`; a test holds the two against each other.  Either
way a valid row's figures must then agree with each other (:mod:`.plausibility`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from ...errors import RecordError, SpaceError
from ...spaces import space_by_name
from ...spaces.dvfs import unit_hint
from .. import rows
from ..evidence import Evidence
from ..records import Target, Truth
from .plausibility import row_slip

SCHEMA = "hadas-meas/1"
UNFINISHED = "unfinished"
"""Field of a line that keeps what a killed writer left of a row."""
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # half of a character, or one of a pair that makes a whole one
_HIGHEST_HZ = 10_000_000_000
_LARGEST_INTEGER = 2**31 - 1  # of an integer column in any database
_TRUTHS = frozenset(str(truth) for truth in Truth)
_STAGE_KINDS = frozenset(("segment", "head", "prefix"))
_PROGRAMS = frozenset(("stages", "prefix"))
_BACKBONE = frozenset(("space", "resolution", "width", "depth", "kernel", "expand"))
_STATISTIC = frozenset(("value", "standard_error", "n"))
_STAGE = frozenset(("kind", "position", "latency_ms", "energy_mj"))
_ROW = (
    "session", "row_no", "backbone", "n_classes", "heads", "requested", "actual", "truth", "stages", "latency_ms",
    "energy_mj", "device_seconds", "program", "valid", "reason", "evidence",
)  # fmt: skip
_FIELDS = frozenset(("schema", "arch_id", "target", *_ROW))
_IN_HEAD = ('"schema": ', '"arch_id": ', '"target": ')
_TARGET = ("board", "processor", "release", "runtime", "dtype", "batch", "pinned")


@dataclass(frozen=True, slots=True)
class CheckedRow:
    """One row that may be stored.

    Attributes:
        columns: of ``schema.costs``, but for ``row``.
        row: the fields of a record, in their order.
        target: fields of the row's target.
        text: the line.
    """

    columns: dict[str, Any]
    row: dict[str, Any]
    target: dict[str, Any]
    text: str

    def row_as(self, session: str) -> rows.WrittenJson:
        """The column ``row`` under a session.

        A line as hadas writes it has the row's own fields at its end, in their order: they are taken as they
        are written, which spares writing every number again.
        """
        own = f', "session": {json.dumps(self.row["session"])}, "row_no": '
        head, found, rest = self.text.partition(own)
        if found and _is_head(self.text, head):
            return rows.WrittenJson(f'{{"session": {json.dumps(session)}, "row_no": {rest}')
        return rows.WrittenJson(json.dumps({**self.row, "session": session}))


@dataclass(frozen=True, slots=True)
class _Network:
    arch_id: str
    first_exit: int
    n_blocks: int


class RowReader:
    """Reads the lines of one log; what rows have in common is checked once.

    Args:
        source: name of the log, for messages.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._where = source
        # Keyed by how a value is written: 20 and 20.0 are equal, but only one of them is a resolution.
        self._networks: dict[str, _Network | str] = {}
        self._targets: dict[str, str] = {}
        self._clocks: set[str] = set()

    def read(self, line: int, text: str) -> CheckedRow:
        """One line.

        Args:
            line: its number, for messages.

        Raises:
            RecordError: not a row of this format, or one with a value that cannot be.
        """
        self._where = f"{self._source}, line {line}"
        document = self._document(text)
        if set(document) == {"schema", UNFINISHED}:
            self._refuse(
                UNFINISHED,
                "",
                text[:60],
                "a killed writer left this much of a row; it was measured again, if at all",
            )
        if not self._is_plainly_fine(document):
            self._check_fields(document)
            fields = {name: document.get(name) for name in _ROW}
            rows.cost_from_json(fields, document["target"]).check(self._where)
        network = self._networks[repr(document["backbone"])]
        assert isinstance(network, _Network)
        slip = row_slip(document, network.n_blocks) if document["valid"] else None
        if slip is not None:
            self._refuse(slip.field, slip.unit, slip.value, slip.reason)
        latency, energy = document["latency_ms"], document["energy_mj"]
        columns = {
            "session": document["session"],
            "row_no": document["row_no"],
            "arch_id": network.arch_id,
            "target_id": self._targets[repr(document["target"])],
            "truth": document["truth"],
            "valid": document["valid"],
            "reason": document["reason"],
            "device_seconds": document["device_seconds"],
            "latency_ms": latency and latency["value"],
            "energy_mj": energy and energy["value"],
        }
        row = {name: document.get(name) for name in _ROW}
        return CheckedRow(columns, row, document["target"], text.strip())

    def _document(self, text: str) -> dict[str, Any]:
        try:
            document = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            reason = "not a whole JSON object (cut when its writer was killed?)"
            self._refuse("line", "", text[:60], f"{reason}: {error}")
        except ValueError as error:  # an integer of thousands of digits
            self._refuse("line", "", text[:60], str(error))
        if not isinstance(document, dict):
            self._refuse("line", "", text[:60], "a row is a JSON object")
        if _SURROGATE.search(text):
            try:
                json.dumps(document, ensure_ascii=False).encode()
            except UnicodeEncodeError:
                self._refuse("line", "", text[:60], "holds half of a character, which no database keeps")
        if document.get("schema") != SCHEMA:
            self._refuse("schema", "", document.get("schema"), f"this hadas reads '{SCHEMA}'")
        return document

    # -- the common case -----------------------------------------------------------------------

    def _is_plainly_fine(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is certainly one that the long way would accept; not every such row is vouched for."""
        try:
            network = self._networks.get(repr(row["backbone"]))
            if (
                row.keys() != _FIELDS
                or type(network) is not _Network
                or network.arch_id != row["arch_id"]
                or repr(row["target"]) not in self._targets
                or row["valid"] is not True
                or type(row["session"]) is not str
                or not row["session"]
                or type(row["row_no"]) is not int
                or not 0 <= row["row_no"] <= _LARGEST_INTEGER
                or type(row["n_classes"]) is not int
                or not 2 <= row["n_classes"] <= _LARGEST_INTEGER
                or row["truth"] not in _TRUTHS
                or row["program"] not in _PROGRAMS
                or type(row["reason"]) is not str
                or type(row["heads"]) is not list
                or type(row["stages"]) is not list
                or not 0 <= row["device_seconds"] < math.inf
                or type(row["device_seconds"]) is not float
                or repr(row["requested"]) not in self._clocks
                or repr(row["actual"]) not in self._clocks
                or not _fine(row["latency_ms"])
                or not (row["energy_mj"] is None or _fine(row["energy_mj"]))
            ):
                return False
            before = network.first_exit - 1
            for position, head in row["heads"]:
                if type(position) is not int or type(head) is not int or position <= before or head < 1:
                    return False
                before = position
            if before >= network.n_blocks:
                return False
            for stage in row["stages"]:
                if (
                    stage.keys() != _STAGE
                    or stage["kind"] not in _STAGE_KINDS
                    or type(stage["position"]) is not int
                    or not network.first_exit <= stage["position"] <= network.n_blocks
                    or not _fine(stage["latency_ms"])
                    or not (stage["energy_mj"] is None or _fine(stage["energy_mj"]))
                ):
                    return False
            if row["evidence"] is not None and not _is_evidence(row["evidence"]):
                return False
        except (KeyError, TypeError, ValueError, AttributeError):
            return False
        return True

    # -- the long way --------------------------------------------------------------------------

    def _check_fields(self, row: Mapping[str, Any]) -> None:
        """Types and ranges of everything, in the order of the record."""
        for name in row.keys() - _FIELDS:
            self._refuse(name, "", row[name], f"no field of '{SCHEMA}'")
        for name in _FIELDS - row.keys() - {"evidence", "arch_id"}:
            self._refuse(name, "", None, "is missing")
        if type(row["session"]) is not str or not row["session"]:
            self._refuse("session", "", row["session"], "must be text, not empty")
        self._check_integer("row_no", row["row_no"], 0)
        self._check_integer("n_classes", row["n_classes"], 2)
        network = self._check_network(row)
        self._check_target(row["target"])
        self._check_choice("truth", row["truth"], _TRUTHS)
        self._check_choice("program", row["program"], _PROGRAMS)
        if type(row["valid"]) is not bool:
            self._refuse("valid", "", row["valid"], "must be true or false")
        if type(row["reason"]) is not str:
            self._refuse("reason", "", row["reason"], "must be text")
        if not _is_number(row["device_seconds"]) or not 0 <= row["device_seconds"] < math.inf:
            self._refuse(
                "device_seconds", "s", row["device_seconds"], "must be a finite number, not negative"
            )
        for name in ("requested", "actual"):
            self._check_clocks(name, row[name])
        self._check_heads(row["heads"], network)
        self._check_stages(row["stages"], network)
        for name, unit in (("latency_ms", "ms"), ("energy_mj", "mJ")):
            self._check_statistic(name, unit, row[name])
        self._check_evidence(row.get("evidence"))

    def _check_evidence(self, evidence: Any) -> None:
        try:
            formed = evidence is None or _is_evidence(evidence)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self._refuse("evidence", "", evidence, f"cannot be read ({error!r})")
        if not formed:
            self._refuse(
                "evidence", "", evidence, "cannot be read (a list, a truth value or a text is something else)"
            )

    def _check_network(self, row: Mapping[str, Any]) -> _Network:
        backbone = row["backbone"]
        if not isinstance(backbone, dict) or backbone.keys() != _BACKBONE:
            self._refuse("backbone", "", backbone, f"must have the fields {sorted(_BACKBONE)}")
        whole = all(
            isinstance(backbone[name], list) and all(type(v) is int for v in backbone[name])
            for name in ("width", "depth", "kernel", "expand")
        )
        if not whole or type(backbone["resolution"]) is not int or type(backbone["space"]) is not str:
            self._refuse("backbone", "", backbone, "its values are integers, its space is a name")
        key = repr(backbone)
        if key not in self._networks:
            self._networks[key] = _network(backbone)
        network = self._networks[key]
        if isinstance(network, str):
            self._refuse("backbone", "", backbone, network)
        if row.get("arch_id", network.arch_id) != network.arch_id:
            self._refuse("arch_id", "", row["arch_id"], f"the backbone of this row is {network.arch_id}")
        return network

    def _check_target(self, target: Any) -> None:
        if not isinstance(target, dict) or set(target) != set(_TARGET):
            self._refuse("target", "", target, f"must have the fields {list(_TARGET)}")
        for name in ("board", "processor", "release", "runtime", "dtype"):
            if type(target[name]) is not str or not target[name]:
                self._refuse(f"target.{name}", "", target[name], "must be text, not empty")
        self._check_integer("target.batch", target["batch"], 1)
        pinned = target["pinned"]
        pairs = isinstance(pinned, list) and all(
            isinstance(pair, list) and len(pair) == 2 and all(type(text) is str for text in pair)
            for pair in pinned
        )
        if not pairs:
            self._refuse("target.pinned", "", pinned, "must list pairs of texts")
        if len({name for name, _ in pinned}) < len(pinned):
            self._refuse("target.pinned", "", pinned, "a name stands there twice")
        fields = {**target, "pinned": tuple((name, value) for name, value in pinned)}
        self._targets[repr(target)] = Target(**fields).target_id

    def _check_clocks(self, name: str, setting: Any) -> None:
        listed = setting.get("clocks_hz") if isinstance(setting, dict) and len(setting) == 1 else None
        if not isinstance(listed, list):
            self._refuse(
                name, "Hz", setting, "must be an object with 'clocks_hz', a list of (name, Hz) pairs"
            )
        for clock in listed:
            if not (
                isinstance(clock, list)
                and len(clock) == 2
                and type(clock[0]) is str
                and type(clock[1]) is int
            ):
                self._refuse(f"{name}.clocks_hz", "Hz", clock, "must be a pair: name, whole number of Hz")
            check_clock_hz(clock[1], source=self._where, field=f"{name}.{clock[0]}")
        if len({clock for clock, _ in listed}) < len(listed):
            self._refuse(f"{name}.clocks_hz", "Hz", listed, "a clock stands there twice")
        self._clocks.add(repr(setting))

    def _check_heads(self, heads: Any, network: _Network) -> None:
        pairs = isinstance(heads, list) and all(
            isinstance(head, list) and len(head) == 2 and all(type(v) is int for v in head) for head in heads
        )
        if not pairs:
            self._refuse("heads", "", heads, "must list (position, type) pairs of integers")
        positions = [position for position, _ in heads]
        if positions != sorted(set(positions)) or any(head < 1 for _, head in heads):
            self._refuse("heads", "", heads, "positions ascend, types start at 1")
        if positions and not network.first_exit <= positions[0] <= positions[-1] < network.n_blocks:
            last = network.n_blocks - 1
            self._refuse(
                "heads", "", heads, f"exits of {network.arch_id} stand after {network.first_exit}..{last}"
            )

    def _check_stages(self, stages: Any, network: _Network) -> None:
        if not isinstance(stages, list):
            self._refuse("stages", "", stages, "must be a list")
        for i, stage in enumerate(stages):
            if not isinstance(stage, dict) or stage.keys() != _STAGE:
                self._refuse(f"stages[{i}]", "", stage, f"must have the fields {sorted(_STAGE)}")
            self._check_choice(f"stages[{i}].kind", stage["kind"], _STAGE_KINDS)
            position = stage["position"]
            if type(position) is not int or not network.first_exit <= position <= network.n_blocks:
                self._refuse(f"stages[{i}].position", "", position, f"no position on {network.arch_id}")
            if stage["latency_ms"] is None:
                self._refuse(f"stages[{i}].latency_ms", "ms", None, "a stage needs a latency")
            for name, unit in (("latency_ms", "ms"), ("energy_mj", "mJ")):
                self._check_statistic(f"stages[{i}].{name}", unit, stage[name])

    def _check_statistic(self, name: str, unit: str, statistic: Any) -> None:
        """Its form; whether its values can be is for :meth:`CostRecord.check`."""
        if statistic is None:
            return
        formed = isinstance(statistic, dict) and statistic.keys() == _STATISTIC
        if not formed or not all(map(_is_number, statistic.values())) or type(statistic["n"]) is not int:
            self._refuse(name, unit, statistic, "must have 'value', 'standard_error' and 'n', all numbers")

    def _check_integer(self, name: str, value: Any, least: int) -> None:
        if type(value) is not int or not least <= value <= _LARGEST_INTEGER:
            self._refuse(name, "", value, f"must be an integer, at least {least}")

    def _check_choice(self, name: str, value: Any, choices: frozenset[str]) -> None:
        if type(value) is not str or value not in choices:
            self._refuse(name, "", value, f"must be one of {sorted(choices)}")

    def _refuse(self, field: str, unit: str, value: Any, reason: str) -> NoReturn:
        raise RecordError(reason, source=self._where, row=None, field=field, unit=unit, value=value)


def _is_head(text: str, head: str) -> bool:
    """Whether what is no field of a row stands in the head of a line alone, and the session once."""
    return text.count('"session": ') == 1 and all(text.count(n) == head.count(n) == 1 for n in _IN_HEAD)


def check_clock_hz(hz: int, *, source: str, field: str) -> None:
    """Refuse a frequency that can only be one in another unit.

    Raises:
        RecordError: zero, negative, below 10 MHz or above 10 GHz.
    """
    reason = "must be positive" if hz <= 0 else unit_hint(hz)
    if hz > _HIGHEST_HZ:
        reason = "no clock of an edge device runs above 10 GHz; it was taken for a larger unit than it is in"
    if reason:
        raise RecordError(reason, source=source, row=None, field=field, unit="Hz", value=hz)


def _fine(statistic: Mapping[str, Any]) -> bool:
    """Whether a statistic is what :meth:`CostRecord.check` accepts, with numbers as hadas writes them."""
    return (
        len(statistic) == 3
        and type(statistic["value"]) is float
        and type(statistic["standard_error"]) is float
        and type(statistic["n"]) is int
        and 0 <= statistic["n"] <= _LARGEST_INTEGER
        and 0.0 < statistic["value"] < math.inf
        and 0.0 <= statistic["standard_error"] < math.inf
    )


def _is_evidence(fields: Mapping[str, Any]) -> bool:
    """Whether evidence is one that can be read, with lists where what follows from it counts on lists.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it cannot be read.
    """
    Evidence.from_json(fields)
    return (
        type(fields["stages"]) is list
        and type(fields["flags"]) is list
        and all(type(flag) is str for flag in fields["flags"])
        and type(fields["machine"]) is list
        and type(fields["anchor"]) is bool
    )


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) <= _LARGEST_INTEGER)


def _network(fields: Mapping[str, Any]) -> _Network | str:
    """What a backbone is, or why it is none."""
    backbone = rows.backbone_from_json(fields)
    try:
        space = space_by_name(backbone.space)
        space.encode(backbone)
    except SpaceError as error:
        return str(error)
    return _Network(backbone.arch_id, space.first_exit, backbone.n_blocks)
