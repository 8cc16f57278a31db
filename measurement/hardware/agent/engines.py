"""The engines that a device may have: TorchScript by PyTorch, ONNX by ONNX Runtime or by ``trtexec``.

They are imported, or looked for, only when a program is loaded.

Python 3.6 and the standard library alone.  Units: seconds on ``time.monotonic``.
"""

import importlib
import importlib.util
import json
import math
import os
import shutil
import subprocess
import tempfile
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from .children import dies_with_parent

TRTEXEC_PLACES = ("/usr/src/tensorrt/bin/trtexec", "/usr/local/tensorrt/bin/trtexec")
_TRTEXEC_WARM_UP_MS = 200  # of every invocation, before it records
_TRTEXEC_SPARE_S = 3.0  # a warm-up may take longer than expected
_SEED = 0

Message = Dict[str, Any]
Block = Tuple[float, float, List[float]]


class WorkloadError(Exception):
    """A request that cannot be done; becomes an error reply."""

    def __init__(self, message: str, field: str = "", value: Any = None, remedy: str = "") -> None:
        super().__init__(message)
        self.field, self.value, self.remedy = field, value, remedy

    def reply(self) -> Message:
        """The error as the agent passes it on."""
        error = {"type": "workload", "message": str(self), "field": self.field, "value": self.value}
        error["remedy"] = self.remedy
        return {"ok": False, "error": error}


def find_trtexec() -> Optional[str]:
    """Path of TensorRT's ``trtexec``, which JetPack keeps off the search path."""
    found = shutil.which("trtexec")
    if found:
        return found
    for place in TRTEXEC_PLACES:
        if os.access(place, os.X_OK):
            return place
    return None


def installed_engines() -> List[str]:
    """Engines that this device has, without importing them."""
    names = [name for name in ("torch", "onnxruntime") if importlib.util.find_spec(name) is not None]
    return names + (["trtexec"] if find_trtexec() else [])


class Program:
    """One file to run: what it is called, where it lies, and the inputs it takes."""

    def __init__(self, fields: Message) -> None:
        for field in ("name", "path", "format", "inputs"):
            if field not in fields:
                raise WorkloadError("a program needs the field '%s'" % field, "programs." + field)
        self.name = str(fields["name"])
        self.path = str(fields["path"])
        self.format = str(fields["format"])
        self.inputs = [[int(extent) for extent in shape] for shape in fields["inputs"]]
        self.dtype = str(fields.get("dtype", "fp32"))
        if self.dtype not in ("fp32", "fp16"):
            raise WorkloadError("dtype is fp32 or fp16", "programs.dtype", self.dtype)
        if not os.path.isfile(self.path):
            raise WorkloadError(
                "program %s: no file %s on the device" % (self.name, self.path), "programs.path"
            )


class TorchEngine:
    """TorchScript by PyTorch, on CUDA where there is one."""

    formats = ("torchscript",)

    def __init__(self, programs: Sequence[Program], processor: str, n_threads: Optional[int]) -> None:
        torch = importlib.import_module("torch")  # type: Any

        self._torch = torch
        on_gpu = processor != "cpu" and torch.cuda.is_available()
        if processor == "gpu" and not on_gpu:
            raise WorkloadError("torch %s sees no CUDA device" % torch.__version__, "processor", processor,
                                "install NVIDIA's build of PyTorch for this JetPack")  # fmt: skip
        self._device = torch.device("cuda" if on_gpu else "cpu")
        if n_threads:
            torch.set_num_threads(n_threads)
        self._modules = {}  # type: Dict[str, Tuple[Any, List[Any]]]
        for program in programs:
            module = torch.jit.load(program.path, map_location=self._device).eval()
            self._modules[program.name] = (module, self._inputs(program))
        self.description = "torch %s %s" % (torch.__version__, self._device.type)

    def _inputs(self, program: Program) -> List[Any]:
        torch = self._torch
        generator = torch.Generator().manual_seed(_SEED)
        dtype = torch.float16 if program.dtype == "fp16" else torch.float32
        return [
            torch.rand(*shape, generator=generator).to(device=self._device, dtype=dtype)
            for shape in program.inputs
        ]

    def runner(self, name: str) -> Callable[[], None]:
        """One synchronised inference of a program."""
        torch = self._torch
        module, inputs = self._modules[name]
        if self._device.type == "cpu":

            def run_on_cpu() -> None:
                with torch.no_grad():
                    module(*inputs)

            return run_on_cpu
        synchronize = torch.cuda.synchronize

        def run_on_gpu() -> None:
            with torch.no_grad():
                module(*inputs)
            synchronize()

        return run_on_gpu

    def decider(self, n_classes: int) -> Callable[[], bool]:
        """One decision: scores from the device, softmax, maximum, comparison."""
        torch = self._torch
        scores = torch.rand(1, n_classes, generator=torch.Generator().manual_seed(_SEED)).to(self._device)

        def decide() -> bool:
            return bool(torch.softmax(scores.to("cpu").float(), 1).max() >= 0.5)

        return decide


