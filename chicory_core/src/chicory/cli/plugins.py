"""``chicory plugins``."""

from __future__ import annotations

import warnings

import click

from chicory.app import Chicory
from chicory.cli.loading import launch_from, load_app, plugin_option
from chicory.cli.output import echo_json, echo_table
from chicory.execution import CORE_LAYERS
from chicory.launch import launching
from chicory.settings import ConfigurationWarning


@click.command("plugins")
@click.argument("app", envvar="CHICORY_APP", required=False, metavar="[APP]")
@plugin_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--pipeline", is_flag=True, help="Show the layers around every publish and execution, from the outside in.")
def command(app: str | None, plugins: tuple[str, ...], *, as_json: bool, pipeline: bool) -> None:
    """Show the installed plugins: what each offers, and whether it is active, blocked or broken, and why."""
    launch = launch_from(plugins=plugins)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConfigurationWarning)  # broken ones are in the table
        if app is not None:
            loaded = load_app(app, launch)
        else:
            with launching(launch):
                loaded = Chicory(broker="memory")
    if pipeline:
        _show_pipeline(loaded, as_json=as_json)
    else:
        _show_plugins(loaded, as_json=as_json)


def _show_plugins(app: Chicory, *, as_json: bool) -> None:
    infos = list(app.plugins)
    if as_json:
        echo_json(infos)
        return
    rows = [
        (info.name, info.distribution, info.version, info.state, info.reason or ", ".join(_short(o) for o in info.offers))
        for info in infos
    ]
    echo_table(("PLUGIN", "DISTRIBUTION", "VERSION", "STATE", "OFFERS OR REASON"), rows, empty="none")


def _show_pipeline(app: Chicory, *, as_json: bool) -> None:
    publish = _layers_of(app, "publish")
    own = [(int(stage), name, "core") for name, stage in CORE_LAYERS.items()]
    execute = sorted([*own, *_layers_of(app, "execute")], key=_order)
    rows = [("publish", *layer) for layer in publish] + [("execute", *layer) for layer in execute]
    if as_json:
        echo_json([{"around": around, "stage": stage, "layer": name, "plugin": plugin} for around, stage, name, plugin in rows])
        return
    echo_table(("AROUND", "STAGE", "LAYER", "FROM"), rows, empty="none")


def _layers_of(app: Chicory, around: str) -> list[tuple[int, str, str]]:
    """Stage, name and plugin of each layer that plugins offer, from the outside in."""
    offers = app.plugins.collect(f"chicory_{around}_middleware", app=app)
    return sorted(((int(layer.stage), layer.name, plugin) for plugin, layers in offers for layer in layers), key=_order)


def _order(layer: tuple[int, str, str]) -> tuple[int, str]:
    """As ``in_order`` composes them."""
    return layer[:2]


def _short(hook: str) -> str:
    return hook.removeprefix("chicory_").removeprefix("register_").replace("_", " ")
