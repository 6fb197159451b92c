import pytest
from quantity.log import Transfer, read_line, read_log
from quantity.report import report

LOG = """
# last night
backup 12 MiB 3s
photos 1.5 GiB 2m 30s
"""


def test_read_log():
    assert read_log(LOG) == [Transfer("backup", 12 * 2**20, 3), Transfer("photos", 1610612736, 150)]


def test_a_broken_line_is_refused():
    with pytest.raises(ValueError, match="not a transfer"):
        read_line("backup 12")


def test_report_has_a_row_a_transfer_and_a_total():
    lines = report(read_log(LOG)).splitlines()
    assert [line.split()[0] for line in lines] == ["name", "------", "backup", "photos", "total"]
    assert "1.5 GiB" in lines[-1]


def test_a_transfer_from_the_cache_takes_no_time():
    lines = report([Transfer("cached", 1024, 0)]).splitlines()
    assert "1.0 KiB" in lines[2] and "0s" in lines[2]


def test_an_empty_log_has_an_empty_total():
    assert report([]).splitlines()[-1].split() == ["total", "0", "B", "0s"]
