"""Layer tables whose costs are invented, so that every sum can be done by hand."""

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from hadas.datasets.store import Store
from hadas.measurement.accelerator import CoreStyle, LayerCost, LayerSignature, LayerTable, layer_signature
from hadas.measurement.accelerator.table import layer_costs
from hadas.spaces import QuantizedExitSpace

SCALES = {"edge-tpu": 1, "meta-prototype": 3, "eyeriss": 7}


@dataclass(frozen=True)
class Invented:
    """Entries as an earlier fill would have left them, for every layer of a space at 4, 8 and 32 bits."""

    store: Store

    def cost(self, style: CoreStyle, signature: LayerSignature) -> LayerCost:
        """Depends on all that a cost may depend on; whole numbers, so that sums are exact."""
        work = signature.in_channels * signature.out_channels + 5 * signature.kernel + signature.in_side
        scale = SCALES[style.name]
        return LayerCost(
            float(scale * work * signature.weight_bits), float(scale * work + signature.activation_bits)
        )

    def table(self, space: QuantizedExitSpace, styles: tuple[CoreStyle, ...]) -> LayerTable:
        """A full table."""
        table = LayerTable(self.store, n_workers=1)
        units = [unit for segment in space.segments for unit in segment]
        units += [space.head(position, head_type) for position in range(11) for head_type in (1, 2)]
        signatures = {
            layer_signature(layer, bits) for unit in units for layer in unit.layers for bits in (4, 8, 32)
        }
        with self.store.transaction() as connection:
            connection.execute(
                layer_costs.insert(),
                [
                    self._row(style, signature)
                    for style in dict.fromkeys(styles)
                    for signature in sorted(signatures)
                ],
            )
        return table

    def _row(self, style: CoreStyle, signature: LayerSignature) -> dict[str, object]:
        cost = self.cost(style, signature)
        return {
            "key": f"{style.name} {signature}", "core": style.name, "signature": asdict(signature), "lpf_limit": 4,
            "description": "invented", "zigzag_version": "0", "seconds": 0.0, "energy_pj": cost.energy_pj,
            "cycles": cost.cycles,
        }  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(str(tmp_path / "store.db"))
    yield store
    store.close()


@pytest.fixture
def invented(store: Store, monkeypatch: pytest.MonkeyPatch) -> Invented:
    """Invented tables, where there is no zigzag-dse: there a table answers from what it holds."""
    monkeypatch.setitem(sys.modules, "zigzag", None)
    return Invented(store)
