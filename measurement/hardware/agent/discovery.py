"""What can be steered: the clock domains that this board lists, with their own frequency tables.

Nothing is hard-coded that the board can tell: addresses and tables differ between releases of the
same board, and a wrong frequency is accepted in silence.
"""

from typing import Dict, List, NamedTuple, Optional, Tuple, Union

from .identity import CPU_FOLDER, compatible, offline_cores, online_cores
from .sysfs import SysFs, parse_cores

DEVFREQ_FOLDER = "sys/class/devfreq"
DEBUG_FOLDER = "sys/kernel/debug"
GPU_NODE_NAMES = ("gv11b", "gp10b", "ga10b", "gb10b", "gpu")
GPU_ALIASES = ("sys/devices/gpu.0", "sys/devices/platform/gpu.0")
PLATFORM_FOLDERS = ("sys/devices", "sys/devices/platform", "sys/devices/platform/bus@0")
EMC_CAPS = ("sys/kernel/nvpmodel_emc_cap/emc_iso_cap", "sys/kernel/nvpmodel_clk_cap/emc")


class RangeDomain(NamedTuple):
    """A clock that is pinned by making its lower and its upper limit equal: GPU or CPU cluster.

    Attributes:
        name: ``gpu``, or ``cpu`` with the number of the cluster's first core.
        frequencies_hz: ascending.
        hz_per_unit: 1 in devfreq's files, 1000 in cpufreq's.
        folders: one per set of limits; a cluster has one, or one per core that is up.
        cores: those that are up; empty for a GPU.
    """

    name: str
    frequencies_hz: Tuple[int, ...]
    hz_per_unit: int
    folders: Tuple[str, ...]
    cores: Tuple[int, ...] = ()

    @property
    def prefix(self) -> str:
        """What cpufreq puts before the names that devfreq uses."""
        return "scaling_" if self.cores else ""

    def limits(self, folder: str) -> Tuple[str, str]:
        """Files of the lower and of the upper limit."""
        return folder + "/%smin_freq" % self.prefix, folder + "/%smax_freq" % self.prefix

    def governor(self, folder: str) -> str:
        """File that names the governor."""
        return folder + "/%sgovernor" % self.prefix

    def governors(self, folder: str) -> str:
        """File that lists the governors."""
        return folder + ("/scaling_available_governors" if self.cores else "/available_governors")


class EmcDomain(NamedTuple):
    """The clock of the external memory: a rate that is held by a lock.

    Attributes:
        frequencies_hz: ascending.
        rate: file that shows the rate.
        request: file that asks for one (the same, but on t210).
        lock: file that makes the request win over everybody else's.
        state: file that enables the clock; empty where the lock does that.
        cap: file with the upper limit set by the power mode, 0 = none; empty where there is none.
    """

    frequencies_hz: Tuple[int, ...]
    rate: str
    request: str
    lock: str
    state: str = ""
    cap: str = ""
    name: str = "emc"
    cores: Tuple[int, ...] = ()


Domain = Union[RangeDomain, EmcDomain]


class Clockwork(NamedTuple):
    """Everything about clocks that was found.

    Attributes:
        domains: GPU, CPU clusters, memory; those that are there.
        railgate: file that lets the GPU power down when idle; empty where there is none.
        flags: what is missing, and why.
    """

    domains: Tuple[Domain, ...]
    railgate: str
    flags: Tuple[str, ...]


def discover_clocks(fs: SysFs) -> Clockwork:
    """Find all clock domains; on a machine without any, none, which is no error."""
    flags: List[str] = []
    domains: List[Domain] = []
    device = gpu_device(fs)
    gpu = _gpu_domain(fs)
    if gpu is not None:
        domains.append(gpu)
    elif device:
        flags.append("gpu-without-table" if gpu_devfreq(fs) else "gpu-railgated")
    domains.extend(_cpu_domains(fs))
    offline = offline_cores(fs)
    if offline:
        flags.append("cores-offline:" + ",".join(str(core) for core in offline))
    emc = _emc_domain(fs)
    if emc is not None:
        domains.append(emc)
        cap = fs.value_or(emc.cap) if emc.cap else ""
        if cap.isdigit() and 0 < int(cap) < emc.frequencies_hz[-1]:
            flags.append("emc-capped:" + cap)
    elif any(name.startswith("nvidia,tegra") for name in compatible(fs)):
        # Only root may look into debugfs.
        flags.append("emc-not-found" if fs.names(DEBUG_FOLDER) else "emc-not-readable")
    railgate = device + "/railgate_enable" if device else ""
    return Clockwork(tuple(domains), railgate if railgate and fs.exists(railgate) else "", tuple(flags))


def _table(fs: SysFs, path: str) -> Tuple[int, ...]:
    return tuple(sorted(set(fs.integers(path)))) if fs.exists(path) else ()


# --- GPU


