"""Golden values: what the agent finds on every recorded board."""

import json
import shutil

import pytest

from hadas.measurement.hardware.agent.clocks import Clocks
from hadas.measurement.hardware.agent.describe import describe
from hadas.measurement.hardware.agent.discovery import discover_clocks
from hadas.measurement.hardware.agent.identity import serial_hash
from hadas.measurement.hardware.agent.journal import Journal
from hadas.measurement.hardware.agent.rails import discover_rails
from hadas.measurement.hardware.agent.sysfs import SysFs

from .fake_board import FLAVOURS, FakeBoard, contents
from .trees import FIXTURES, GPU, TX2_CPU_HZ, TX2_EMC_HZ, TX2_GPU_HZ, build_tx2, copy_tree, recorded_trees

TX2_RAILS = ["VDD_SYS_GPU", "VDD_SYS_SOC", "VDD_4V0_WIFI", "VDD_IN", "VDD_SYS_CPU", "VDD_SYS_DDR"]
AGX_RAILS = ["GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"]
PAIRS = {"cpu0": [0, 1], "cpu2": [2, 3], "cpu4": [4, 5], "cpu6": [6, 7]}

# Per tree: GPU steps, highest GPU clock in Hz, clusters, memory steps, sensor, rails, scope, flags.
BOARDS = {
    "tx2_l4t32_late": (
        13, 1_300_500_000, {"cpu0": [0, 3, 4, 5], "cpu1": [1, 2]}, 11, "ina3221x", TX2_RAILS, ["VDD_IN"], [],
    ),
    "tx2_l4t32_early": (
        13, 1_300_500_000, {"cpu0": [0, 3, 4, 5], "cpu1": [1, 2]}, 11, "ina3221x", TX2_RAILS, ["VDD_IN"], [],
    ),
    "tx2_l4t32_denver_off": (
        13, 1_300_500_000, {"cpu0": [0, 3, 4, 5]}, 11, None, [], [], ["cores-offline:1,2", "emc-capped:1600000000"],
    ),
    "agx_xavier_l4t32": (14, 1_377_000_000, PAIRS, 9, "ina3221x", AGX_RAILS, AGX_RAILS, []),
    "agx_xavier_l4t35": (14, 1_377_000_000, PAIRS, 9, "ina3221", AGX_RAILS, AGX_RAILS, []),
    "orin_nano_l4t36": (
        5, 624_750_000, {"cpu0": [0, 1, 2, 3], "cpu4": [4, 5]}, 3, "ina3221",
        ["VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"], ["VDD_IN"], [],
    ),
    "vm_no_sensors": (0, 0, {}, 0, None, [], [], []),
    "x86_rapl": (0, 0, {}, 0, None, [], [], []),
}  # fmt: skip


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    return recorded_trees(tmp_path_factory.mktemp("recorded"))


def found_on(tree):
    fs = SysFs(str(tree))
    return describe(fs, Clocks(fs, Journal(fs, fs.full("var/journal"))), discover_rails(fs), [])


def test_the_facts_hold_eight_boards(trees):
    assert set(trees) == set(BOARDS)


@pytest.mark.parametrize("name", BOARDS)
def test_domains_rails_and_scope_of_a_recorded_board(trees, name):
    gpu_steps, gpu_top_hz, clusters, emc_steps, sensor, rails, scope, flags = BOARDS[name]
    found = found_on(trees[name])
    domains = {domain["name"]: domain for domain in found["domains"]}
    gpu = domains.get("gpu", {"frequencies_hz": []})["frequencies_hz"]
    assert (len(gpu), max(gpu, default=0)) == (gpu_steps, gpu_top_hz)
    assert {key: domain["cores"] for key, domain in domains.items() if key.startswith("cpu")} == clusters
    assert len(domains.get("emc", {"frequencies_hz": []})["frequencies_hz"]) == emc_steps
    assert (found["sensor"] or {"name": None})["name"] == sensor
    assert found["rails"] == rails
    assert found["scope"] == scope
    assert found["flags"] == flags
    assert found["writable"] is bool(domains)
    assert found["has_overcurrent_counter"] is (name == "orin_nano_l4t36")
    json.dumps(found)


