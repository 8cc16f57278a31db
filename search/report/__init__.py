"""The report: one self-contained page, and PNG and CSV beside it."""

from __future__ import annotations

from .content import (
    AccuracySpread,
    CalibrationRow,
    ChosenRow,
    DesignRow,
    HypervolumeTrace,
    LedgerKind,
    LedgerRow,
    PolicyNetwork,
    PolicyRow,
    PredictedRow,
    PredictionCheck,
    ReportContent,
    RoundRow,
)
from .export import write_report

__all__ = [
    "AccuracySpread", "CalibrationRow", "ChosenRow", "DesignRow", "HypervolumeTrace", "LedgerKind", "LedgerRow",
    "PolicyNetwork", "PolicyRow", "PredictedRow", "PredictionCheck", "ReportContent", "RoundRow", "write_report",
]  # fmt: skip
