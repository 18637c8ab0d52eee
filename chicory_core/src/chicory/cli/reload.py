"""Notices that source files change, for ``chicory worker --reload``. Needs watchfiles, of the extra ``reload``."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from chicory.errors import ConfigurationError
from chicory.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

__all__ = ["call_on_changes", "require_watchfiles"]

_MORE_SUFFIXES = (".env", ".toml")
"""Beside Python files: where settings are read from."""
_SHOWN = 3


def require_watchfiles() -> None:
    """Return if files can be watched.

    Raises:
        ConfigurationError: watchfiles is not installed.
    """
    try:
        import watchfiles  # noqa: F401 - whether it can be
    except ImportError as error:
        raise ConfigurationError(
            "--reload needs watchfiles, which is not installed: run `pip install chicory-core[reload]`"
        ) from error


async def call_on_changes(folders: Sequence[Path], call: Callable[[], object]) -> None:
    """Call *call* after each burst of changes below *folders*, until cancelled."""
    from watchfiles import PythonFilter, awatch

    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it counts changes where we name them
    log = get_logger("reload")
    log.info("watching", folders=[str(folder) for folder in folders])
    async for changes in awatch(*folders, watch_filter=PythonFilter(extra_extensions=_MORE_SUFFIXES)):
        files = sorted({path for _, path in changes})
        log.info("files_changed", files=files[:_SHOWN], more=max(0, len(files) - _SHOWN))
        call()
