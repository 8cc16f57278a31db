"""A Jetson as a rig: an agent sets its clocks, runs the programs and reads its sensors.

Which clocks are steered is the user's choice: a clock domain of hadas is one or several domains of
the board that move together.  Everything else is pinned, or left to the board and said to be so;
either way it is part of the target.

Units: seconds, W, Hz, degrees Celsius.
"""

from __future__ import annotations

import contextlib
import shlex
import tempfile
import threading
import uuid
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from ....datasets.records import Program, Target, Truth
from ....errors import ConfigError, DeviceError
from ....spaces import PINNED, ClockDomain, ClockTable, MBConvSpace, Setting
from ..device import CostRequest
from ..programs import ProgramFile, ProgramFormat, export_programs
from ..rig import ClockReading, DeviceState, EnergySource, PowerTrace
from .boards import board_name, cpu_name, gpu_name, release_name
from .client import AgentClient
from .loops import STOPPING_S, RemotePrograms, power_trace, program_name
from .settings import JetsonSettings
from .steering import refuse_leftovers, set_when_cool
from .transport import Transport, agent_directory, copy_file, last_line

_FORMATS: Mapping[str, ProgramFormat] = {"torch": "torchscript", "onnxruntime": "onnx", "trtexec": "onnx"}
TRTEXEC_FOLDERS = "/usr/src/tensorrt/bin:/usr/local/tensorrt/bin"
_LOAD_S = 300.0
_BUILD_S = 1800.0  # TensorRT tries many kernels per layer, on a slow board
_N_KEPT = 8  # networks whose programs stay on the device: clocks change more often than networks
_N_BUILT = 64  # the same where TensorRT may run them: it takes minutes to build its engines

_EXPORTING = threading.Lock()
"""Torch's exporters keep what they trace in one place: boards that are measured side by side take turns."""


