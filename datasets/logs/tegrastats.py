"""Lines of NVIDIA's ``tegrastats``, of every Jetson board and JetPack, as typed readings.

The print differs by release, and units are partly implied.  What this parser knows of them:

* ``NAME@37.5C``, ``NAME@52.9C/52.9C`` (JetPack 7): a temperature; the unit is always printed.
* ``NAME 152/152`` (JetPack 4), ``NAME 5299mW/5299mW`` (5 and 6), ``NAME a/b/c mW`` (7): power of a rail:
  now, averaged since tegrastats began, and a third number.  Without a unit it is mW, and only labels that
  boards are known to have are taken for a rail.
* ``NAME 0%@318``, ``NAME 0%@[305,305]``, ``NAME @4266``, ``NAME 716``, ``NAME off``: load and clocks of an
  engine; the clock is MHz, and only names of engines are taken for one.
* ``CPU [1%@345,off,...]``: load and clock of every core, a core that is off keeps its place;
  ``CPU [1%,off]@2601``: one clock for all.
* ``RAM``, ``SWAP``, ``IRAM``: memory with its printed unit.

``GPU 0/0`` is a rail, ``GPU@37.5C`` a temperature, ``CPU [...]`` the cores.  Whatever is none of these is an
error that names its column: a number whose unit cannot be told is never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import NoReturn

from ...errors import RecordError
from .readings import TOTAL_RAILS, Core, Engine, Memory, RailPower, SensorState, TegrastatsRecord, Temperature

_MHZ = 1_000_000
_HIGHEST_MHZ = 10_000  # a larger number is one in kHz or Hz
_HIGHEST_MW = 1_000_000  # no module draws a kilowatt; a larger number is one in another unit
_PART_FACTOR, _PART_SLACK_MW = 2, 100  # a rail may read so much more than the input rail that carries it
_HIGHEST_C = 150.0
_ABSENT_C = -40.0  # below what any board works at
_KIB = {"kB": 1, "MB": 1024}

_KNOWN_RAILS = re.compile(r"(?:VDD|VIN|POM)[A-Z0-9_]*|GPU|CPU|SOC|CV|SYS5V|NC")
_ENGINE_NAME = (
    r"(?:EMC|GR3D2?|VIC|APE|NVENC|NVDEC|NVJPG|OFA|SE|TSEC[AB]?|MSENC|PVA|NVDLA|ISP|VI)[0-9]*(?:_FREQ)?"
)
_N = r"([0-9]{1,9})"
_C = r"(-?[0-9]{1,4}(?:\.[0-9]{1,6})?)C"
_LOAD_OR_CLOCK = "@|[0-9]+%"
# One field from the current position on.  The last branch takes what no other does: an error.
_FIELD = re.compile(
    rf"""\s*(?:
      (?P<temperature>([A-Za-z][A-Za-z0-9_.-]*)@{_C}(?:/{_C})?)
    | (?P<engine>({_ENGINE_NAME})\s+(?={_LOAD_OR_CLOCK})(?:{_N}%)?(?:@(?:{_N}|\[((?:[0-9,\s]|off)+)\]))?)
    | (?P<idle>({_ENGINE_NAME})\s+(?:(off)|{_N}))
    | (?P<rail>([A-Za-z][A-Za-z0-9_]*)\s+{_N}(mW)?/{_N}(mW)?(?:/{_N}(mW)?)?(\s+mW)?)
    | (?P<cpu>CPU\s+\[([^\]]*)\](?:@{_N})?)
    | (?P<memory>(RAM|SWAP|IRAM)\s+{_N}/{_N}([kM]B)\s*(?:\((?:lfb|cached)\s+(?:[0-9]+x)?[0-9]+[kM]B\))?)
    | (?P<mts>MTS\s+fg\s+{_N}%\s+bg\s+{_N}%)
    | (?P<end>$)
    )(?=\s|$)""",
    re.VERBOSE | re.ASCII,
)
_STAMP = re.compile(
    r"""\s*(?:
      (?P<epoch>1[0-9]{9}(?:\.[0-9]+)?)
    | (?P<dashed>[0-9]{2}-[0-9]{2}-[0-9]{4}\s[0-9]{2}:[0-9]{2}:[0-9]{2})
    | (?P<iso>[0-9]{4}-[0-9]{2}-[0-9]{2}[T\s][0-9]{2}:[0-9]{2}:[0-9]{2}(?:[.,][0-9]{1,6})?(?:Z|[+-][0-9]{2}:?[0-9]{2})?)
    )(?:\s*(?:-{2,3}|[:|,;])\s*|\s+)(?=RAM\b)""",
    re.VERBOSE | re.ASCII,
)
_CORE = re.compile(r"\s*(?:off|([0-9]{1,3})%(?:@([0-9]{1,5}))?)\s*", re.ASCII)


def parse_line(line: str, *, source: str = "tegrastats", row: int | None = None) -> TegrastatsRecord:
    """Read one line.

    Args:
        source, row: file and line number, for messages.

    Raises:
        RecordError: a field that cannot be told, an unknown unit, a value that cannot be; names its column.
    """
    return _Reader(line, source, row).record()


class _Reader:
    """What has been read of one line so far."""

    def __init__(self, line: str, source: str, row: int | None) -> None:
        self._line, self._source, self._row = line, source, row
        self._at = 0
        self._memory: dict[str, Memory] = {}
        self._cores: tuple[Core, ...] = ()
        self._engines: dict[str, Engine] = {}
        self._temperatures: dict[str, Temperature] = {}
        self._rails: dict[str, RailPower] = {}
        self._mts: tuple[int | None, int | None] = (None, None)

    def record(self) -> TegrastatsRecord:
        line = self._line
        epoch_s, local_time = self._stamp()
        position, end = self._at, len(line)
        while position < end:
            found = _FIELD.match(line, position)
            if found is None:
                self._at = position + len(line[position:]) - len(line[position:].lstrip())
                self._refuse_unknown()
            kind = found.lastgroup
            if kind == "end":
                break
            self._at = found.start(kind)  # type: ignore[arg-type]
            _READERS[kind](self, found)  # type: ignore[index]
            position = found.end()
        if "RAM" not in self._memory:
            self._at = 0
            self._refuse("RAM", "", line.strip()[:40], "is missing: this is not a whole line of tegrastats")
        self._check_total()
        return TegrastatsRecord(
            epoch_s, local_time, self._memory["RAM"], self._memory.get("SWAP"), self._memory.get("IRAM"),
            self._cores, tuple(self._engines.values()), tuple(self._temperatures.values()),
            tuple(self._rails.values()), *self._mts,
        )  # fmt: skip

    def _stamp(self) -> tuple[float | None, datetime | None]:
        found = _STAMP.match(self._line)
        if found is None:
            return None, None
        kind = found.lastgroup or ""
        text = found.group(kind)
        self._at = found.start(kind)
        try:
            if kind == "epoch":
                stamp: tuple[float | None, datetime | None] = (float(text), None)
            elif kind == "dashed":  # month first, as tegrastats prints it
                stamp = (None, datetime.strptime(re.sub(r"\s", " ", text), "%m-%d-%Y %H:%M:%S"))
            else:
                stamp = (None, datetime.fromisoformat(text.replace(",", ".")))
        except ValueError:
            self._refuse("time stamp", "", text, "is no date and time (tegrastats prints month-day-year)")
        self._at = found.end()
        return stamp

    # -- one field each --------------------------------------------------------------------------

    def _read_temperature(self, found: re.Match[str]) -> None:
        name, celsius, second = found.group(2, 3, 4)
        self._refuse_repeated(name, self._temperatures, "temperature")
        value = float(celsius)
        second_c = None if second is None else float(second)
        for reading in (value, second_c):
            if reading is not None and not -256.0 <= reading <= _HIGHEST_C:
                self._refuse(name, "C", found.group(1), f"no board is at {reading:g} C")
        if value == -256.0:
            state = SensorState.GATED
        elif value <= _ABSENT_C:
            state = SensorState.UNREAD
        elif value == 100.0 and name.upper().startswith("PMIC"):
            state = SensorState.CONSTANT
        else:
            state = SensorState.LIVE
        self._temperatures[name] = Temperature(name, value, state, second_c)

    def _read_engine(self, found: re.Match[str]) -> None:
        name, load, clock, clocks = found.group(6, 7, 8, 9)
        listed = [clock] if clock is not None else [] if clocks is None else clocks.split(",")
        self._add_engine(Engine(name, self._percent(name, load), tuple(self._hz(name, c) for c in listed)))

    def _read_idle(self, found: re.Match[str]) -> None:
        name, off, clock = found.group(11, 12, 13)
        self._add_engine(
            Engine(name, None, (), is_off=True) if off else Engine(name, None, (self._hz(name, clock),))
        )

    def _add_engine(self, engine: Engine) -> None:
        self._refuse_repeated(engine.name, self._engines, "engine")
        self._engines[engine.name] = engine

    def _read_rail(self, found: re.Match[str]) -> None:
        label, instant, unit_1, average, unit_2, third, unit_3, unit_after = found.group(*range(15, 23))
        units = [unit_1, unit_2] if third is None else [unit_1, unit_2, unit_3]
        # A unit after the last number is of them all; one that only some carry could be a damaged line.
        shared = all(units) or not any(units[:-1])
        if not shared or (unit_after and any(units)):
            self._refuse(label, "mW", found.group(14), "some of its numbers carry a unit and some do not")
        if not (any(units) or unit_after) and not _KNOWN_RAILS.fullmatch(label):
            self._refuse(label, "mW", found.group(14), "no known rail, and its numbers carry no unit")
        if label == "NC":  # a channel that is not connected
            return
        self._refuse_repeated(label, self._rails, "rail")
        powers = [int(text) for text in (instant, average, third) if text is not None]
        if max(powers) > _HIGHEST_MW:
            self._refuse(label, "mW", found.group(14), "more than a kilowatt; the unit cannot be mW")
        self._rails[label] = RailPower(label, *powers)

    def _read_cpu(self, found: re.Match[str]) -> None:
        listed, shared = found.group(24, 25)
        if self._cores:
            self._refuse("CPU", "", found.group(23)[:40], "is there twice")
        shared_hz = None if shared is None else self._hz("CPU", shared)
        cores = []
        for text in listed.split(","):
            core = _CORE.fullmatch(text)
            if core is None:
                self._refuse("CPU", "% and MHz", text, "a core is 'off', '12%' or '12%@1420'")
            load, clock = core.groups()
            if clock is not None and shared is not None:
                self._refuse("CPU", "MHz", found.group(23)[:40], "a clock per core and one for all")
            hz = shared_hz if clock is None else self._hz("CPU", clock)
            cores.append(_OFF if load is None else Core(self._percent("CPU", load), hz))
        self._cores = tuple(cores)

    def _read_memory(self, found: re.Match[str]) -> None:
        name, used, total, unit = found.group(27, 28, 29, 30)
        self._refuse_repeated(name, self._memory, "memory")
        if int(used) > int(total):
            self._refuse(name, unit, found.group(26), "more is used than there is")
        self._memory[name] = Memory(int(used) * _KIB[unit], int(total) * _KIB[unit])

    def _read_mts(self, found: re.Match[str]) -> None:
        if self._mts != (None, None):
            self._refuse("MTS", "%", found.group(31), "is there twice")
        foreground, background = found.group(32, 33)
        self._mts = self._percent("MTS", foreground), self._percent("MTS", background)

    def _check_total(self) -> None:
        """The input rail carries all others; read one after another, they may differ by a change of load."""
        for label in TOTAL_RAILS:
            if (total := self._rails.get(label)) is None:
                continue
            for rail in self._rails.values():
                if rail.instant_mw > _PART_FACTOR * total.instant_mw + _PART_SLACK_MW:
                    self._at = self._line.find(label)
                    self._refuse(
                        label, "mW", str(total.instant_mw),
                        f"carries all other rails, but '{rail.label}' is at {rail.instant_mw} mW",
                    )  # fmt: skip

    # -- numbers -------------------------------------------------------------------------------

    def _percent(self, name: str, text: str | None) -> int | None:
        if text is None:
            return None
        if len(text) > 3 or int(text) > 100:
            self._refuse(name, "%", f"{text}%", "a load is at most 100 %")
        return int(text)

    def _hz(self, name: str, text: str) -> int:
        digits = text.strip()
        if digits == "off":  # one cluster of several
            return 0
        if not digits.isdecimal():
            self._refuse(name, "MHz", text, "a clock is a whole number")
        if len(digits) > 5 or int(digits) > _HIGHEST_MHZ:
            self._refuse(name, "MHz", digits, "clocks run below 10 GHz; is it in kHz or Hz?")
        return int(digits) * _MHZ

    # -- refusals --------------------------------------------------------------------------------

    def _refuse_repeated(self, name: str, known: Mapping[str, object], what: str) -> None:
        if name in known:
            self._refuse(name, "", self._line[self._at : self._at + 40], f"this {what} is there twice")

    def _refuse_unknown(self) -> NoReturn:
        words = self._line[self._at :].split(None, 2)[:2] or [""]
        name, text = words[0], " ".join(words)[:60]
        if "@" in name:
            self._refuse(
                name.split("@")[0], "C", text, "cannot be told: a temperature is NAME@ degrees with unit C"
            )
        value = words[1] if len(words) > 1 else ""
        if "/" in value:
            self._refuse(
                name, "mW, MB or kB", text, "cannot be told: unknown unit, or numbers that are not whole"
            )
        if re.search("[0-9]", value):
            self._refuse(
                name, "", text, "cannot be told: no known engine, or a number without a unit one can rely on"
            )
        self._refuse(name, "", text, "cannot be told: no field of tegrastats that hadas knows")

    def _refuse(self, field: str, unit: str, value: str, reason: str) -> NoReturn:
        raise RecordError(
            reason,
            source=self._source, row=self._row, field=f"column {self._at + 1}, {field}", unit=unit, value=value,
        )  # fmt: skip


_OFF = Core(None, None)
_READERS = {
    "temperature": _Reader._read_temperature,
    "engine": _Reader._read_engine,
    "idle": _Reader._read_idle,
    "rail": _Reader._read_rail,
    "cpu": _Reader._read_cpu,
    "memory": _Reader._read_memory,
    "mts": _Reader._read_mts,
}
