"""Lines of tegrastats in the forms of every board and JetPack, and an independent reading of them."""

from __future__ import annotations

import re

from hadas.datasets.logs.readings import Engine, TegrastatsRecord

# The figures are made up; the forms are those that boards print.
LINES = {
    "tx1 jp3": "RAM 1200/3983MB (lfb 120x4MB) IRAM 0/252kB(lfb 252kB) CPU [1%@102,4%@102,0%@102,7%@102] EMC_FREQ 7%@408 "
    "GR3D_FREQ 3%@76 APE 25 AO@42.5C CPU@37.5C PMIC@100C thermal@38.5C VDD_IN 2530/2690 VDD_CPU 70/170 VDD_GPU 19/19",
    "tx2 jp3": "RAM 4700/7844MB (lfb 1x512kB) CPU [12%@2035,off,off,78%@2035] SWAP 149/1024MB (cached 7MB) EMC_FREQ 2%@1866 "
    "GR3D_FREQ 59%@1300 APE 150 MTS fg 3% bg 9% BCPU@-45C GPU@47C CV@-256C PMIC@100C VDD_IN 14025/14416 VDD_CPU 2209/2538 "
    "VDD_GPU 6854/6903 VDD_SOC 1371/1370 VDD_WIFI 19/19 NVENC 716 NVDEC 716 VDD_DDR 2702/2702",
    "xavier jp4": "RAM 720/31927MB (lfb 7291x4MB) SWAP 0/15963MB (cached 0MB) CPU [2%@1190,0%@1190,off,off] EMC_FREQ 0%@665 "
    "GR3D_FREQ 0%@318 APE 150 MTS fg 0% bg 0% AO@37.5C GPU@37.5C PMIC@100C CPU@37.5C GPU 10/20 CPU 311/311 SOC 932/932 "
    "CV 0/0 VDDRQ 621/621 SYS5V 1482/1482",
    "nano user": "RAM 534/3964MB (lfb 98x4MB) CPU [16%,9%,0%,0%] EMC_FREQ 0% GR3D_FREQ 0% PLL@34C GPU@36C POM_5V_IN 1022/1022 "
    "POM_5V_GPU 0/0 POM_5V_CPU 204/204",
    "orin jp5": "01-31-2024 17:05:09 RAM 6334/15388MB (lfb 1770x4MB) SWAP 491/7694MB (cached 0MB) CPU [6%@729,16%@729,off,off] "
    "EMC_FREQ 0%@2133 GR3D_FREQ 0%@611 VIC_FREQ 729 APE 174 CV0@45.812C tj@48.875C VDD_IN 5299mW/5200mW "
    "VDD_CPU_GPU_CV 773mW/773mW VDD_SOC 1424mW/1424mW",
    "orin jp6": "RAM 29114/30697MB (lfb 3x4MB)    SWAP 4915/15348MB (cached 1MB) CPU [3%@729,100%@2201] EMC_FREQ 1%@2133 "
    "GR3D_FREQ 0%@[305,612] NVENC      off  NVDEC    off VIC        off    PVA0_FREQ off    APE           174   "
    "cpu@53.062C   tj@53.062C  VDD_GPU_SOC 3205mW/3200mW VDD_CPU_CV 4405mW/4405mW VIN_SYS_5V0 4767mW/4767mW",
    "thor jp7": "08-08-2026 21:00:39 RAM 8353/125749MB (lfb 31x4MB) CPU [90%@2601,off,7%@2601] EMC_FREQ 34%@4266 "
    "GR3D_FREQ @[1000,1001,1002] NVENC0_FREQ @1691 NVENC0 off VIC off cpu@52.9C/53.5C gpu@56.937C/66.625C "
    "VDD_GPU 37939mW/8660mW/37940mW VIN 124486mW/36487mW/124487mW",
    "thor shared": "RAM 3429/125749MB (lfb 120x4MB) CPU [0%,5%,off]@2601 EMC_FREQ @4266 GR3D_FREQ 12%@[1300,off] "
    "cpu@49.75C/49.75C VDD_GPU 6330/6331/6332 mW",
    "stamped": "1739645853.5---RAM 534/3964MB (lfb 98x4MB) CPU [1%@204] GR3D_FREQ 5%@76 POM_5V_IN 1022/1022",
}  # fmt: skip

