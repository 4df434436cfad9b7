"""Tables and lists as text, for the terminal and for Markdown files."""

from collections.abc import Iterable, Sequence


def write_table(head: Sequence[str], rows: Iterable[Sequence[str | float | int]], *, align: bool = False) -> str:
    """Return a Markdown table.

    Args:
        head: Names of the columns.
        rows: Cells: integers get separators of thousands, other numbers four decimals, NaN a dash.
        align: Whether to pad the cells of a column to one width.
    """
    lines = [[_cell(value) for value in row] for row in (head, ["---"] * len(head), *rows)]
    if align:
        lines = _pad(lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def align_columns(rows: Sequence[Sequence[str]]) -> str:
    """Return lines with columns of one width each, two spaces apart."""
    return "\n".join("  ".join(line).rstrip() for line in _pad(rows))


def name_some(names: Sequence[object], *, most: int = 3) -> str:
    """Return the first names, separated by commas, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: `1 scene`, `1,200 scenes`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _pad(lines: Sequence[Sequence[str]]) -> list[list[str]]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return value.replace("|", "\\|")
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if value == value else "-"
