"""The ``chicory`` command: one file per sub-command, imported when it is used."""

from __future__ import annotations

from chicory.cli.root import main

__all__ = ["main"]
