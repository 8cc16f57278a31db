"""The programs that a device runs for one network: as torch modules, and as files for other engines.

``stages``: one program per stage, segments and heads in execution order, the decision between them on
the host: what is deployed.  ``prefix``: one program per exit in use and one for the final classifier,
each from the image up to there with every head on the way: what a compiler may fuse.

Weights are freshly initialised from a fixed seed: time and energy depend on shapes, not on values.
"""

from __future__ import annotations

import hashlib
import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from ...datasets.records import Program, StageKind
from ...errors import ConfigError
from ...spaces import MBConvSpace, Stage
from ..accuracy.network import EarlyExitNetwork, build_network, stage_module
from .device import CostRequest
from .rig import LoadedStage

ProgramFormat = Literal["torchscript", "onnx"]
InputShape = tuple[int, int, int, int]

ONNX_OPSET = 13
"""The newest that TensorRT 8.2 and ONNX Runtime 1.10 read: the last of JetPack 4 for TX2."""

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
_SUFFIXES: dict[ProgramFormat, str] = {"torchscript": ".pt", "onnx": ".onnx"}
_SEED = 0


@dataclass(frozen=True, slots=True)
class ProgramFile:
    """One program as a file.

    Attributes:
        kind, position: which stage, or which prefix, it is.
        path: of the file.
        format: ``torchscript`` or ``onnx``.
        input_shape: (1, channels, height, width) of its only input.
        dtype: of weights, input and outputs: ``fp32`` or ``fp16``.
        sha256: of the file's bytes: of this export, not of the network.  Two exports of one network
            compute the same and may differ in the names that torch makes up.
    """

    kind: StageKind
    position: int
    path: Path
    format: ProgramFormat
    input_shape: InputShape
    dtype: str
    sha256: str


