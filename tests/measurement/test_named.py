"""Networks, exits and clocks as people name them."""

import pytest

from hadas.errors import ConfigError, OffTableFrequencyError, SpaceError
from hadas.measurement.hardware.named import (
    named_backbones,
    named_exits,
    named_requests,
    named_settings,
)
from hadas.spaces import CLOCK_TABLES, PINNED, space_by_name

SPACE = space_by_name("attentivenas")
A0 = SPACE.presets["a0"]
TABLE = CLOCK_TABLES["tx2-pascal-gpu"]


def test_networks_by_name_once_each():
    found = named_backbones("a3, presets,largest", SPACE)
    assert [name for name, _ in found] == ["a3", "a0", "a1", "a2", "a4", "a5", "a6", "largest"]
    assert dict(found)["largest"] == SPACE.largest
    with pytest.raises(ConfigError, match="'larges'; did you mean 'largest'"):
        named_backbones("larges", SPACE)
    with pytest.raises(ConfigError, match="names nothing"):
        named_backbones(" , ", SPACE)


def test_exits_in_every_form():
    assert named_exits("none", SPACE, A0).positions == ()
    assert len(named_exits("all", SPACE, A0).positions) == A0.n_blocks - SPACE.first_exit
    assert named_exits("5,8", SPACE, A0).positions == (5, 8)
    (middle,) = named_exits("even:1", SPACE, A0).positions
    assert abs(middle - (SPACE.first_exit + A0.n_blocks - 1) / 2) <= 1
    n = A0.n_blocks - SPACE.first_exit
    assert named_exits(f"even:{n}", SPACE, A0) == named_exits("all", SPACE, A0)
    for words, error in (("even:99", ConfigError), ("some", ConfigError), ("3", SpaceError)):
        with pytest.raises(error):
            named_exits(words, SPACE, A0)


def test_settings_in_hz_or_with_their_units():
    assert named_settings("max", TABLE) == (TABLE.default,)
    assert len(named_settings("all", TABLE)) == 143
    (setting,) = named_settings("emc=1600000000 gpu=854250000", TABLE)
    assert (setting.hz("gpu"), setting.hz("emc")) == (854_250_000, 1_600_000_000)
    assert named_settings("gpu=854.25MHz, emc=1.6ghz", TABLE) == (setting,)
    with pytest.raises(ConfigError, match="kHz; multiply by 1000"):
        named_settings("gpu=854250,emc=1600000000", TABLE)
    with pytest.raises(OffTableFrequencyError):
        named_settings("gpu=828750000,emc=1600000000", TABLE)
    for words in ("gpu=854250000", "gpu=854250000 emc=1600000000 cpu=1", "fast", "gpu=1Hertz emc=2Hz"):
        with pytest.raises(ConfigError, match="every clock"):
            named_settings(words, TABLE)
    assert named_settings("all", PINNED) == PINNED.settings


def test_requests_go_network_by_network():
    requests = named_requests(SPACE, TABLE, networks="a0,a1", exits="even:2", clocks="all")
    assert len(requests) == 2 * 143
    assert {r.backbone for r in requests[:143]} == {A0}
    assert {len(r.exits.positions) for r in requests} == {2}
