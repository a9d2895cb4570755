"""Lay out rows as a table that fits the terminal."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from agent_jobs.cli.display.sections import fit_cell, measure_columns
from agent_jobs.cli.display.terminal import MIN_WRAP_COLUMNS, count_columns, wrap_lines

#: Columns between two columns of the table.
GAP = "  "


def render_table(
    rows: Sequence[Mapping[str, str]],
    width: int,
    *,
    flexible: str,
    figures: Collection[str] = (),
    dispensable: Sequence[str] = (),
) -> Iterator[str]:
    """Yield the lines of a table, the names of its columns first. Empty columns are left out.

    Args:
        rows: The cells of each row by the names of their columns, all with the same names.
        width: Of the terminal.
        flexible: The column that gets the columns of the terminal that the others leave. If it is the last one, its
            words continue below each other; otherwise they are cut.
        figures: Columns that are aligned on the right.
        dispensable: Columns to leave out of a narrow table, in this order.
    """
    widths = measure_columns(rows)
    if flexible not in widths:
        flexible = list(widths)[-1]
    for name in dispensable:
        if _find_least_width(widths, flexible) > width:
            widths.pop(name, None)
    excess = _add_widths(widths) - width
    if excess > 0:
        widths[flexible] = max(MIN_WRAP_COLUMNS, widths[flexible] - excess)
    for row in ({name: name for name in widths}, *rows):
        yield from _lay_out_row(row, widths, flexible, figures)


def _find_least_width(widths: Mapping[str, int], flexible: str) -> int:
    """Return the columns that a table needs; a last column may be as narrow as a wrapped text."""
    if flexible != list(widths)[-1]:
        return _add_widths(widths)
    return _add_widths({**widths, flexible: min(widths[flexible], MIN_WRAP_COLUMNS)})


def _add_widths(widths: Mapping[str, int]) -> int:
    return sum(widths.values()) + len(GAP) * (len(widths) - 1)


def _lay_out_row(
    row: Mapping[str, str], widths: Mapping[str, int], flexible: str, figures: Collection[str]
) -> Iterator[str]:
    """Yield the line of a row, and the lines below it if its last cell needs several."""
    first, *more = [row[flexible]]
    if flexible == list(widths)[-1] and count_columns(first) > widths[flexible]:
        first, *more = wrap_lines(first, widths[flexible])
    cells = {**row, flexible: first}
    line = [fit_cell(cells[name], width, is_figure=name in figures) for name, width in widths.items()]
    yield GAP.join(line).rstrip()
    margin = " " * (_add_widths(widths) - widths[flexible])
    yield from (f"{margin}{each}" for each in more)