class OnnxRuntimeEngine:
    """ONNX by ONNX Runtime: TensorRT's provider if it can, else CUDA's, else the CPU's."""

    formats = ("onnx",)

    def __init__(self, programs: Sequence[Program], processor: str, n_threads: Optional[int]) -> None:
        onnxruntime = importlib.import_module("onnxruntime")  # type: Any

        self._ort = onnxruntime
        self._processor = processor
        self._n_threads = n_threads
        self._sessions = {program.name: self._session(program) for program in programs}
        self._inputs = {p.name: self._feeds(p, self._sessions[p.name]) for p in programs}
        used = sorted({session.get_providers()[0] for session in self._sessions.values()})
        if processor == "gpu" and "CPUExecutionProvider" in used:
            raise WorkloadError(
                "onnxruntime %s cannot use the GPU: it fell back to the CPU" % onnxruntime.__version__,
                "processor", processor, "install onnxruntime-gpu for this JetPack",
            )  # fmt: skip
        self._on_gpu = used != ["CPUExecutionProvider"]
        self.description = "onnxruntime %s %s" % (onnxruntime.__version__, "+".join(used))

    def _session(self, program: Program) -> Any:
        available = self._ort.get_available_providers()
        providers = []  # type: List[Any]
        if self._processor != "cpu":
            if "TensorrtExecutionProvider" in available:
                providers.append(("TensorrtExecutionProvider", tensorrt_options(program)))
            if "CUDAExecutionProvider" in available:
                providers.append("CUDAExecutionProvider")
        options = self._ort.SessionOptions()
        if self._n_threads:
            options.intra_op_num_threads = self._n_threads
        return self._ort.InferenceSession(
            program.path, sess_options=options, providers=[*providers, "CPUExecutionProvider"]
        )

    def _feeds(self, program: Program, session: Any) -> Dict[str, Any]:
        numpy = importlib.import_module("numpy")  # type: Any  # ONNX Runtime needs it too
        random = numpy.random.RandomState(_SEED)
        feeds = {}
        for declared, shape in zip(session.get_inputs(), program.inputs):  # noqa: B905
            takes = "fp16" if declared.type == "tensor(float16)" else "fp32"
            if takes != program.dtype and session.get_providers()[0] != "TensorrtExecutionProvider":
                raise WorkloadError(
                    "program %s takes %s, not %s" % (program.name, takes, program.dtype), "programs.dtype",
                    program.dtype, "export it in the type that is asked for",
                )  # fmt: skip
            kind = numpy.float16 if takes == "fp16" else numpy.float32
            feeds[declared.name] = random.random_sample(shape).astype(kind)
        return feeds

    def runner(self, name: str) -> Callable[[], None]:
        """One synchronised inference of a program; on a GPU its tensors stay there."""
        session, feeds = self._sessions[name], self._inputs[name]
        if not self._on_gpu:

            def run_on_cpu() -> None:
                session.run(None, feeds)

            return run_on_cpu
        binding = session.io_binding()
        for key, value in feeds.items():
            binding.bind_ortvalue_input(key, self._ort.OrtValue.ortvalue_from_numpy(value, "cuda", 0))
        for output in session.get_outputs():
            binding.bind_output(output.name, "cuda")

        def run_on_gpu() -> None:
            session.run_with_iobinding(binding)  # waits for the device

        return run_on_gpu

    def decider(self, n_classes: int) -> Callable[[], bool]:
        """One decision: scores from the device, softmax, maximum, comparison."""
        numpy = importlib.import_module("numpy")  # type: Any

        scores = numpy.random.RandomState(_SEED).random_sample((1, n_classes)).astype(numpy.float32)
        place = ("cuda", 0) if self._on_gpu else ("cpu", 0)
        on_device = self._ort.OrtValue.ortvalue_from_numpy(scores, *place)

        def decide() -> bool:
            host = on_device.numpy()
            powers = numpy.exp(host - host.max())
            return bool(powers.max() / powers.sum() >= 0.5)

        return decide


