import pytest
from quantity.table import render


def test_columns_are_aligned():
    assert render(["a", "b"], [["long", 1], ["x", 22]]) == "a      b\n----  --\nlong   1\nx     22"


def test_a_short_row_is_refused():
    with pytest.raises(ValueError, match="one cell a column"):
        render(["a", "b"], [["x"]])
