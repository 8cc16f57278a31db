"""One layer on one core, by zigzag-dse's analytical cost model.

Layers run one after another, each from off-chip memory to off-chip memory; zigzag searches the order of loops with the
least energy-latency product.  What has no multiply-accumulates (max-pool, residual sum) is data movement alone:
its input is read from off-chip memory once, and its output written.
"""

from __future__ import annotations

import inspect
import logging
import math
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import AcceleratorError
from .cores import CoreStyle
from .descriptions import CoreDescription, describe, off_chip_memory
from .signatures import LayerCost, LayerSignature

LPF_LIMIT = 4
"""Loops that zigzag permutes in full; at 6 a MobileNetV2 takes ten times as long and costs 1 % less energy."""
_NEEDED = {
    "opt", "dump_folder", "pickle_filename", "lpf_limit", "nb_spatial_mappings_generated", "loma_show_progress_bar",
}  # fmt: skip
_UPGRADE = "install hadas with the extra 'edge': pip install 'hadas[edge]'"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What came of one layer on one core.

    Attributes:
        cost: ``None`` if the cost model has none, with its ``reason``.
        cpu_seconds: it took.
    """

    style: CoreStyle
    signature: LayerSignature
    cost: LayerCost | None
    reason: str
    cpu_seconds: float


def evaluate(style: CoreStyle, signature: LayerSignature, lpf_limit: int) -> Evaluation:
    """Model one layer on one core, in this process.

    A layer that the cost model cannot map is an evaluation with its reason.

    Raises:
        AcceleratorError: zigzag-dse is missing, or is not a version that works.
    """
    began = time.process_time()
    description = describe(style, signature.weight_bits, signature.activation_bits)
    cost, reason = None, ""
    if signature.multiplies:
        try:
            energy_pj, cycles = run_zigzag([workload_entry(signature)], description, lpf_limit)
            cost = LayerCost(energy_pj, cycles)
        except AcceleratorError:
            raise
        except (
            Exception
        ) as error:  # whatever a cost model of others raises on a layer is that layer's failure
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    else:
        cost = _data_movement(style, signature, description)
    return Evaluation(style, signature, cost, reason, time.process_time() - began)


def run_zigzag(workload: Any, description: CoreDescription, lpf_limit: int) -> tuple[float, float]:
    """Energy and latency of a workload on one core, as zigzag's own programming interface gives them.

    Args:
        workload: a list of layers, an ONNX model, or the path of one.
        lpf_limit: see :data:`LPF_LIMIT`.

    Returns:
        pJ and cycles.

    Raises:
        AcceleratorError: zigzag-dse is missing, or is not a version that works.
    """
    with _quietly(), tempfile.TemporaryDirectory(prefix="hadas-zigzag-") as folder:
        try:
            from zigzag.api import get_hardware_performance_zigzag as performance
        except ImportError as error:
            raise AcceleratorError(f"zigzag-dse cannot be imported ({error}); {_UPGRADE}") from error
        missing = _NEEDED - {*inspect.signature(performance).parameters}
        if missing:
            raise AcceleratorError(
                f"zigzag-dse {description.zigzag_version} knows no {sorted(missing)}; {_UPGRADE}"
            )
        hardware, mapping = Path(folder, "hardware.yaml"), Path(folder, "mapping.yaml")
        hardware.write_text(description.hardware, encoding="utf-8")
        mapping.write_text(description.mapping, encoding="utf-8")
        energy_pj, cycles, _ = performance(
            workload,
            str(hardware),
            str(mapping),
            opt="EDP",
            dump_folder=folder,
            pickle_filename=str(Path(folder, "layers.pickle")),
            lpf_limit=lpf_limit,
            nb_spatial_mappings_generated=1,
            loma_show_progress_bar=False,
        )
    return float(energy_pj), float(cycles)


@contextmanager
def _quietly() -> Iterator[None]:
    """zigzag sets up the root logger, and reports each layer on it; whoever calls hadas keeps theirs as it is."""
    root = logging.getLogger()
    handlers, disabled, level = root.handlers[:], logging.root.manager.disable, root.level
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        root.handlers[:] = handlers
        root.setLevel(level)


def workload_entry(signature: LayerSignature) -> dict[str, Any]:
    """A layer that multiplies, in the words of zigzag's workload lists."""
    s = signature
    entry: dict[str, Any] = {
        "id": 0,
        "name": s.operation,
        "operand_source": {"W": 0, "I": 0},
        "operand_precision": {
            "W": s.weight_bits, "I": s.activation_bits, "O": s.accumulator_bits, "O_final": s.activation_bits,
        },
    }  # fmt: skip
    if s.operation == "linear":
        return entry | {
            "operator_type": "Gemm",
            "equation": "O[d][k]+=I[d][c]*W[c][k]",
            "dimension_relations": [],
            "loop_dims": ["C", "D", "K"],
            "loop_sizes": [s.in_channels, 1, s.out_channels],
        }
    padding = s.kernel // 2
    per_group = (s.out_channels // s.groups, s.groups, s.out_side, s.out_side, s.in_channels // s.groups)
    return entry | {
        "operator_type": "Conv",
        "equation": "O[b][g][k][oy][ox]+=W[g][k][c][fy][fx]*I[b][g][c][iy][ix]",
        "dimension_relations": [f"ix={s.stride}*ox+1*fx", f"iy={s.stride}*oy+1*fy"],
        "loop_dims": ["B", "K", "G", "OX", "OY", "C", "FX", "FY"],
        "loop_sizes": [1, *per_group, s.kernel, s.kernel],
        "pr_loop_dims": ["IX", "IY"],
        "pr_loop_sizes": [s.in_side, s.in_side],
        "padding": [[padding, padding], [padding, padding]],
    }


def _data_movement(style: CoreStyle, signature: LayerSignature, description: CoreDescription) -> LayerCost:
    memory = off_chip_memory(description, style.name)
    reads = math.ceil(signature.input_bits / memory.word_bits)
    writes = math.ceil(signature.output_bits / memory.word_bits)
    cycles = reads + writes if memory.has_one_port else max(reads, writes)
    return LayerCost(reads * memory.read_pj + writes * memory.write_pj, float(cycles))
