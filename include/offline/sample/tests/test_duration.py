import pytest
from quantity import format_duration, parse_duration


@pytest.mark.parametrize("text, seconds", [("5s", 5), ("1h 30m", 5400), ("1d", 86400), ("2.5s", 2.5), ("1h30m", 5400)])
def test_parse(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "5 parsecs", "1h and 2m"])
def test_refuse_what_is_no_duration(text):
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


def test_format_is_read_back():
    for seconds in (0, 1.5, 59, 60, 61, 3600, 90061):
        assert parse_duration(format_duration(seconds)) == seconds


def test_format_refuses_the_negative():
    with pytest.raises(ValueError):
        format_duration(-1)
