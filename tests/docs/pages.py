"""The pages of the documentation, taken apart: blocks of code, lines of prose, headings, links."""

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^```(\S*)\s*(.*)$")
_NO_RUN = re.compile(r"^<!-- no-run: (.+) -->$")
_HIDDEN = "<!-- run"


@dataclass
class Block:
    """A fenced block of code, or (``is_hidden``) one in an HTML comment that is run and not shown."""

    line: int
    language: str
    info: dict[str, str]
    text: str
    no_run: str | None = None
    is_hidden: bool = False

    @property
    def file(self) -> str | None:
        """The file that this block is to be put into: ``title="tasks.py"``, or a first line ``# tasks.py``."""
        named = re.match(r"# ([\w/]+\.py)\n", self.text) if self.language == "python" else None
        return self.info.get("title") or (named[1] if named else None)


@dataclass
class Page:
    path: Path
    blocks: list[Block] = field(default_factory=list)
    prose: list[tuple[int, str]] = field(default_factory=list)
    """Every line outside of blocks and comments, with its number."""

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix() if self.path.is_relative_to(ROOT) else self.path.name

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def headings(self) -> list[str]:
        return [line.lstrip("#").strip() for _, line in self.prose if line.startswith("#")]

    @property
    def anchors(self) -> set[str]:
        return {anchor_of(heading) for heading in self.headings}

    def under(self, heading: str) -> list[Block]:
        """The blocks between this heading and the next one of any level."""
        numbers = [(number, line.lstrip("#").strip()) for number, line in self.prose if line.startswith("#")]
        starts = [number for number, text in numbers if text == heading]
        assert starts, f"{self.name} has no heading {heading!r}"
        end = min((number for number, _ in numbers if number > starts[0]), default=10**9)
        return [block for block in self.blocks if starts[0] < block.line < end]


def anchor_of(heading: str) -> str:
    """The anchor that GitHub and mkdocs make of a heading."""
    kept = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
    return kept.strip().replace(" ", "-")


def read_page(path: Path) -> Page:
    """Take *path* apart.

    Raises:
        ValueError: a block or comment that never ends.
    """
    page = Page(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    at = 0
    no_run: str | None = None
    while at < len(lines):
        line = lines[at]
        if found := _FENCE.match(line):
            end = _index(lines, "```", at + 1, path)
            info = dict(part.split("=", 1) for part in shlex.split(found[2]))
            text = "\n".join(lines[at + 1 : end]) + "\n"
            page.blocks.append(Block(at + 1, found[1], info, text, no_run))
            at, no_run = end + 1, None
        elif line == _HIDDEN:
            end = _index(lines, "-->", at + 1, path)
            page.blocks.append(Block(at + 1, "python", {}, "\n".join(lines[at + 1 : end]) + "\n", is_hidden=True))
            at = end + 1
        elif found := _NO_RUN.match(line):
            no_run, at = found[1], at + 1
        else:
            page.prose.append((at + 1, line))
            at += 1
    return page


def _index(lines: list[str], end: str, start: int, path: Path) -> int:
    try:
        return lines.index(end, start)
    except ValueError:
        raise ValueError(f"{path}:{start}: nothing ends what begins here") from None


def all_pages() -> list[Page]:
    """The pages in ``docs``, and the README files that have something in them."""
    readmes = [ROOT / "README.md", *sorted(ROOT.glob("plugins/*/README.md"))]
    return [read_page(path) for path in (*sorted(DOCS.rglob("*.md")), *readmes) if path.exists() and path.read_text().strip()]
