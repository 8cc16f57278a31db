"""The table of layer costs: filled by zigzag-dse once, kept, shared, and read without it."""

import multiprocessing
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import sqlalchemy as sa
import yaml

from hadas.datasets.store import Store
from hadas.errors import AcceleratorError
from hadas.measurement.accelerator import CORE_STYLES, CoreStyle, LayerCost, LayerSignature, LayerTable
from hadas.measurement.accelerator.descriptions import describe
from hadas.measurement.accelerator.evaluation import evaluate
from hadas.measurement.accelerator.table import layer_costs

pytest.importorskip("zigzag", reason="zigzag-dse is not installed")

TPU, META, EYERISS = (CORE_STYLES[name] for name in ("edge-tpu", "meta-prototype", "eyeriss"))


def linear(inputs: int, outputs: int, bits: int = 8) -> LayerSignature:
    return LayerSignature("linear", inputs, outputs, 1, 1, 1, 1, bits, bits)


def pool(bits: int = 8) -> LayerSignature:
    return LayerSignature("pool", 16, 16, 32, 8, 8, 1, bits, bits)


def entries(store: Store) -> int:
    with store.engine.connect() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(layer_costs)).scalar_one()


def test_what_was_filled_once_is_read_ever_after(store: Store) -> None:
    wanted = [(TPU, linear(256, 10)), (TPU, pool()), (TPU, linear(256, 10))]
    seen: list[tuple[int, int]] = []
    table = LayerTable(store, n_workers=1)
    assert len(table.missing(wanted)) == 2
    assert table.fill(wanted, lambda done, total: seen.append((done, total))).n_evaluated == 2
    assert seen == [(1, 2), (2, 2)]
    # Golden: zigzag-dse 3.9.1's edge_tpu_like at lpf_limit 4.
    assert table.costs(wanted)[TPU, linear(256, 10)] == LayerCost(pytest.approx(252_270, rel=1e-3), 324.0)
    again = LayerTable(store, n_workers=1)
    assert again.fill(wanted).n_evaluated == 0
    assert again.costs(wanted) == table.costs(wanted)
    assert len(LayerTable(store, lpf_limit=5).missing(wanted)) == 2


def test_what_only_moves_data_costs_its_traffic(store: Store) -> None:
    # 16 maps of 32 x 32 bytes in, 4 x 4 out, 8 bytes an access; the description's 700 and 750 pJ.
    cost = LayerTable(store, n_workers=1).costs([(TPU, pool())])[TPU, pool()]
    assert cost == LayerCost(2048 * 700.0 + 32 * 750.0, 2080.0)
    halved = LayerTable(store, n_workers=1).costs([(TPU, pool(4))])[TPU, pool(4)]
    assert halved == LayerCost(cost.energy_pj / 2, cost.cycles / 2)


def test_without_zigzag_a_full_table_answers_and_a_lacking_one_names_the_extra(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = [(TPU, pool())]
    costs = LayerTable(store, n_workers=1).costs(known)
    monkeypatch.setitem(sys.modules, "zigzag", None)
    describe.cache_clear()
    bare = LayerTable(store, n_workers=1)
    assert bare.costs(known) == costs
    with pytest.raises(AcceleratorError, match=r"hadas\[edge\]"):
        bare.costs([(TPU, linear(256, 10))])


def test_entries_of_another_description_or_version_are_not_used(store: Store, tmp_path: Path) -> None:
    text = describe(TPU, 8, 8).hardware
    mine = CoreStyle("mine", str(tmp_path / "mine.yaml"), "edge_tpu_like")
    (tmp_path / "mine.yaml").write_text(text)
    table = LayerTable(store, n_workers=1)
    first = table.costs([(mine, pool())])[mine, pool()]
    changed = yaml.safe_load(text)
    changed["memories"]["dram"]["r_cost"] = 7000
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(changed, sort_keys=False))
    describe.cache_clear()  # as in another process
    second = LayerTable(store, n_workers=1).costs([(mine, pool())])[mine, pool()]
    assert second.energy_pj - first.energy_pj == pytest.approx(2048 * 6300)
    assert entries(store) == 2
    with store.transaction() as connection:
        connection.execute(layer_costs.update().values(zigzag_version="2.0"))
    assert len(LayerTable(store).missing([(mine, pool())])) == 1


def _fill(url: str, sizes: tuple[int, ...]) -> None:
    store = Store(url)
    LayerTable(store, n_workers=1).fill(
        [(TPU, LayerSignature("pool", n, n, 8, 2, 2, 1, 8, 8)) for n in sizes]
    )
    store.close()


def test_processes_that_fill_one_table_share_it(store: Store) -> None:
    context = multiprocessing.get_context("fork")
    crowd = [context.Process(target=_fill, args=(store.url, tuple(range(1, 25)))) for _ in range(3)]
    store.close()
    for process in crowd:
        process.start()
    for process in crowd:
        process.join(60)
    assert [process.exitcode for process in crowd] == [0, 0, 0]
    assert entries(store) == 24


