"""Setting clocks: in the order the kernel wants, read back, and verified once they have settled."""

import time
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

from .discovery import Clockwork, Domain, EmcDomain, RangeDomain, discover_clocks, gpu_devfreq
from .journal import CAP, GOVERNOR, HIGH, LOCK, LOW, RAILGATE, RATE, STATE, Journal, write_range
from .problems import AgentError, FileError
from .sysfs import SysFs

SETTLE_S = 1.0  # new clocks take 1 to 8 ms; a governor polls every 25 ms
POLL_S = 0.005
LEAST_LOOKS = 8
POWER_UP_S = 2.0
EMC_S = 0.05  # the memory's new clock takes 8 ms
SAME_CLOCK = 0.01
"""Counters and PLLs miss the table's figure by less than this, and neighbours are further away (or
nearer to themselves: the nearest frequency of the table is taken)."""
SAG = 0.9  # a CPU below this share of its lower limit has been slowed down behind cpufreq's back


class ClockResult(NamedTuple):
    """Hz by domain, and what kept the clocks from being what was asked for."""

    requested: Dict[str, int]
    actual: Dict[str, int]
    flags: Tuple[str, ...]


class Clocks:
    """The clocks of one board.

    Args:
        journal: told about every file before its first write.
        pause: waits that many seconds.
    """

    def __init__(
        self,
        fs: SysFs,
        journal: Journal,
        pause: Callable[[float], None] = time.sleep,
        settle_s: float = SETTLE_S,
    ) -> None:
        self.fs = fs
        self.journal = journal
        self.pause = pause
        self.settle_s = settle_s
        self.found: Clockwork = discover_clocks(fs)

    @property
    def domains(self) -> Dict[str, Domain]:
        """By name."""
        return {domain.name: domain for domain in self.found.domains}

    # --- the GPU's power

    def power_up(self) -> None:
        """Make a GPU appear that has been gated since boot: it registers its clock when first powered."""
        gate = self.found.railgate
        if gpu_devfreq(self.fs) or not gate or not self.fs.writable(gate):
            return
        self._open_railgate()
        end = time.monotonic() + POWER_UP_S
        while not gpu_devfreq(self.fs) and time.monotonic() < end:
            self.pause(POLL_S)
        self.found = discover_clocks(self.fs)

    def _open_railgate(self) -> None:
        """Keep the GPU powered: waking its rail would be measured as latency."""
        gate = self.found.railgate
        if gate and self.fs.value(gate) != "0":
            self._prepare([(gate, RAILGATE)])
            self.fs.write(gate, "0\n")

    # --- reading

    def read(self) -> Tuple[Dict[str, int], Tuple[str, ...]]:
        """Clock of every domain right now, Hz, and flags.

        A reading within 1 % of a frequency of the table is that frequency.  A domain whose clock
        cannot be read is left out and flagged ``unreadable:``.
        """
        actual: Dict[str, int] = {}
        flags: List[str] = []
        for domain in self.found.domains:
            try:
                actual[domain.name] = nearest(self._read_hz(domain, flags), domain.frequencies_hz)
            except FileError:
                flags.append("unreadable:" + domain.name)
        return actual, tuple(flags)

    def _read_hz(self, domain: Domain, flags: List[str]) -> int:
        if isinstance(domain, EmcDomain):
            return self.fs.integer(domain.rate)
        if not domain.cores:
            return self.fs.integer(domain.folders[0] + "/cur_freq") * domain.hz_per_unit
        # A cluster runs as fast as its fastest core asks.
        shown_khz = max(self.fs.integer(folder + "/scaling_cur_freq") for folder in domain.folders)
        try:
            true_khz = max(self.fs.integer(folder + "/cpuinfo_cur_freq") for folder in domain.folders)
        except FileError:
            # Only root may read the hardware's clock; what cpufreq asked for is no proof.
            flags.append("unverified:" + domain.name)
            return shown_khz * domain.hz_per_unit
        # What is shown of a clock that is not pinned may be older than what was measured of it, so
        # that only its lower limit can tell; of a pinned clock that limit is the clock itself.
        if true_khz < SAG * max(self.fs.integer(domain.limits(folder)[0]) for folder in domain.folders):
            flags.append("overcurrent-suspected:" + domain.name)
        return true_khz * domain.hz_per_unit

    # --- setting

    def check(self, clocks_hz: Dict[str, int]) -> None:
        """Refuse what the board does not list.

        Raises:
            AgentError: ``off-table`` or ``bad-request``.
        """
        for name, hz in clocks_hz.items():
            domain = self.domains.get(name)
            if domain is None:
                raise AgentError(
                    "bad-request",
                    "the board has no clock domain '%s'" % name,
                    field="clocks_hz." + name,
                    value=hz,
                    allowed=sorted(self.domains),
                )
            if hz not in domain.frequencies_hz:
                raise AgentError(
                    "off-table",
                    "%r Hz is not among the %d frequencies of '%s'; the kernel would round it in silence"
                    % (hz, len(domain.frequencies_hz), name),
                    field="clocks_hz." + name,
                    value=hz,
                    allowed=domain.frequencies_hz,
                )

    def set(self, clocks_hz: Dict[str, int]) -> ClockResult:
        """Set the named domains, wait until they have settled, and read all back.

        Raises:
            AgentError: ``off-table``, ``bad-request`` or ``not-writable`` (nothing is written then),
                ``io``.
        """
        self.check(clocks_hz)
        domains = [domain for domain in self.found.domains if domain.name in clocks_hz]
        self._prepare([file for domain in domains for file in self._files(domain)])
        self._open_railgate()
        flags: List[str] = []
        for domain in domains:
            if isinstance(domain, EmcDomain):
                self._set_emc(domain, clocks_hz[domain.name], flags)
            else:
                self._set_range(domain, clocks_hz[domain.name], flags)
        actual, read_flags = self._settle(clocks_hz)
        slow = [domain for domain in domains if isinstance(domain, RangeDomain)]
        if self._force_governors([d for d in slow if actual.get(d.name) != clocks_hz[d.name]], read_flags):
            actual, read_flags = self._settle(clocks_hz)
        flags.extend(read_flags)
        for domain in domains:
            flags.extend(_judge(domain.name, clocks_hz[domain.name], actual.get(domain.name)))
        return ClockResult(dict(clocks_hz), actual, tuple(sorted(set(flags))))

    def _files(self, domain: Domain) -> List[Tuple[str, str]]:
        """Files that setting the domain writes, with their roles."""
        if isinstance(domain, EmcDomain):
            files = [(domain.lock, LOCK), (domain.state, STATE), (domain.request, RATE), (domain.cap, CAP)]
            return [(path, role) for path, role in files if path]
        limits = [domain.limits(folder) for folder in domain.folders]
        return [file for low, high in limits for file in ((low, LOW), (high, HIGH))]

    def _prepare(self, files: List[Tuple[str, str]]) -> None:
        """Journal the files about to be written; refuse before anything is, if one may not be."""
        for path, _ in files:
            if not self.fs.writable(path):
                raise AgentError(
                    "not-writable",
                    "/%s may not be written" % path,
                    field="/" + path,
                    remedy="run the agent as root, where sysfs and debugfs are mounted writable",
                )
        self.journal.remember(files)

    def _set_range(self, domain: RangeDomain, hz: int, flags: List[str]) -> None:
        text = "%d\n" % (hz // domain.hz_per_unit)
        for folder in domain.folders:
            low, high = domain.limits(folder)
            if not write_range(self.fs, low, high, text, text):
                is_low = self.fs.integer(high) * domain.hz_per_unit < hz
                flags.append(("clamped:" if is_low else "rounded:") + domain.name)

    def _set_emc(self, domain: EmcDomain, hz: int, flags: List[str]) -> None:
        """Cap out of the way, lock, enable, rate; a cap that is no longer needed comes back last."""
        before_hz = self.fs.integer(domain.rate)
        cap_after = self._cap_for(domain, hz)
        cap_now = self.fs.integer(domain.cap) if domain.cap else 0
        if cap_now and (cap_after == 0 or cap_after > cap_now):
            self.fs.write(domain.cap, "%d\n" % cap_after)
        for _ in range(2):  # the firmware may drop a request
            self.fs.write(domain.lock, "1\n")
            if domain.state:
                self.fs.write(domain.state, "1\n")
            self.fs.write(domain.request, "%d\n" % hz)
            end = time.monotonic() + EMC_S
            while not same(self.fs.integer(domain.rate), hz) and time.monotonic() < end:
                self.pause(POLL_S)
            if same(self.fs.integer(domain.rate), hz):
                break
        if domain.cap and cap_after and (cap_now == 0 or cap_after < cap_now):
            self.fs.write(domain.cap, "%d\n" % cap_after)
        after_hz = self.fs.integer(domain.rate)
        if not same(after_hz, hz) and same(after_hz, before_hz):
            flags.append("emc-ignored")

    def _cap_for(self, domain: EmcDomain, hz: int) -> int:
        """The power mode's own cap, or just what the rate needs if that is higher; 0 = none."""
        if not domain.cap:
            return 0
        path = self.fs.resolve(domain.cap)
        original = next(int((e.text or "0").strip()) for e in self.journal.entries if e.path == path)
        return original if original == 0 or original >= hz else hz

    def _settle(self, clocks_hz: Dict[str, int]) -> Tuple[Dict[str, int], Tuple[str, ...]]:
        """Wait until every clock is seen twice in a row where it should be, or for the longest time.

        A board so busy that the time is over after a few looks still gets those looks.
        """
        end = time.monotonic() + self.settle_s
        looks, seen = 0, 0
        while True:
            actual, flags = self.read()
            arrived = all(actual.get(name) == hz for name, hz in clocks_hz.items())
            looks, seen = looks + 1, seen + 1 if arrived else 0
            if seen == 2 or (looks >= LEAST_LOOKS and time.monotonic() >= end):
                return actual, flags
            self.pause(2 * POLL_S if arrived else POLL_S)

    def _force_governors(self, domains: List[RangeDomain], flags: Tuple[str, ...]) -> bool:
        """Where the limits are right and the clock is not, let ``performance`` apply them.

        A governor that only looks when the unit is busy may leave an idle clock where it was.

        Returns:
            Whether any governor was changed.
        """
        changed = False
        for domain in domains:
            if "overcurrent-suspected:" + domain.name in flags:
                continue
            for folder in domain.folders:
                governor = domain.governor(folder)
                known = self.fs.value_or(domain.governors(folder)).split()
                if "performance" in known and self.fs.value_or(governor, "performance") != "performance":
                    self._prepare([(governor, GOVERNOR)])
                    self.fs.write(governor, "performance\n")
                    changed = True
        return changed


def _judge(name: str, wanted_hz: int, actual_hz: Optional[int]) -> List[str]:
    """Flags of one domain after it had time to settle."""
    if actual_hz == wanted_hz:
        return []
    if actual_hz is None:
        return ["unverified:" + name]
    return ["unverified:" + name, ("clamped:" if actual_hz < wanted_hz else "rounded:") + name]


def same(one_hz: int, other_hz: int) -> bool:
    """Whether two readings are of one clock."""
    return abs(one_hz - other_hz) <= SAME_CLOCK * other_hz


def nearest(hz: int, table_hz: Tuple[int, ...]) -> int:
    """The frequency of the table that a reading stands for, or the reading itself if there is none."""
    candidate = min(table_hz, key=lambda known: abs(known - hz))
    return candidate if same(hz, candidate) else hz