def _is_gpu(fs: SysFs, device: str) -> bool:
    """By the name of its node in the device tree, or because it is what ``gpu.0`` stands for."""
    if fs.value_or(device + "/of_node/name") in GPU_NODE_NAMES:
        return True
    mine = fs.value_or(device + "/of_node/compatible")
    return bool(mine) and any(mine == fs.value_or(alias + "/of_node/compatible") for alias in GPU_ALIASES)


def gpu_devfreq(fs: SysFs) -> str:
    """Folder of the GPU's limits; empty while the GPU has never been powered since boot."""
    for name in fs.names(DEVFREQ_FOLDER):
        folder = DEVFREQ_FOLDER + "/" + name
        # On t264 the GPU's clock hangs below a bus without a node of its own.
        if _is_gpu(fs, folder + "/device") or name == "gpu-gpc-0":
            return fs.resolve(folder)
    return ""


def gpu_device(fs: SysFs) -> str:
    """Folder of the GPU itself, which is there even while its power is gated; empty without a GPU."""
    for alias in GPU_ALIASES:
        if fs.exists(alias):
            return fs.resolve(alias)
    for folder in PLATFORM_FOLDERS:
        for name in fs.names(folder, r"[0-9a-f]+\.[a-z0-9]+"):
            if fs.value_or("%s/%s/of_node/name" % (folder, name)) in GPU_NODE_NAMES:
                return fs.resolve(folder + "/" + name)
    return ""


def _gpu_domain(fs: SysFs) -> Optional[RangeDomain]:
    folder = gpu_devfreq(fs)
    table = _table(fs, folder + "/available_frequencies") if folder else ()
    return RangeDomain("gpu", table, 1, (folder,)) if table else None


# --- CPU clusters


def _cpu_domains(fs: SysFs) -> List[Domain]:
    """One domain per cluster; cores that are down have no files and are not part of it."""
    clusters: Dict[Tuple[int, ...], List[int]] = {}  # related cores -> those that are up
    for core in online_cores(fs):
        folder = "%s/cpu%d/cpufreq" % (CPU_FOLDER, core)
        if not fs.exists(folder + "/scaling_available_frequencies"):
            continue  # drivers of x86 machines list no frequencies
        related = parse_cores(fs.value_or(folder + "/related_cpus"))
        related = related or parse_cores(fs.value_or(folder + "/affected_cpus")) or [core]
        clusters.setdefault(tuple(related), []).append(core)
    domains: List[Domain] = []
    for related_cores, cores in sorted(clusters.items()):
        folders = []
        for core in cores:
            folder = fs.resolve("%s/cpu%d/cpufreq" % (CPU_FOLDER, core))
            if folder not in folders:
                folders.append(folder)
        table_khz = _table(fs, folders[0] + "/scaling_available_frequencies")
        if table_khz:
            table = tuple(1000 * khz for khz in table_khz)
            domains.append(RangeDomain("cpu%d" % related_cores[0], table, 1000, tuple(folders), tuple(cores)))
    return domains


# --- memory


def _emc_table(fs: SysFs, path: str) -> Tuple[int, ...]:
    """Frequencies in Hz; none where the unit is not stated, since guessing it is a factor of 1000."""
    text = fs.value_or(path)
    if not text.endswith("(kHz)"):
        return ()
    return tuple(1000 * khz for khz in _table(fs, path))


def _emc_domain(fs: SysFs) -> Optional[EmcDomain]:
    bpmp = DEBUG_FOLDER + "/bpmp/debug"
    table = _emc_table(fs, bpmp + "/emc/possible_rates")
    if table:
        clock = bpmp + "/clk/emc"
        caps = [path for path in EMC_CAPS if fs.exists(path)]
        state = clock + "/state" if fs.exists(clock + "/state") else ""
        return EmcDomain(
            table,
            rate=clock + "/rate",
            request=clock + "/rate",
            lock=clock + "/mrq_rate_locked",
            state=state,
            cap=caps[0] if caps else "",
        )
    clock = DEBUG_FOLDER + "/clk/override.emc"  # t210
    for folder in (clock, DEBUG_FOLDER + "/clk/emc"):
        table = _emc_table(fs, folder + "/clk_possible_rates")
        if table and fs.exists(clock + "/clk_update_rate"):
            return EmcDomain(
                _within_bandwidth_manager(fs, table),
                rate=clock + "/clk_rate",
                request=clock + "/clk_update_rate",
                lock=clock + "/clk_state",
            )
    return None


def _within_bandwidth_manager(fs: SysFs, table: Tuple[int, ...]) -> Tuple[int, ...]:
    """What t210's bandwidth manager will grant of a table."""
    folder = DEBUG_FOLDER + "/tegra_bwmgr"
    least = fs.value_or(folder + "/emc_min_rate", "0")
    most = fs.value_or(folder + "/emc_max_rate", "0")
    if not (least.isdigit() and most.isdigit()) or int(most) == 0:
        return table
    return tuple(hz for hz in table if int(least) <= hz <= int(most))
