"""Clock tables: the published counts, files of users, and what is refused."""

import json
from pathlib import Path

import pytest

from hadas.errors import ConfigError, OffTableFrequencyError
from hadas.spaces import CLOCK_TABLES, PINNED, Setting, clock_table

SHARED_TABLES = Path(__file__).parents[3] / "shared" / "fixtures" / "jetson" / "freq_tables.json"


@pytest.mark.parametrize(
    ("name", "counts", "top_hz"),
    [
        ("agx-volta-gpu", (14, 9), (1_377_000_000, 2_133_000_000)),
        ("agx-carmel-cpu", (29, 9), (2_265_600_000, 2_133_000_000)),
        ("tx2-pascal-gpu", (13, 11), (1_300_500_000, 1_866_000_000)),
        ("tx2-denver-cpu", (12, 11), (2_035_200_000, 1_866_000_000)),
    ],
)
def test_paper_settings(name, counts, top_hz):
    table = CLOCK_TABLES[name]
    assert tuple(len(d.frequencies_hz) for d in table.domains) == counts
    assert tuple(hz for _, hz in table.default.clocks_hz) == top_hz
    assert len(table) == counts[0] * counts[1]


def test_index_inverts_settings():
    table = CLOCK_TABLES["tx2-pascal-gpu"]
    assert [table.index(setting) for setting in table.settings] == list(range(len(table)))


def test_off_table_frequency_names_the_nearest():
    table = CLOCK_TABLES["tx2-pascal-gpu"]
    with pytest.raises(OffTableFrequencyError, match=r"gpu_hz.*1134750000.*1122000000"):
        table.setting(gpu=1_134_750_000, emc=1_866_000_000)
    with pytest.raises(ConfigError, match="cpu"):
        table.check(Setting((("cpu", 2_035_200_000),)))


def test_a_device_without_clock_control_has_one_setting():
    assert PINNED.settings == (Setting(),)
    assert PINNED.index(Setting()) == 0


def test_user_file(tmp_path):
    path = tmp_path / "board.json"
    path.write_text(json.dumps({"name": "board", "domains": {"gpu": [100_000_000, 200_000_000]}}))
    table = clock_table(str(path))
    assert (table.name, len(table), str(table.default)) == ("board", 2, "gpu 200 MHz")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1"),
        ('{"domains": {}}', "domains"),
        ('{"domains": {"gpu": [204000, 665600]}}', r"Hz expected.*kHz; multiply by 1000$"),
        ('{"domains": {"gpu": [204, 665]}}', r"Hz expected.*MHz; multiply by 1000000$"),
        ('{"domains": {"gpu": [200000000, 100000000]}}', "ascend"),
        ('{"domains": {"gpu": ["fast"]}}', r"domains\.gpu"),
    ],
)
def test_bad_user_file_names_file_and_field(tmp_path, text, message):
    path = tmp_path / "board.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        clock_table(str(path))
    assert "board.json" in str(caught.value)


def test_unreadable_user_files(tmp_path):
    latin = tmp_path / "latin.json"
    latin.write_bytes(b'{"name": "caf\xe9"}')
    folder = tmp_path / "folder.json"
    folder.mkdir()
    for path, message in ((latin, "UTF-8"), (folder, "is a folder"), (tmp_path / "absent.json", "no such")):
        with pytest.raises(ConfigError, match=message):
            clock_table(str(path))


@pytest.mark.skipif(not SHARED_TABLES.exists(), reason="recorded frequency tables are not here")
def test_tx2_tables_equal_the_recorded_ones():
    recorded = json.loads(SHARED_TABLES.read_text())["tx2"]
    gpu, emc = CLOCK_TABLES["tx2-pascal-gpu"].domains
    assert list(gpu.frequencies_hz) == recorded["gpu_hz"]["l4t32_late_jp4.6"]
    assert list(emc.frequencies_hz) == recorded["emc_hz"]
    denver = CLOCK_TABLES["tx2-denver-cpu"].domains[0]
    assert [hz // 1000 for hz in denver.frequencies_hz] == recorded["cpu_khz"]["denver"]
