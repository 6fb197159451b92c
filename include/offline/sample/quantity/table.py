"""Plain text tables: the first column to the left, the others to the right."""


def render(header, rows):
    """A table with a line under its header.

    Raises ValueError when a row has not as many cells as the header.
    """
    if any(len(row) != len(header) for row in rows):
        raise ValueError("every row needs one cell a column")
    widths = [max(len(str(cell)) for cell in column) for column in zip(header, *rows, strict=True)]
    lines = [_line(header, widths), "  ".join("-" * width for width in widths)]
    return "\n".join(lines + [_line(row, widths) for row in rows])


def _line(cells, widths):
    first = str(cells[0]).ljust(widths[0])
    others = [str(cell).rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return "  ".join([first, *others]).rstrip()