class JetsonRig:
    """One board behind an agent.

    Args:
        client: connected; the rig closes it.
        settings: what is steered and pinned.
        space: where backbones come from.
        n_classes: outputs of each classifier.

    Attributes:
        directory: where its programs lie on the board; it is gone once the rig is closed.

    Raises:
        ConfigError: domains that the board does not have, or that cannot move together.
        DeviceError: pinned clocks that the board does not take, or clocks that an earlier agent left set.
    """

    def __init__(
        self, client: AgentClient, settings: JetsonSettings, *, space: MBConvSpace, n_classes: int
    ) -> None:  # fmt: skip
        self.settings = settings
        self._client = client
        self._space = space
        self._n_classes = n_classes
        self._exports = tempfile.TemporaryDirectory(prefix="hadas-programs-")
        self._kept: OrderedDict[tuple[str, str, str], tuple[tuple[ProgramFile, ...], str]] = OrderedDict()
        try:
            self._found = client.request("discover", deadline_s=120.0)
            refuse_leftovers(client.name, self._found["flags"])
            self._board_hz = {
                domain["name"]: tuple(domain["frequencies_hz"]) for domain in self._found["domains"]
            }
            self._table = steered_table(self._found["board"], self._board_hz, settings, client.name)
            self._engine = chosen_engine(settings, self._found["engines"], client.name)
            if self._engine[0] == "trtexec":
                self._engine = ("trtexec", tensorrt_version(client.transport))
            self._pin()
            self.directory = f"{agent_directory(client.transport)}/programs/{uuid.uuid4().hex}"
            self._sweep()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def client(self) -> AgentClient:
        """The connection to the board."""
        return self._client

    @property
    def target(self) -> Target:
        """Board, processor and release as the board names them; every clock that is not steered is pinned."""
        board = self._found["board"]
        return Target(
            board=board_name(board), processor=self._processor_name(), release=release_name(board["release"]),
            runtime=" ".join(part for part in self._engine if part), dtype=self.settings.dtype,
            pinned=tuple(sorted(self._pinned_pairs())),
        )  # fmt: skip

    @property
    def truth(self) -> Truth:
        """Always :attr:`Truth.DEVICE`."""
        return Truth.DEVICE

    @property
    def energy(self) -> EnergySource | None:
        """The board's power sensor, if it is alive."""
        sensor = self._found["sensor"]
        if sensor is None:
            return None
        return EnergySource(
            name=sensor["name"], rails=tuple(self._found["rails"]), scope=tuple(self._found["scope"]),
            averaging_s=float(sensor["averaging_s"]), update_s=float(sensor["update_s"]),
        )  # fmt: skip

    def clock_table(self) -> ClockTable:
        """The steered domains, with the frequencies that the board lists."""
        return self._table

    def set_clocks(self, setting: Setting) -> ClockReading:
        """Set, read back, and wait until they have settled; where the board is being cooled, wait for that first.

        Raises:
            OffTableFrequencyError: a frequency that the board does not list; nothing is written.
            HotDeviceError: it does not cool down.
            DeviceError: the agent may not write, or could not.
        """
        self._table.check(setting)
        if not setting.clocks_hz:
            return ClockReading(setting, setting)
        wanted = {member: hz for domain, hz in setting.clocks_hz for member in self.settings.domains[domain]}
        reply = set_when_cool(self._client, wanted)
        actual, flags = self._gathered(reply["actual"])
        return ClockReading(setting, actual, (*reply["flags"], *flags))

    @contextmanager
    def load(self, request: CostRequest, program: Program) -> Iterator[RemotePrograms]:
        """Export the programs of one network here, copy them to the board and load them there.

        Raises:
            DeviceError: they cannot be copied, or the board's engine cannot load them.
        """
        files, remote = self._programs(request, program)
        fields = [
            {
                "name": program_name(file), "path": f"{remote}/{file.path.name}", "format": file.format,
                "inputs": [list(file.input_shape)], "dtype": self.settings.dtype,
            }
            for file in files
        ]  # fmt: skip
        reply = self._client.request(
            "load", deadline_s=_LOAD_S if self._engine[0] == "torch" else _BUILD_S, engine=self._engine[0],
            processor=self.settings.processor, cores=self._cores(), programs=fields,
        )  # fmt: skip
        decides = self._n_classes if request.exits.positions else None
        rails = tuple(self._found["rails"]) if self.energy else ()
        try:
            yield RemotePrograms(self._client, files, reply["engine"], decides, rails, self.settings.block_s)
        finally:
            if self._client.is_alive:
                self._client.request("unload", deadline_s=STOPPING_S)

    def idle(self, seconds: float) -> PowerTrace | None:
        """Power while nothing runs; ``None`` without a live sensor."""
        reply = self._client.request("idle", deadline_s=seconds + STOPPING_S, seconds=seconds)
        return power_trace(reply["trace"], tuple(self._found["rails"])) if self.energy else None

    def state(self) -> DeviceState:
        """Temperature, over-current events and clocks right now; what is odd about the board on every row."""
        reply = self._client.request("state")
        actual, uneven = self._gathered(reply["actual"]) if self._table.domains else (None, ())
        held = tuple(
            (name, self._pinned_hz(name), int(reply["actual"].get(name, 0))) for name in self.settings.pinned
        )
        flags = tuple(dict.fromkeys((*self._found["flags"], *reply["flags"], *uneven)))
        return DeviceState(
            reply["temperature_c"], reply["overcurrent_events"], actual, flags=flags, held_hz=held
        )

    def close(self) -> None:
        """Leave the board as it was found, and without our programs.

        Raises:
            DeviceError: something could not be put back; says what.
        """
        if self._client.is_alive and hasattr(self, "directory"):
            with contextlib.suppress(DeviceError):  # the next rig sweeps what is left
                self._client.transport.shell(f"rm -rf -- {shlex.quote(self.directory)}")
        try:
            self._client.close()
        finally:
            self._exports.cleanup()

    # -- clocks ---------------------------------------------------------------------------------

    def _pin(self) -> None:
        """Set the pinned clocks, once.

        Raises:
            DeviceError: the board runs at something else, or does not cool down.
        """
        if not self.settings.pinned:
            return
        wanted = {name: self._pinned_hz(name) for name in self.settings.pinned}
        reply = set_when_cool(self._client, wanted)
        for name, hz in wanted.items():
            if reply["actual"].get(name) != hz:
                raise DeviceError(
                    f"{self._client.name}: pinned clock '{name}' runs at {reply['actual'].get(name)} Hz, not at "
                    f"{hz} Hz ({', '.join(reply['flags']) or 'no reason given'}); choose another power mode, or "
                    "pin it elsewhere"
                )

    def _pinned_hz(self, name: str) -> int:
        wanted = self.settings.pinned[name]
        table = self._board_hz[name]
        return {"max": table[-1], "min": table[0]}[wanted] if isinstance(wanted, str) else wanted

    def _pinned_pairs(self) -> Iterator[tuple[str, str]]:
        steered = {member for members in self.settings.domains.values() for member in members}
        for name in self._board_hz:
            if name in self.settings.pinned:
                yield f"{name}_hz", str(self._pinned_hz(name))
            elif name not in steered:
                yield f"{name}_hz", "not controlled"
        for domain, members in self.settings.domains.items():
            yield f"{domain}_domains", "+".join(members)
        board = self._found["board"]
        yield "online_cores", ",".join(str(core) for core in board["online_cores"])
        mode = board["nvpmodel"]
        yield "power_mode", str(mode.get("name", mode)) if isinstance(mode, dict) else "unknown"

    def _gathered(self, actual_hz: Mapping[str, int]) -> tuple[Setting, tuple[str, ...]]:
        """Clocks of the steered domains from those of the board; the slowest of those that should be equal."""
        clocks, flags = [], []
        for domain in self._table.domains:
            members = [actual_hz.get(member, 0) for member in self.settings.domains[domain.name]]
            clocks.append((domain.name, min(members)))
            if len(set(members)) > 1:
                flags.append(f"uneven:{domain.name}")
        return Setting(tuple(clocks)), tuple(flags)

    def _cores(self) -> list[int]:
        """Cores that the programs may use; empty = all."""
        if self.settings.processor != "cpu":
            return []
        members = self.settings.domains.get("cpu", ())
        return sorted(
            core for domain in self._found["domains"] if domain["name"] in members for core in domain["cores"]
        )

    def _processor_name(self) -> str:
        board = self._found["board"]
        if self.settings.processor == "gpu":
            return gpu_name(board)
        return cpu_name(board, self.settings.domains.get("cpu", ()))

    # -- programs -------------------------------------------------------------------------------

    def _programs(self, request: CostRequest, program: Program) -> tuple[tuple[ProgramFile, ...], str]:
        """Files of one network, and the directory on the board where they are."""
        key = (request.backbone.arch_id, str(request.exits), program)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        folder = uuid.uuid4().hex
        # TensorRT halves a network itself, and rather takes single precision.
        dtype = "fp32" if self._engine[0] == "trtexec" else self.settings.dtype
        with _EXPORTING:
            files = export_programs(
                self._space, request, n_classes=self._n_classes, program=program,
                directory=Path(self._exports.name) / folder, format=_FORMATS[self._engine[0]], dtype=dtype,
            )  # fmt: skip
        remote = f"{self.directory}/{folder}"
        for file in files:
            copy_file(self._client.transport, file.path.read_bytes(), f"{remote}/{file.path.name}")
        self._kept[key] = (files, remote)
        builds = self._engine[0] != "torch" and self.settings.processor == "gpu"
        if len(self._kept) > (_N_BUILT if builds else _N_KEPT):
            _, (_, oldest) = self._kept.popitem(last=False)
            self._client.transport.shell(f"rm -rf -- {shlex.quote(oldest)}")
        return files, remote

    def _sweep(self) -> None:
        """Remove what rigs left that were cut off, a day ago or longer."""
        parent = shlex.quote(str(Path(self.directory).parent))
        self._client.transport.shell(
            f"mkdir -p -- {parent} && find {parent} -mindepth 1 -maxdepth 1 -mtime +0 -exec rm -rf -- {{}} +"
        )


