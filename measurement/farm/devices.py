"""The devices that a laboratory has: one YAML file, every field checked, every error named.

.. code-block:: yaml

    tx2-left:                      # a name of your own
      kind: jetson                 # jetson | host-cpu | cuda
      transport:                   # local (the default), or by SSH:
        ssh: tx2-left.lan          #   address, or alias of ~/.ssh/config
        user: nvidia               #   where they differ from your configuration
        port: 22
        options: {IdentityFile: ~/.ssh/lab}   # further options of the OpenSSH client
      allow_dvfs: true             # may clocks be written?  They are restored afterwards
      sudo: true                   # run the agent as root (sudo -n): clocks and sensors are root's
      domains: {gpu: [gpu], emc: [emc]}       # clocks to search over -> clocks of the board, moved together
      pinned: {cpu0: max}          # clocks to hold: Hz, max or min
      processor: gpu               # gpu | cpu (then the domain 'cpu' names the cores that run the programs)
      engine: auto                 # auto | torch | onnxruntime | trtexec
      dtype: fp32                  # fp32 | fp16
      python: python3              # interpreter of the agent and the programs, e.g. a virtual environment's
      agent: [/usr/local/bin/hadas-agent]     # an agent that is installed there, for a sudo rule that names it;
                                   # left out = the agent of this hadas is copied there
      tags: [lab]                  # words to choose devices by
    desk:
      kind: host-cpu
      threads: 1
      engine: eager                # eager | torchscript | onnxruntime
    card:
      kind: cuda
      index: 0
      engine: eager                # eager | torchscript
      dtype: fp32                  # fp32 | fp16
      allow_dvfs: false            # may the GPU's clocks be locked?
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from ...datasets.userfiles import load_yaml
from ...errors import ConfigError
from ...spaces.dvfs import unit_hint
from ...spaces.userfile import read_user_text
from ..hardware.remote.settings import Dtype, Engine, JetsonSettings, Processor

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
_WORD = Annotated[str, Field(pattern=r"\S")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class SshConfig(_Section):
    """How a device is reached by the OpenSSH client; the user's own configuration applies."""

    ssh: str = Field(pattern=r"^[^-\s]\S*$")
    user: str | None = Field(default=None, pattern=r"^[^-\s]\S*$")
    port: int | None = Field(default=None, ge=1, le=65535)
    options: dict[str, str] = Field(default_factory=dict)


