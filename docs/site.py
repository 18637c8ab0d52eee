"""What the site needs beside mkdocs' own: files of ``examples/`` that pages link to, and doctests shown as code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from griffe import Extension
from mkdocs.structure.files import File

if TYPE_CHECKING:
    import griffe
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parents[1]
SHIPPED = ("examples/deploy",)

_DOCTEST = re.compile(r"^>>> .*?(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files, at the place that they have in the repository, seen from its root."""
    for folder in SHIPPED:
        for path in sorted((ROOT / folder).iterdir()):
            if path.is_file():
                name = path.relative_to(ROOT).as_posix()
                files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lead links that leave ``docs/`` for such a file to its place in the site, one folder less far up."""
    return markdown.replace("](../../examples/", "](../examples/")


class Doctests(Extension):
    """Fences the doctests of docstrings: as prose, ``>>>`` is a quotation, and ``[…]`` a link."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(docstring: str) -> str:
    r"""*docstring* with each run of doctest lines as a block of code.

    >>> print(fenced("Twice.\n\n>>> 1 + 1\n2\n\nThat is it."))
    Twice.
    <BLANKLINE>
    ```pycon
    >>> 1 + 1
    2
    ```
    <BLANKLINE>
    That is it.
    """
    return _DOCTEST.sub(lambda found: f"```pycon\n{found[0].rstrip()}\n```", docstring)
