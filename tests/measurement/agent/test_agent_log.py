"""A log that never makes anybody wait, and says what it left out."""

import os
import time

from hadas.measurement.hardware.agent.log import MOST_BYTES, Log


def read_all(descriptor: int, until: bytes, limit_s: float = 5.0) -> bytes:
    text, end = b"", time.monotonic() + limit_s
    while until not in text:
        assert time.monotonic() < end, text[-200:]
        text += os.read(descriptor, 1 << 16)
    return text


def test_lines_arrive_in_order_while_somebody_reads():
    reading, writing = os.pipe()
    log = Log(writing)
    for number in range(100):
        log.write(f"line {number}\n")
    log.flush()
    text = read_all(reading, b"line 99\n")
    assert text.decode().splitlines() == [f"line {number}" for number in range(100)]
    os.close(reading)


def test_what_nobody_reads_is_dropped_and_counted_and_nobody_waits():
    reading, writing = os.pipe()
    log = Log(writing, flush_s=0.2)
    began = time.monotonic()
    line = "x" * 999 + "\n"
    n_lines = 2 * MOST_BYTES // 1000
    for _ in range(n_lines):
        assert log.write(line) == 1000
    log.flush()
    assert time.monotonic() - began < 2.0
    kept = read_all(reading, b"x" * 999 + b"\n")
    while len(kept) < 1000 * (MOST_BYTES // 1000):
        kept += os.read(reading, 1 << 16)
    assert set(kept.decode().splitlines()) == {line.rstrip()}, "no line is cut"
    log.flush()
    log.write("again\n")
    last = read_all(reading, b"again\n")
    assert last.decode() == f"[{1000 * n_lines - len(kept)} bytes of the log were dropped]\nagain\n"
    os.close(reading)
