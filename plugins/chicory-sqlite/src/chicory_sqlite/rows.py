"""Many rows in one statement.

A step of SQLite releases the GIL, and getting it back from a busy event loop can take 5 ms: a hundred single-row statements
would take half a second beside a busy loop. So each operation is one statement over a VALUES list, its length rounded up to a
power of two with rows of NULL (so that few texts need preparing), and what is read comes back as one JSON array.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

__all__ = ["MOST_ROWS", "chunks", "fetch_rows", "from_text", "placeholders", "to_text", "values"]

MOST_ROWS = 512
"""The most rows one statement takes: 512 rows of 17 columns are within SQLite's default limit of 32,766 parameters."""

_read_json = msgspec.json.Decoder(list[list[Any]]).decode


def chunks(rows: Sequence[Any]) -> list[Sequence[Any]]:
    """*rows* in pieces of `MOST_ROWS`."""
    return [rows[start : start + MOST_ROWS] for start in range(0, len(rows), MOST_ROWS)]


def values(rows: Sequence[tuple[Any, ...]]) -> tuple[str, list[Any]]:
    """A VALUES list for *rows* (columns ``column1`` …), padded with rows of NULL, and its parameters.

    >>> values([("a", 1), ("b", 2), ("c", 3)])
    ('(VALUES (?,?),(?,?),(?,?),(?,?))', ['a', 1, 'b', 2, 'c', 3, None, None])
    """
    width, length = len(rows[0]), 1 << (len(rows) - 1).bit_length()
    row = f"({','.join('?' * width)})"
    parameters = [cell for cells in rows for cell in cells]
    parameters.extend([None] * (width * (length - len(rows))))
    return f"(VALUES {','.join([row] * length)})", parameters


def placeholders(items: Sequence[Any]) -> tuple[str, list[Any]]:
    """``(?,?,…)`` for *items*, padded with NULL, and its parameters.

    >>> placeholders([7, 8, 9])
    ('(?,?,?,?)', [7, 8, 9, None])
    """
    length = 1 << (len(items) - 1).bit_length()
    return f"({','.join('?' * length)})", [*items, *[None] * (length - len(items))]


def fetch_rows(connection: sqlite3.Connection, columns: str, rest: str, parameters: Sequence[Any]) -> list[list[Any]]:
    """All rows of ``SELECT columns rest`` in one step; text, numbers and NULL only."""
    names = [name.strip() for name in columns.split(",")]
    inner = ", ".join(f"{name} AS c{number}" for number, name in enumerate(names))
    outer = ", ".join(f"c{number}" for number in range(len(names)))
    (data,) = connection.execute(
        f"SELECT json_group_array(json_array({outer})) FROM (SELECT {inner} {rest})",  # noqa: S608 - no value is in the text
        parameters,
    ).fetchone()
    return _read_json(data)


def to_text(data: bytes) -> tuple[str, bool]:
    """Bytes as a TEXT cell: themselves where they are UTF-8, else base64, and which of the two.

    A NUL would end the text for SQLite's JSON functions.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return base64.b64encode(data).decode(), True
    return (base64.b64encode(data).decode(), True) if "\0" in text else (text, False)


def from_text(text: str, is_raw: object) -> bytes:
    """The bytes that `to_text` made a cell of."""
    return base64.b64decode(text) if is_raw else text.encode()
