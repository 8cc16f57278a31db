"""Records of quantized early-exit networks: what each network, trained as a whole, gets right.

Exits are trained jointly with the backbone, so a record belongs to one network with its exits, head types
and bits, and to none of their parts.  A failed training is a record too: ``valid`` is false and ``reason``
says why.  Imports with numpy alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from ..errors import RecordError
from ..spaces.quantized import QuantizedNetwork
from .records import OutcomeMatrix


@dataclass(frozen=True)
class QuantizedRecord:
    """One quantized early-exit network, trained, and evaluated on two disjoint splits.

    Attributes:
        session, row_no: identity of the row.
        network: its exits, head types, bits and cores; accuracy does not depend on the cores
            (see :attr:`QuantizedNetwork.trained_id`).
        recipe_id: hash of how it was trained and evaluated, the shared start included.
        split_id: data set and splits.
        calibration: outcomes on the split that thresholds and the search may use; one column per
            exit in use, in order of depth, the final one last.
        test: outcomes on the split that only reports use.
        seconds: what it cost, by step: ``tune``, ``evaluate``.
        valid, reason: an invalid row has no matrices, and says why.
        passing: whether the reason of an invalid row lies with the machine and may be gone another time, so that
            another training is worth it; not so where the network itself cannot be trained, or diverges.
        hardware: what ``seconds`` were spent on.
        start_id: hash of the shared full-precision weights it was tuned from.
    """

    session: str
    row_no: int
    network: QuantizedNetwork
    recipe_id: str
    split_id: str
    calibration: OutcomeMatrix | None
    test: OutcomeMatrix | None
    seconds: Mapping[str, float] = field(default_factory=dict)
    valid: bool = True
    reason: str = ""
    passing: bool = False
    hardware: str = ""
    start_id: str = ""

    def check(self, source: str = "quantized record") -> Self:
        """Refuse a row that contradicts itself.

        Raises:
            RecordError: names the field and the row.
        """
        if not self.valid:
            if not self.reason:
                raise RecordError(
                    "an invalid row needs a reason", source=source, row=self.row_no, field="reason", value=""
                )
            return self
        n_exits = len(self.network.exits)
        for name, matrix in (("calibration", self.calibration), ("test", self.test)):
            if matrix is None:
                raise RecordError(
                    "a valid row needs its outcomes", source=source, row=self.row_no, field=name
                )
            if matrix.n_exits != n_exits:
                raise RecordError(
                    f"network {self.network.letters} has {n_exits} exits in use, and the matrix another number",
                    source=source, row=self.row_no, field=f"{name} columns", value=matrix.n_exits,
                )  # fmt: skip
        return self
