"""Commands that plugins add."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chicory.builtin import BUILTINS
from chicory.config import ChicoryConfig
from chicory.plugins import Plugins

if TYPE_CHECKING:
    import click

__all__ = ["add_commands"]


def add_commands(cli: click.Group) -> None:
    """Let every plugin add its commands to *cli*."""
    Plugins(ChicoryConfig().plugins, builtins=BUILTINS).collect("chicory_cli", cli=cli)