_BARE_RAIL = re.compile(r"(VDD|VIN|POM)\w*|GPU|CPU|SOC|CV|SYS5V")
_BARE_CLOCK = re.compile(r"(VIC|APE|NVENC|NVDEC|NVJPG|OFA|SE|TSEC|MSENC|PVA|NVDLA|ISP|VI|EMC|GR3D)\w*")
_SENSOR = re.compile(r"(?:^| )([^ @]+)@(-?[\d.]+)C(?:/(-?[\d.]+)C)?(?= |$)")
_SIZE = re.compile(r"(?:^|[ \-|,;:])(RAM|SWAP|IRAM) (\d+)/(\d+)(MB|kB)")
_KIB = {"MB": 1024, "kB": 1}


def untraceable(line: str, record: TegrastatsRecord) -> list[str]:
    """Numbers of a record that the line does not state in a unit that may be read so.

    Written without the parser: for every number it says how the line must spell it.
    """
    text = f" {' '.join(line.split())} "
    text = re.sub(r"(?<![\w.])0+(?=\d)", "", text)
    text = re.sub(r" ?, ?", ",", text).replace("[ ", "[").replace(" ]", "]")
    missing = []
    for rail in record.rails:
        numbers = [rail.instant_mw, rail.average_mw] + ([] if rail.third_mw is None else [rail.third_mw])
        bare, each = "/".join(map(str, numbers)), "/".join(f"{n}mW" for n in numbers)
        spelled = [each, f"{bare}mW", f"{bare} mW"] + [bare] * bool(_BARE_RAIL.fullmatch(rail.label))
        if not any(f" {rail.label} {spelling} " in text for spelling in spelled):
            missing.append(f"rail {rail}")
    gated = re.sub(r"(?<=[\[,])off(?=[,\]])", "0", text)
    for engine in record.engines:
        if not any(f" {engine.name} {spelling} " in gated for spelling in _spellings(engine)):
            missing.append(f"engine {engine}")
    sensors = [(name, float(a), float(b) if b else None) for name, a, b in _SENSOR.findall(text)]
    missing += [f"{t}" for t in record.temperatures if (t.name, t.celsius, t.second_c) not in sensors]
    sizes = [
        (name, int(used) * _KIB[u], int(total) * _KIB[u]) for name, used, total, u in _SIZE.findall(text)
    ]
    for name, memory in (("RAM", record.ram), ("SWAP", record.swap), ("IRAM", record.iram)):
        if memory is not None and (name, memory.used_kib, memory.total_kib) not in sizes:
            missing.append(f"{name} {memory}")
    return missing + _untraceable_cores(text, record)


def _spellings(engine: Engine) -> list[str]:
    if engine.is_off:
        return ["off"]
    if any(hz % 10**6 or hz > 10**10 for hz in engine.clocks_hz):
        return []  # no print has such a clock
    load = "" if engine.load_percent is None else f"{engine.load_percent}%"
    clocks = [str(hz // 10**6) for hz in engine.clocks_hz]
    if not clocks:
        return [load]
    spelled = [f"{load}@[{','.join(clocks)}]"]
    if len(clocks) == 1:
        spelled.append(f"{load}@{clocks[0]}")
        if not load and _BARE_CLOCK.fullmatch(engine.name):
            spelled.append(clocks[0])
    return spelled


def _untraceable_cores(text: str, record: TegrastatsRecord) -> list[str]:
    found = re.search(r"CPU \[([^\]]*)\](?:@(\d+))?", text)
    items = found.group(1).split(",") if found and record.cores else []
    if len(items) != len(record.cores):
        return [f"{len(record.cores)} cores"]
    missing = []
    for item, core in zip(items, record.cores, strict=True):
        printed = re.fullmatch(r" ?(?:off|(\d+)%(?:@(\d+))?) ?", item)
        if printed is None:
            missing.append(f"core {core}")
            continue
        load, clock = printed.groups()
        clock = clock or (found.group(2) if found and load else None)
        expected = (int(load) if load else None, int(clock) * 10**6 if clock else None)
        if expected != (core.load_percent, core.clock_hz) or (core.load_percent or 0) > 100 or (core.clock_hz or 0) > 10**10:  # fmt: skip
            missing.append(f"core {core}")
    return missing
