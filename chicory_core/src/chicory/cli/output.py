"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["echo_json", "echo_table", "seconds_text"]


def echo_table(headers: Sequence[str], rows: Sequence[Sequence[Any]], *, empty: str) -> None:
    """Print *rows* under *headers* in columns; numbers to the right. Without rows, print *empty*."""
    if not rows:
        click.echo(empty)
        return
    cells = [[("-" if cell is None else str(cell)) for cell in row] for row in rows]
    widths = [max(len(header), *(len(row[i]) for row in cells)) for i, header in enumerate(headers)]
    is_number = [all(isinstance(row[i], (int, float, type(None))) for row in rows) for i in range(len(headers))]
    click.echo(_line(headers, widths, is_number))
    for row in cells:
        click.echo(_line(row, widths, is_number))


def echo_json(value: Any) -> None:
    """Print *value* as indented JSON."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def seconds_text(seconds: float | None) -> str | None:
    """A span of time for people.

    >>> seconds_text(4000)
    '1h06m'
    """
    if seconds is None:
        return None
    whole = int(seconds)
    if whole < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f}s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}m{rest:02}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02}m"  # noqa: PLR2004


def _line(cells: Sequence[str], widths: Sequence[int], is_number: Sequence[bool]) -> str:
    padded = (c.rjust(w) if n else c.ljust(w) for c, w, n in zip(cells, widths, is_number, strict=True))
    return "  ".join(padded).rstrip()
