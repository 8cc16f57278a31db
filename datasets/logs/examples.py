"""Column maps as users are shown them, and what is assumed where one says nothing.  Imports nothing."""

from __future__ import annotations

EXAMPLE = """\
series: tx2-sweep                  # what the log is called; default: the file's name
truth: device                      # device, replay or simulator
target:
  board: {column: board}           # every field: a constant, or {column: NAME}
  processor: pascal-gpu
  release: L4T 32.7.5
  runtime: tensorrt 8.2
  dtype: fp16                      # default: fp32
  batch: 1                         # default: 1
  pinned: {cpu: max, cores: {column: n_cores}}
network:                           # of a space of ours: rows that studies can use
  space: attentivenas
  preset: {column: model}          # or arch_id: ..., or genes: {resolution: {column: r}, ...}
  n_classes: 1000
  heads: {column: exits}           # "5:1 9:1" (position:type), or "5+9" for type 1; default: none
latency: {column: time_s, unit: s, error: {column: se_s}, runs: 50}   # units: s, ms, us, ns
energy: {column: energy, unit: mJ, noise: 0.03}                       # units: J, mJ, uJ
clocks:                                                               # units: Hz, kHz, MHz, GHz
  gpu: {column: gpu_mhz, unit: MHz}
  emc: {value: 1866, unit: MHz}
"""
"""A map for networks of a space of ours."""

EXAMPLE_OF_OTHERS = """\
truth: device
target: {board: jetson-tx2, processor: pascal-gpu, release: unknown, runtime: tensorrt, dtype: fp16}
network:                           # any other: kept apart, for `hadas logs fit`
  name: {column: model}
  features: {flops: {column: flops}}
latency: {column: latency_ms, unit: ms}
power: {column: power_w, unit: W}  # units: W, mW, uW
clocks: {gpu: {column: gpu_mhz, unit: MHz}}
keep: [fps, engine]                # further columns, as text
"""
"""A map for networks of no space of ours."""

ASSUMED_NOISE = 0.02
"""Relative standard error of a cost of a network of ours that neither states an error nor a noise."""
