"""What a GPU may do to float32 numbers while a supernet trains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def cuda_arithmetic(precision: str) -> Iterator[None]:
    """What CUDA may do to float32, for the whole process while the block runs; no effect on CPUs.

    ``float32`` means float32: convolutions and matrix products leave TF32, cuDNN's default, only to
    ``bfloat16``, where what stays in float32 need not be more exact than the rest.  Only repeatable
    convolution algorithms are used, so that a training that goes on ends like one that was never
    stopped.
    """
    cudnn = torch.backends.cudnn
    formats: tuple[Any, ...] = (cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
    before = [each.fp32_precision for each in formats], cudnn.deterministic, cudnn.benchmark
    for each in formats:
        each.fp32_precision = "tf32" if precision == "bfloat16" else "ieee"
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        earlier, cudnn.deterministic, cudnn.benchmark = before
        for each, format_before in zip(formats, earlier, strict=True):
            each.fp32_precision = format_before