class JetsonConfig(_Section):
    """A board behind the agent."""

    kind: Literal["jetson"]
    transport: Literal["local"] | SshConfig = "local"
    allow_dvfs: bool = False
    sudo: bool = False
    domains: dict[str, Annotated[tuple[_WORD, ...], Field(strict=False, min_length=1)]] = Field(
        default_factory=dict
    )
    pinned: dict[str, int | Literal["max", "min"]] = Field(default_factory=dict)
    processor: Processor = "gpu"
    engine: Engine = "auto"
    dtype: Dtype = "fp32"
    python: str = Field(default="python3", pattern=r"^[^-\s]\S*$")
    agent: Annotated[tuple[_WORD, ...], Field(strict=False, min_length=1)] | None = None
    tags: Annotated[tuple[_WORD, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.domains or self.pinned) and not self.allow_dvfs:
            raise ValueError("'domains' and 'pinned' set clocks: that needs 'allow_dvfs: true'")
        used = [member for members in self.domains.values() for member in members] + list(self.pinned)
        twice = sorted({member for member in used if used.count(member) > 1})
        if twice:
            raise ValueError(f"clocks are named twice in 'domains' and 'pinned': {', '.join(twice)}")
        for domain in self.domains:
            if domain not in ("gpu", "cpu", "emc"):
                raise ValueError(f"'domains.{domain}': clocks to search over are gpu, cpu and emc")
        for name, wanted in self.pinned.items():
            if isinstance(wanted, int) and (hint := unit_hint(wanted)):
                raise ValueError(f"'pinned.{name}' = {wanted}: {hint}")
        if self.processor == "cpu" and "cpu" not in self.domains:
            raise ValueError("'processor: cpu' needs the domain 'cpu' in 'domains': it names the cores")
        return self

    @property
    def settings(self) -> JetsonSettings:
        """What a :class:`~hadas.measurement.hardware.remote.jetson.JetsonRig` takes."""
        return JetsonSettings(dict(self.domains), dict(self.pinned), self.engine, self.processor, self.dtype)


class HostCpuConfig(_Section):
    """The CPU of the machine that hadas runs on."""

    kind: Literal["host-cpu"]
    threads: int = Field(default=1, ge=1)
    engine: Literal["eager", "torchscript", "onnxruntime"] = "eager"
    tags: Annotated[tuple[_WORD, ...], Field(strict=False)] = ()


class CudaConfig(_Section):
    """An NVIDIA GPU of the machine that hadas runs on."""

    kind: Literal["cuda"]
    index: int = Field(default=0, ge=0)
    allow_dvfs: bool = False
    dtype: Dtype = "fp32"
    engine: Literal["eager", "torchscript"] = "eager"
    tags: Annotated[tuple[_WORD, ...], Field(strict=False)] = ()


FarmDeviceConfig = Annotated[JetsonConfig | HostCpuConfig | CudaConfig, Field(discriminator="kind")]
DeviceConfig = JetsonConfig | HostCpuConfig | CudaConfig
_MODELS: dict[str, type[_Section]] = {"jetson": JetsonConfig, "host-cpu": HostCpuConfig, "cuda": CudaConfig}
_ADAPTER: TypeAdapter[DeviceConfig] = TypeAdapter(FarmDeviceConfig)


def load_devices(path: Path) -> dict[str, DeviceConfig]:
    """Read and check a devices file.

    Returns:
        Name -> device, in the order of the file.

    Raises:
        ConfigError: missing or unreadable file, bad YAML (with the line), or bad fields: each named, with
            the nearest known field where one was misspelt.
    """
    what = f"devices file {path}"
    text = read_user_text(path, "devices file", if_absent="see 'hadas devices --help' for what it holds")
    document = _parse(text, what)
    if not isinstance(document, dict) or not document:
        raise ConfigError(f"{what}: maps names of devices to their fields, e.g. desk: {{kind: host-cpu}}")
    devices: dict[str, DeviceConfig] = {}
    problems: list[str] = []
    for name, fields in document.items():
        try:
            devices[str(name)] = _device(str(name), fields)
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError(f"{what}: " + "; ".join(problems))
    return devices


def with_tag(devices: dict[str, DeviceConfig], tag: str) -> dict[str, DeviceConfig]:
    """The devices that carry a tag.

    Raises:
        ConfigError: none does; says which tags there are.
    """
    chosen = {name: device for name, device in devices.items() if tag in device.tags}
    if not chosen:
        known = sorted({known for device in devices.values() for known in device.tags})
        raise ConfigError(f"no device has the tag '{tag}'; tags are {', '.join(known) or 'not used'}")
    return chosen


def _device(name: str, fields: Any) -> DeviceConfig:
    """One device, or all that is wrong with it."""
    if not re.match(_NAME, name):
        raise ConfigError(f"'{name}': a name has letters, digits, dots, dashes and underscores")
    if not isinstance(fields, dict):
        raise ConfigError(f"'{name}': a device is a mapping of fields, e.g. {{kind: host-cpu}}")
    try:
        return _ADAPTER.validate_python(fields)
    except ValidationError as error:
        problems = [_explain(name, problem) for problem in error.errors() if not _is_echo(problem, fields)]
        raise ConfigError("; ".join(problems)) from error


def _is_echo(problem: Any, fields: dict[str, Any]) -> bool:
    """Whether a problem is only that a value is not the other one of two things that it may be."""
    location = problem["loc"]
    if "transport" in location:
        return bool(isinstance(fields["transport"], dict) == (location[-1] == "literal['local']"))
    return bool("pinned" in location and location[-1] == "int" and isinstance(problem["input"], str))


def _explain(name: str, problem: Any) -> str:
    kinds = ", ".join(_MODELS)
    if problem["type"] == "union_tag_not_found":
        return f"'{name}.kind' is missing; known kinds are {kinds}"
    if problem["type"] == "union_tag_invalid":
        given = str(problem["ctx"]["tag"])
        return f"'{name}.kind' = '{given}': known kinds are {kinds}{_did_you_mean(given, list(_MODELS))}"
    # The first part of a location is the kind, and a union adds the name of its member.
    kind, *parts = (str(part) for part in problem["loc"])
    parts = [part for part in parts if part != "SshConfig" and not part.startswith("literal[")]
    location = ".".join((name, *parts))
    if problem["type"] == "extra_forbidden":
        model: type[_Section] = SshConfig if parts[:1] == ["transport"] else _MODELS[kind]
        return f"'{location}': no such field{_did_you_mean(parts[-1], list(model.model_fields))}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "missing":
        return f"'{location}' is missing"
    if problem["type"] == "value_error":
        return f"'{name}': {message}"
    near = ""
    if problem["type"] == "literal_error" and isinstance(problem["input"], str):
        near = _did_you_mean(problem["input"], [part.strip("'") for part in message.split() if "'" in part])
    return f"'{location}' = {problem['input']!r}: {message}{near}"


def _did_you_mean(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""


def _parse(text: str, what: str) -> Any:
    try:
        return load_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{what}{line}: not YAML that can be used ({problem})") from error
    except ValueError as error:  # a date that is none, such as 2026-13-01
        raise ConfigError(f"{what}: not YAML ({error})") from error
