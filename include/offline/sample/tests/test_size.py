import pytest
from quantity import format_size, parse_size


@pytest.mark.parametrize("text, size", [("0 B", 0), ("3 KiB", 3072), ("1.5 MiB", 1572864), ("1GiB", 2**30)])
def test_parse(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "3", "3 KB", "-1 B"])
def test_refuse_what_is_no_size(text):
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


@pytest.mark.parametrize("size, text", [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1572864, "1.5 MiB"), (2**50, "1024.0 TiB")])
def test_format(size, text):
    assert format_size(size) == text
