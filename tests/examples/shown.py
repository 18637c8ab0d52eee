"""What a text promises to appear, as a pattern: ``<...>`` stands for what varies, all else for itself."""

import re
import textwrap

_VARYING = re.compile(r"<[a-z][a-z ]*>")


def pattern_of(expected: str) -> re.Pattern[str]:
    """Matches output that has the lines of *expected*, and no others.

    >>> bool(pattern_of("sent <id>").fullmatch("sent 01a2")), bool(pattern_of("sent <id>").fullmatch("sent 1\\nsent 2"))
    (True, False)
    """
    parts = [re.escape(part) for part in _VARYING.split(expected.strip())]
    return re.compile(r"[^\n]+?".join(parts))


def section(docstring: str, heading: str) -> str | None:
    """The literal block under the line that begins with *heading* and ends with ``::``; None if there is none."""
    found = re.search(rf"^{heading}.*::\n\n((?:(?: {{4}}.*)?\n)+)", docstring + "\n", re.MULTILINE)
    return textwrap.dedent(found[1]).strip() if found else None