class PrefixModule(nn.Module):
    """A network from its input up to one exit, with every head in use on the way.

    Args:
        segments: in order; the last one may end in the final classifier.
        heads: of the exits in use, in order; heads[i] reads the output of segments[i].
    """

    def __init__(self, segments: list[nn.Module], heads: list[nn.Module]) -> None:
        super().__init__()
        self.segments = nn.ModuleList(segments)
        self.heads = nn.ModuleList(heads)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Logits (n, C) of every exit up to here, in order; the final classifier's last, if it is reached.

        All are outputs, so that no compiler may drop a head.
        """
        logits = []
        for index, segment in enumerate(self.segments):
            x = segment(x)
            if index < len(self.heads):
                logits.append(self.heads[index](x))
        if len(self.segments) > len(self.heads):
            logits.append(x)
        return tuple(logits)


def stage_modules(
    space: MBConvSpace, request: CostRequest, n_classes: int, program: Program
) -> tuple[tuple[LoadedStage, nn.Module, InputShape], ...]:
    """Programs of one network as torch modules in evaluation mode, in execution order.

    Returns:
        (what it is, module, (1, c, h, w) shape of its input).  Weights are shared between the modules.
        ``stages``: a segment's output is a feature map, or the final logits; a head's output its logits.
        ``prefix``: the output is a tuple of logits, see :class:`PrefixModule`.

    Raises:
        SpaceError: a network that is not in the space, or too small for a head.
    """
    workload = space.workload(request.backbone, n_classes=n_classes)
    stages = workload.stages(request.exits.positions)
    network = _fixed_network(space, request, n_classes)
    if program == "prefix":
        return _prefixes(network, stages)
    return tuple(
        (
            LoadedStage(stage.kind, stage.position),
            stage_module(network, stage).eval(),
            (1, *stage.units[0].in_shape),
        )
        for stage in stages
    )


def _fixed_network(space: MBConvSpace, request: CostRequest, n_classes: int) -> EarlyExitNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(_SEED)  # torch.manual_seed would seed every GPU, too
        network = build_network(space.macro, request.backbone, n_classes).eval()
    return network.requires_grad_(False)


def _prefixes(
    network: EarlyExitNetwork, stages: tuple[Stage, ...]
) -> tuple[tuple[LoadedStage, nn.Module, InputShape], ...]:
    shape = (1, *stages[0].units[0].in_shape)
    segments: list[nn.Module] = []
    heads: list[nn.Module] = []
    programs = []
    for stage in stages:
        (segments if stage.kind == "segment" else heads).append(stage_module(network, stage))
        if stage.kind == "head" or stage is stages[-1]:
            programs.append((LoadedStage("prefix", stage.position), PrefixModule(segments, heads), shape))
    return tuple((loaded, module.eval(), shape) for loaded, module, shape in programs)


def example_input(shape: InputShape, dtype: str = "fp32") -> Tensor:
    """The input that a program is timed with: uniform noise from a fixed seed.

    Raises:
        ConfigError: a dtype that no program is built in.
    """
    generator = torch.Generator().manual_seed(_SEED)
    return torch.rand(shape, generator=generator).to(torch_dtype(dtype))


def torch_dtype(dtype: str) -> torch.dtype:
    """Torch's dtype of ``fp32`` or ``fp16``.

    Raises:
        ConfigError: another name.
    """
    if dtype not in _DTYPES:
        raise ConfigError(f"dtype '{dtype}': programs are built in {' or '.join(_DTYPES)}")
    return _DTYPES[dtype]


def export_programs(
    space: MBConvSpace,
    request: CostRequest,
    *,
    n_classes: int,
    program: Program,
    directory: Path,
    format: ProgramFormat,
    dtype: str = "fp32",
) -> tuple[ProgramFile, ...]:
    """Write every program of one network into a directory.

    TorchScript files are traced and frozen (batch norm folded into convolutions).  They carry archive
    version 3 and use operators of torch 1.8 alone, so torch 1.8 and newer should read them; read back
    was every file with the torch that wrote it, nothing older is at hand.  ONNX files are of opset 13
    and pass onnx's checker.

    Args:
        directory: is made where it is missing; files of the same name are replaced.

    Returns:
        In execution order.

    Raises:
        ConfigError: an unknown format or dtype, or ONNX is asked for and the package is not installed.
        SpaceError: a network that is not in the space, or too small for a head.
    """
    if format not in _SUFFIXES:
        raise ConfigError(f"program format '{format}': known are {', '.join(_SUFFIXES)}")
    if format == "onnx":
        require_package("onnx", "exporting ONNX programs", "onnx")
    target_dtype = torch_dtype(dtype)
    directory.mkdir(parents=True, exist_ok=True)
    files = []
    for stage, module, shape in stage_modules(space, request, n_classes, program):
        path = directory / f"{stage.kind}-{stage.position}{_SUFFIXES[format]}"
        x = example_input(shape, dtype)
        module = module.to(target_dtype)
        if format == "onnx":
            _write_onnx(module, x, path)
        else:
            torchscript(module, x).save(str(path))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        files.append(ProgramFile(stage.kind, stage.position, path, format, shape, dtype, digest))
    return tuple(files)


def torchscript(module: nn.Module, x: Tensor) -> torch.jit.ScriptModule:
    """Trace and freeze a module that is in evaluation mode, for inputs of the shape of ``x``."""
    with torch.no_grad(), _jit_warnings_silenced():
        traced = torch.jit.trace(module, x, check_trace=False)  # type: ignore[no-untyped-call]
        frozen: torch.jit.ScriptModule = torch.jit.freeze(traced)
    return frozen


def load_torchscript(path: Path) -> torch.jit.ScriptModule:
    """The inverse of ``torchscript(...).save``."""
    with _jit_warnings_silenced():
        module: torch.jit.ScriptModule = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
    return module


def _write_onnx(module: nn.Module, x: Tensor, path: Path) -> None:
    """The exporter by tracing: the newer one needs a further package, and converts down to opset 13."""
    import onnx

    with torch.no_grad(), _jit_warnings_silenced():
        torch.onnx.export(
            module, (x,), str(path), dynamo=False, opset_version=ONNX_OPSET, input_names=["input"],
        )  # fmt: skip
    onnx.checker.check_model(str(path), full_check=True)


def require_package(package: str, purpose: str, extra: str) -> None:
    """Refuse early, and say what to install.

    Raises:
        ConfigError: the package is not installed.
    """
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise ConfigError(
            f"{purpose} needs the package '{package}': install hadas with the extra [{extra}]"
        ) from error


@contextmanager
def _jit_warnings_silenced() -> Iterator[None]:
    """Torch 2.9 and newer call TorchScript and its ONNX exporter deprecated.

    They stay: TorchScript is what the torch of a Jetson reads.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is deprecated", category=FutureWarning)
        warnings.filterwarnings(
            "ignore", message=r"`torch\.jit\.\w+` is deprecated", category=DeprecationWarning
        )
        warnings.filterwarnings(
            "ignore", message=r"You are using the legacy TorchScript", category=DeprecationWarning
        )
        warnings.filterwarnings("ignore", message=r"The feature will be removed", category=DeprecationWarning)
        # Shapes are constants of an exported program, as they should be.
        warnings.filterwarnings("ignore", message="Converting a tensor to a Python")
        yield