def test_frequency_tables_are_those_of_the_device_in_hertz(trees):
    recorded = json.loads((FIXTURES / "freq_tables.json").read_text())
    tx2, agx = recorded["tx2"], recorded["agx_xavier"]
    expected = {
        "tx2_l4t32_late": (tx2["gpu_hz"]["l4t32_late_jp4.6"], tx2["cpu_khz"]["a57"], tx2["emc_hz"]),
        "tx2_l4t32_early": (tx2["gpu_hz"]["l4t32_early_jp4.2.x"], tx2["cpu_khz"]["a57"], tx2["emc_hz"]),
        "agx_xavier_l4t35": (agx["gpu_hz"]["l4t32"], agx["cpu_khz"]["carmel"], agx["emc_hz"]),
    }
    for name, (gpu_hz, cpu_khz, emc_hz) in expected.items():
        tables = {domain["name"]: domain["frequencies_hz"] for domain in found_on(trees[name])["domains"]}
        assert tables["gpu"] == gpu_hz
        assert tables["cpu0"] == [1000 * khz for khz in cpu_khz]
        assert tables["emc"] == emc_hz


def test_a_board_says_what_it_is(trees):
    board = found_on(trees["orin_nano_l4t36"])["board"]
    assert board["model"] == "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
    assert board["compatible"] == ["nvidia,p3768-0000+p3767-0005-super", "nvidia,tegra234"]
    assert board["release"].startswith("# R36 (release), REVISION: 4.7")
    assert board["online_cores"] == [0, 1, 2, 3, 4, 5]
    assert found_on(trees["tx2_l4t32_denver_off"])["board"]["online_cores"] == [0, 3, 4, 5]
    assert found_on(trees["vm_no_sensors"])["board"]["online_cores"] == [0, 1]


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("name", [name for name in BOARDS if BOARDS[name][0]])
def test_every_recorded_board_is_steered_to_both_ends_and_restored(trees, memory_path, name, flavour):
    tree = copy_tree(trees[name], memory_path)
    before = contents(tree)
    board = FakeBoard(str(tree), flavour)
    journal = Journal(board, board.full("var/journal.json"))
    clocks = Clocks(board, journal, pause=lambda seconds: None)
    for end in (0, -1):
        wanted = {key: domain.frequencies_hz[end] for key, domain in clocks.domains.items()}
        result = clocks.set(wanted)
        assert result.actual == wanted
        assert result.flags == ()
    assert journal.restore().problems == ()
    assert board.refused == []
    assert contents(tree) == before


# --- on a tree of our own


@pytest.fixture
def tx2(tmp_path):
    return build_tx2(tmp_path / "tx2")


def test_a_tx2_is_found(tx2):
    found = found_on(tx2)
    assert found["domains"] == [
        {"name": "gpu", "frequencies_hz": list(TX2_GPU_HZ)},
        {"name": "cpu0", "frequencies_hz": list(TX2_CPU_HZ), "cores": [0, 3, 4, 5]},
        {"name": "cpu1", "frequencies_hz": list(TX2_CPU_HZ), "cores": [1, 2]},
        {"name": "emc", "frequencies_hz": list(TX2_EMC_HZ)},
    ]
    assert found["rails"] == ["VDD_SYS_GPU", "VDD_IN", "VDD_SYS_DDR"]
    assert found["board"]["compatible"] == ["nvidia,quill", "nvidia,tegra186"]


def test_a_serial_number_is_never_told(tx2):
    fs = SysFs(str(tx2))
    hashed = serial_hash(fs)
    assert len(hashed) == 16
    assert serial_hash(fs) == hashed
    assert "0324216012345" not in json.dumps(found_on(tx2))
    (tx2 / "proc/device-tree/serial-number").write_text("0324216012346\0")
    assert serial_hash(fs) != hashed


def test_a_gpu_is_known_by_what_gpu_0_stands_for(tx2):
    """A chip of the future: its node's name says nothing."""
    (tx2 / "sys/devices/17000000.gp10b/of_node/name").write_text("accelerator\0")
    assert discover_clocks(SysFs(str(tx2))).domains[0].name == "gpu"
    (tx2 / "sys/devices/gpu.0").unlink()
    clocks = discover_clocks(SysFs(str(tx2)))
    assert [domain.name for domain in clocks.domains] == ["cpu0", "cpu1", "emc"]