def steered_table(
    board: Mapping[str, Any], board_hz: Mapping[str, tuple[int, ...]], settings: JetsonSettings, name: str
) -> ClockTable:  # fmt: skip
    """The steered domains' table.

    Raises:
        ConfigError: names the domain at fault, and what the board has.
    """
    used: dict[str, str] = {}
    for domain, members in [*settings.domains.items(), *((pin, (pin,)) for pin in settings.pinned)]:
        for member in members:
            if member not in board_hz:
                raise ConfigError(
                    f"{name}: clock domain '{member}' is not on this board now; it has {', '.join(board_hz) or 'none'}"
                    " (a power mode may have cores off)"
                )
            if member in used:
                raise ConfigError(
                    f"{name}: clock domain '{member}' is named by '{used[member]}' and by '{domain}'"
                )
            used[member] = domain
    for pin, wanted in settings.pinned.items():
        if isinstance(wanted, int):
            ClockTable(name, (ClockDomain(pin, board_hz[pin]),)).check(Setting(((pin, wanted),)))
    if not settings.domains:
        return PINNED
    domains = []
    for domain, members in settings.domains.items():
        tables = {board_hz[member] for member in members}
        if len(tables) != 1:
            raise ConfigError(
                f"{name}: clock domains {', '.join(members)} have different tables; steer one of them"
            )
        domains.append(ClockDomain(domain, tables.pop()))
    return ClockTable(board_name(board), tuple(domains))