def test_a_fill_that_is_interrupted_goes_on_where_it_was(store: Store) -> None:
    wanted = [(TPU, pool(bits)) for bits in (2, 4, 8, 16)]

    def interrupt(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LayerTable(store, n_workers=1).fill(wanted, interrupt)
    assert entries(store) == 2
    assert LayerTable(store, n_workers=1).fill(wanted).n_evaluated == 2


def test_a_fill_in_worker_processes_gives_what_one_process_gives(store: Store, tmp_path: Path) -> None:
    wanted = [(TPU, pool(bits)) for bits in (4, 8, 32)]
    other = Store(str(tmp_path / "other.db"))
    assert LayerTable(store, n_workers=2).costs(wanted) == LayerTable(other, n_workers=1).costs(wanted)
    other.close()


def test_a_layer_that_cannot_be_mapped_is_named_and_all_others_are_kept(store: Store, tmp_path: Path) -> None:
    hardware = yaml.safe_load(describe(TPU, 8, 8).hardware)
    hardware["memories"]["rf_1B"]["size"] = 4  # too small for one 8-bit word
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(hardware, sort_keys=False))
    tiny = CoreStyle("tiny", str(tmp_path / "tiny.yaml"), "edge_tpu_like")
    table = LayerTable(store, n_workers=1)
    with pytest.raises(AcceleratorError, match=r"'tiny'.*1 of 2 layers.*linear 128->10, 8x8 bits"):
        table.fill([(tiny, linear(128, 10)), (tiny, pool())])
    assert table.missing([(tiny, linear(128, 10)), (tiny, pool())]) == ((tiny, linear(128, 10)),)


def test_floating_point_fits_registers_that_hold_as_many_words(store: Store) -> None:
    packaged, derived = (yaml.safe_load(describe(TPU, bits, bits).hardware) for bits in (8, 32))
    weights, sums = "rf_1B", "rf_2B"
    for name, factor in ((weights, 4), (sums, 2)):  # accumulators: 16 bits for 8-bit operands, 32 for 32
        before, after = packaged["memories"][name], derived["memories"][name]
        assert (after["size"], after["r_cost"]) == (factor * before["size"], factor * before["r_cost"])
        assert [p["bandwidth_max"] for p in after["ports"]] == [
            factor * p["bandwidth_max"] for p in before["ports"]
        ]
    assert [*derived["memories"]] == [*packaged["memories"]]
    for name in packaged["memories"].keys() - {weights, sums}:
        assert derived["memories"][name] == packaged["memories"][name]
    assert describe(TPU, 4, 4) == describe(TPU, 8, 8)
    by_bits = [evaluate(TPU, linear(128, 10, bits), 4).cost for bits in (4, 8, 32)]
    assert all(low.energy_pj < high.energy_pj for low, high in pairwise(by_bits))


def test_every_style_has_a_cost(store: Store) -> None:
    signature = LayerSignature("depthwise", 8, 8, 4, 3, 1, 8, 8, 8)
    costs = LayerTable(store, n_workers=1).costs([(style, signature) for style in (TPU, META, EYERISS)])
    assert len({cost.energy_pj for cost in costs.values()}) == 3


def test_a_mapping_of_ones_own_unrolls_depthwise_layers_in_its_own_way(store: Store, tmp_path: Path) -> None:
    mapping = yaml.safe_load(describe(TPU, 8, 8).mapping)
    depthwise = {
        **mapping[0],
        "name": "depthwise",
        "spatial_mapping": {**mapping[0]["spatial_mapping"], "D1": ["G, 8"]},
    }
    (tmp_path / "grouped.yaml").write_text(yaml.safe_dump([*mapping, depthwise], sort_keys=False))
    grouped = CoreStyle("grouped", "edge_tpu_like", str(tmp_path / "grouped.yaml"))
    signature = LayerSignature("depthwise", 16, 16, 8, 3, 1, 16, 8, 8)
    costs = LayerTable(store, n_workers=1).costs([(TPU, signature), (grouped, signature)])
    assert costs[grouped, signature].cycles < costs[TPU, signature].cycles


@pytest.mark.parametrize(
    ("style", "part"),
    [(CoreStyle("x", "no_such_core"), "no_such_core"), (CoreStyle("x", "/no/such.yaml"), "correct the path")],
)
def test_a_description_that_is_not_there_is_named(store: Store, style: CoreStyle, part: str) -> None:
    with pytest.raises(AcceleratorError, match=part):
        LayerTable(store).fill([(style, pool())])
    with pytest.raises(AcceleratorError, match="at least 1"):
        LayerTable(store, n_workers=0)