def test_a_gpu_that_lists_no_frequencies_is_not_steered(tx2):
    (tx2 / GPU / "available_frequencies").write_text("\n")
    board = FakeBoard(str(tx2))
    clocks = Clocks(board, Journal(board, board.full("var/journal.json")))
    clocks.power_up()
    assert clocks.found.flags == ("gpu-without-table",)
    assert "gpu" not in clocks.domains
    assert board.written == []


def test_other_devfreq_devices_are_not_the_gpu(tx2):
    vic = tx2 / "sys/devices/15340000.vic"
    (vic / "of_node").mkdir(parents=True)
    (vic / "of_node/name").write_text("vic\0")
    (vic / "devfreq").mkdir()
    (vic / "devfreq/device").symlink_to("..")
    (vic / "devfreq/available_frequencies").write_text("1 2 3\n")
    (tx2 / "sys/class/devfreq/15340000.vic").symlink_to("../../devices/15340000.vic/devfreq")
    assert discover_clocks(SysFs(str(tx2))).domains[0].frequencies_hz == TX2_GPU_HZ


def test_a_cluster_without_its_first_core_keeps_its_name(tx2):
    core = tx2 / "sys/devices/system/cpu/cpu1"
    shutil.rmtree(core / "cpufreq")
    (core / "online").write_text("0\n")
    clocks = discover_clocks(SysFs(str(tx2)))
    cluster = {domain.name: domain for domain in clocks.domains}["cpu1"]
    assert cluster.cores == (2,)
    assert clocks.flags == ("cores-offline:1",)


def test_cores_that_share_their_limits_are_written_once(tx2):
    """Newer kernels: one policy folder per cluster, to which every core links."""
    cpus = tx2 / "sys/devices/system/cpu"
    (cpus / "cpufreq").mkdir()
    (cpus / "cpu1/cpufreq").rename(cpus / "cpufreq/policy1")
    shutil.rmtree(cpus / "cpu2/cpufreq")
    for core in (1, 2):
        (cpus / f"cpu{core}/cpufreq").symlink_to("../cpufreq/policy1")
    cluster = {domain.name: domain for domain in discover_clocks(SysFs(str(tx2))).domains}["cpu1"]
    assert cluster.folders == ("sys/devices/system/cpu/cpufreq/policy1",)
    assert cluster.cores == (1, 2)


def test_a_memory_table_without_its_unit_is_not_believed(tx2):
    rates = tx2 / "sys/kernel/debug/bpmp/debug/emc/possible_rates"
    rates.write_text(rates.read_text().replace(" (kHz)", ""))
    clocks = discover_clocks(SysFs(str(tx2)))
    assert "emc" not in [domain.name for domain in clocks.domains]
    assert clocks.flags == ("emc-not-found",)


def test_the_nano_locks_its_memory_through_the_clock_override(tmp_path):
    debug = tmp_path / "sys/kernel/debug"
    files = {
        "clk/override.emc/clk_rate": "1600000000", "clk/override.emc/clk_update_rate": "0",
        "clk/override.emc/clk_state": "0", "clk/emc/clk_possible_rates": "102000 204000 408000 1600000 (kHz)",
        "tegra_bwmgr/emc_min_rate": "204000000", "tegra_bwmgr/emc_max_rate": "1600000000",
    }  # fmt: skip
    for name, text in files.items():
        (debug / name).parent.mkdir(parents=True, exist_ok=True)
        (debug / name).write_text(text + "\n")
    before = contents(tmp_path)
    fs = SysFs(str(tmp_path))
    journal = Journal(fs, str(tmp_path / "var/journal.json"))
    clocks = Clocks(fs, journal, pause=lambda seconds: None, settle_s=0.0)
    (emc,) = clocks.found.domains
    assert emc.frequencies_hz == (204_000_000, 408_000_000, 1_600_000_000)
    clocks.set({"emc": 1_600_000_000})
    assert (debug / "clk/override.emc/clk_state").read_text() == "1\n"
    assert (debug / "clk/override.emc/clk_update_rate").read_text() == "1600000000\n"
    assert (debug / "clk/override.emc/clk_rate").read_text() == "1600000000\n"
    assert journal.restore().problems == ()
    assert contents(tmp_path) == before
