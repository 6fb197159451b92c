"""A report of transfers, as a table with a total."""

from quantity.duration import format_duration
from quantity.size import format_size
from quantity.table import render

HEADER = ["name", "size", "time"]


def row(transfer):
    """The cells of one transfer."""
    return [transfer.name, format_size(transfer.size), format_duration(transfer.seconds)]


def report(transfers):
    """The table of all transfers; the last row is their total."""
    rows = [row(transfer) for transfer in transfers]
    size = sum(transfer.size for transfer in transfers)
    seconds = sum(transfer.seconds for transfer in transfers)
    return render(HEADER, [*rows, ["total", format_size(size), format_duration(seconds)]])
