"""What chicory finds under the entry point ``dlq``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chicory.plugin import App, ComponentSpec, ExecuteMiddleware, OptionSpec, PluginSettings, hookimpl
from chicory_dlq.dead_letters import DeadLetters
from chicory_dlq.layer import OPTION, STAGE, DeadLetterLayer
from chicory_dlq.settings import DlqConfig

if TYPE_CHECKING:
    import click

CHICORY_API = (1, 0)


@hookimpl
def chicory_settings() -> type[PluginSettings]:
    return DlqConfig


@hookimpl
def chicory_task_options() -> list[OptionSpec]:
    return [OptionSpec(name=OPTION, type=bool)]


@hookimpl
def chicory_register_components() -> list[ComponentSpec]:
    return [ComponentSpec(protocol=DeadLetters, name="dead letters", build=_dead_letters)]


@hookimpl
def chicory_execute_middleware(app: App) -> list[ExecuteMiddleware]:
    return [ExecuteMiddleware(stage=STAGE, name="dlq", layer=DeadLetterLayer(app, DlqConfig()))]


@hookimpl
def chicory_cli(cli: click.Group) -> None:
    from chicory_dlq.commands import dlq

    cli.add_command(dlq)


def _dead_letters(app: Any) -> DeadLetters:
    return DeadLetters(app, DlqConfig())