def chosen_engine(settings: JetsonSettings, found: list[Mapping[str, Any]], name: str) -> tuple[str, str]:
    """Name and version of the engine to use.

    Raises:
        ConfigError: the device does not have it; says which it has.
    """
    versions = {engine["name"]: str(engine.get("version") or "") for engine in found}
    for known in _FORMATS if settings.engine == "auto" else (settings.engine,):
        if known in versions and not (known == "trtexec" and settings.processor == "cpu"):
            return known, versions[known]
    raise ConfigError(
        f"{name}: engine '{settings.engine}' is not on this device for its {settings.processor}; it has "
        f"{', '.join(versions) or 'none'}. Install PyTorch, ONNX Runtime or TensorRT there, for the user and the "
        "Python that run the agent"
    )


def tensorrt_version(transport: Transport) -> str:
    """Version of TensorRT by the banner of its command, e.g. ``TensorRT v8201``.

    TensorRT 7 prints none: there it is that of the package, e.g. ``TensorRT 7.1.3-1+cuda10.2``, or else that of the
    library's file, e.g. ``TensorRT 7.1.3``.

    Raises:
        DeviceError: none of these tells.
    """
    ways = (
        f'PATH="$PATH:{TRTEXEC_FOLDERS}"; trtexec --help 2>&1 | grep -o "TensorRT v[0-9]*"',
        "dpkg-query -W -f='TensorRT ${Version}\\n' 'libnvinfer[0-9]*' 2>/dev/null | grep '[0-9]'",
        "ls ${LD_LIBRARY_PATH:+$(echo $LD_LIBRARY_PATH | tr : ' ')} /usr/lib/*-linux-gnu /usr/lib /usr/local/tensorrt/lib "
        "2>/dev/null | sed -n 's/^libnvinfer\\.so\\.\\([0-9]*\\.[0-9].*\\)/TensorRT \\1/p'",
    )
    for way in ways:
        version = last_line(transport.shell(f"({way}) | head -n 1"))
        if version:
            return version
    raise DeviceError(
        f"{transport.name}: neither trtexec nor the package libnvinfer tells the version of TensorRT there"
    )