def tensorrt_options(program: Program) -> Dict[str, Any]:
    """Options of ONNX Runtime's TensorRT provider: it keeps the engine that it builds beside the program.

    A second engine would be another program (see :class:`TrtexecEngine`), and takes minutes to build.  Old
    releases name an engine by its graph alone, so that every program, in every type, has a folder of its own.
    """
    folder = "%s.%s.engines" % (program.path, program.dtype)
    os.makedirs(folder, exist_ok=True)
    if os.geteuid() == 0:  # who brought the program must be able to remove what lies beside it
        owner = os.stat(program.path)
        os.chown(folder, owner.st_uid, owner.st_gid)
    options = {"trt_engine_cache_enable": True, "trt_engine_cache_path": folder}  # type: Dict[str, Any]
    if program.dtype == "fp16":
        options["trt_fp16_enable"] = True
    return options


class TrtexecEngine:
    """ONNX by TensorRT's own command: an engine is built once, then run for a while at a time."""

    formats = ("onnx",)

    def __init__(self, programs: Sequence[Program], processor: str, n_threads: Optional[int]) -> None:
        del n_threads
        if processor == "cpu":
            raise WorkloadError("trtexec runs on the GPU alone", "processor", processor)
        self._command = find_trtexec() or "trtexec"
        self._engines = {program.name: self._built(program) for program in programs}
        self.description = ("trtexec %s" % trtexec_version(self._command)).strip()

    def _built(self, program: Program) -> str:
        """Path of the program's engine, which is built unless it lies there from an earlier load.

        TensorRT chooses kernels by timing them, so that a second engine would be another program: rows at
        other clocks must run the first one, as a deployed network does.  A shortest possible run
        follows the building, as the option to leave it out has had two names.
        """
        engine = "%s.%s.engine" % (program.path, program.dtype)
        if os.path.isfile(engine):
            return engine
        partial = engine + ".part"
        command = [
            self._command, "--onnx=" + program.path, "--saveEngine=" + partial,
            "--iterations=1", "--duration=0", "--warmUp=0",
        ]  # fmt: skip
        if program.dtype == "fp16":
            command.append("--fp16")
        done = _run(command)
        if done.returncode != 0 or not os.path.isfile(partial):
            raise WorkloadError(
                "trtexec cannot build an engine of %s: %s" % (program.name, _last_error(done.stdout))
            )
        os.rename(partial, engine)
        return engine

    def invoke(
        self, name: str, n_runs: int, seconds: float, should_stop: Callable[[], bool]
    ) -> Optional[List[Tuple[float, float]]]:
        """Run one program for a while; longer than expected if that is long, since what follows has a gap before it.

        Returns:
            (start, end) of every inference; ``None`` if it was asked to stop first.
        """
        spare_s = _TRTEXEC_SPARE_S if seconds > 1.0 else 0.0
        handle, times = tempfile.mkstemp(suffix=".json")
        os.close(handle)
        command = [
            self._command, "--loadEngine=" + self._engines[name], "--iterations=%d" % n_runs,
            "--duration=%d" % math.ceil(seconds + spare_s), "--warmUp=%d" % _TRTEXEC_WARM_UP_MS,
            "--useSpinWait", "--exportTimes=" + times,
        ]  # fmt: skip
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                universal_newlines=True, preexec_fn=dies_with_parent(),
            )  # fmt: skip
            lines = []  # type: List[Tuple[float, str]]
            reader = threading.Thread(target=_collect, args=(process.stdout, lines))
            reader.start()
            began = time.monotonic()
            while process.poll() is None:
                if should_stop():
                    process.kill()
                    process.wait()
                    reader.join()
                    return None
                time.sleep(0.02)
            reader.join()
            output = "".join(line for _, line in lines)
            if process.returncode != 0:
                raise WorkloadError("trtexec failed on %s: %s" % (name, _last_error(output)))
            # Times in the file count from the moment of this line; trtexec flushes every line.
            starts = [stamp for stamp, line in lines if "Starting inference" in line]
            with open(times) as stream:
                return parse_trtexec_times(json.load(stream), starts[0] if starts else began)
        finally:
            os.unlink(times)

    def decider(self, n_classes: int) -> Callable[[], bool]:
        """One decision on scores that are on the host: a command line gives no tensor on the device."""
        scores = [math.sin(index) for index in range(n_classes)]

        def decide() -> bool:
            highest = max(scores)
            powers = [math.exp(score - highest) for score in scores]
            return max(powers) / sum(powers) >= 0.5

        return decide


