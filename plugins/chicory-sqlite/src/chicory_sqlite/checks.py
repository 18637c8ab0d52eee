"""What ``chicory doctor`` finds out about a file that keeps messages or results."""

from __future__ import annotations

import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, final

from chicory.errors import BackendNotConfiguredError
from chicory.plugin import Finding
from chicory_sqlite.backend import SqliteBackend
from chicory_sqlite.broker import SqliteBroker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chicory.plugin import App
    from chicory_sqlite.tables import File

__all__ = ["Checks"]

_LITTLE = 200 * 1024**2


@final
class Checks:
    """The checks for the files of one app: of its broker, its backend, or both."""

    def __init__(self, app: App) -> None:
        parts: list[object] = [app.broker_twin()]
        with suppress(BackendNotConfiguredError):
            parts.append(app.backend_twin())
        files = [part.file for part in parts if isinstance(part, SqliteBroker | SqliteBackend)]
        self._files: dict[Path, File] = {}
        for file in files:
            self._files.setdefault(file.path, file)

    async def __call__(self) -> list[Finding]:
        return [finding for file in self._files.values() for finding in self._look_at(file)]

    def _look_at(self, file: File) -> Iterator[Finding]:
        path = file.path
        yield Finding.ok(f"{path}, durability {file.durability}")
        if file.durability != "full":
            what = f"durability is {file.durability!r}: a power cut may undo the last commits, accepted calls among them"
            yield Finding.warning(what, "set durability to full, unless what is lost can be sent again")
        if file.is_relative:
            what = "the path is relative: a process that is started in another directory uses another file"
            yield Finding.warning(what, f"for more than trying out, name it from the root, as sqlite:///{path}")
        yield from _on_disk(path)


def _on_disk(path: Path) -> Iterator[Finding]:
    if path.exists() and (mode := stat.S_IMODE(path.stat().st_mode)) & 0o077:
        what = f"others may use the file (its mode is {mode:o}): it holds the arguments and results of all tasks"
        yield Finding.warning(what, f"chmod 600 {path}, unless workers of several users share it")
    folder = next(parent for parent in path.parents if parent.exists())
    if (free := shutil.disk_usage(folder).free) < _LITTLE:
        what = f"{free // 1024**2} MiB are free on its disk: with none, no call is accepted and no task ends"
        yield Finding.warning(what, "make room, or move the file")