def parse_trtexec_times(entries: Any, began_s: float) -> List[Tuple[float, float]]:
    """(start, end) on the clock of ``began_s`` of the computations in ``trtexec --exportTimes``.

    Old releases list the warm-up as well, new ones leave it out; entries within it are dropped, unless
    there are no others.
    """
    all_runs = []
    for entry in entries:
        start_ms, end_ms = float(entry["startComputeMs"]), float(entry["endComputeMs"])
        all_runs.append((start_ms, end_ms))
    timed = [run for run in all_runs if run[0] >= _TRTEXEC_WARM_UP_MS] or all_runs
    return [(began_s + start_ms / 1e3, began_s + end_ms / 1e3) for start_ms, end_ms in sorted(timed)]


def blocks_of(runs: Sequence[Tuple[float, float]], runs_per_block: int) -> List[Block]:
    """Whole blocks of consecutive inferences; a rest shorter than a block counts only if it is alone."""
    blocks = []  # type: List[Block]
    for first in range(0, len(runs), runs_per_block):
        part = runs[first : first + runs_per_block]
        if len(part) == runs_per_block or not blocks:
            blocks.append((part[0][0], part[-1][1], [end - start for start, end in part]))
    return blocks


def _collect(stream: Any, lines: List[Tuple[float, str]]) -> None:
    for line in stream:
        lines.append((time.monotonic(), line))


def _last_error(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "[E]" in line or "rror" in line]
    return (errors or lines or ["no output"])[-1]


def _run(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        universal_newlines=True, check=False, preexec_fn=dies_with_parent(),
    )  # fmt: skip


def trtexec_version(command: str) -> str:
    """From the banner that stands before its help, e.g. ``TensorRT v8201``; empty if there is none."""
    _, mark, rest = _run([command, "--help"]).stdout.partition("[TensorRT v")
    return "TensorRT v" + rest.partition("]")[0] if mark else ""


ENGINES = {"torch": TorchEngine, "onnxruntime": OnnxRuntimeEngine, "trtexec": TrtexecEngine}  # type: Dict[str, Any]


def choose_engine(wanted: str, formats: Sequence[str]) -> str:
    """Name of the engine that runs programs of the given formats.

    Raises:
        WorkloadError: it is not on this device, or reads another format.
    """
    have = installed_engines()
    told = "engines on this device: %s" % (", ".join(have) or "none")
    if wanted != "auto":
        if wanted not in ENGINES:
            raise WorkloadError("no engine '%s'; %s" % (wanted, told), "engine", wanted)
        if wanted not in have:
            raise WorkloadError(
                "engine '%s' is not installed; %s" % (wanted, told), "engine", wanted, "install it"
            )
    for name in [wanted] if wanted != "auto" else have:
        if all(form in ENGINES[name].formats for form in formats):
            return name
    raise WorkloadError(
        "engine '%s' cannot run %s programs; %s" % (wanted, " and ".join(sorted(set(formats))), told),
        "engine", wanted, "export torchscript for torch, onnx for onnxruntime or trtexec",
    )  # fmt: skip


def first_reason(error: BaseException) -> str:
    """Type and first line: engines append whole traces."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    if isinstance(error, WorkloadError) or not lines:
        return lines[0] if lines else type(error).__name__
    # TorchScript puts what went wrong last.
    return "%s: %s" % (
        type(error).__name__,
        lines[-1] if "Traceback" in lines[0] or "TorchScript" in lines[0] else lines[0],
    )
