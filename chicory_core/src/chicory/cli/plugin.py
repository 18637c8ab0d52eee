"""``chicory plugin``: a package of one's own."""

from __future__ import annotations

from pathlib import Path

import click

from chicory.scaffold.package import KINDS, write_package


@click.group("plugin")
def command() -> None:
    """Write a plugin of your own."""


@command.command("new")
@click.argument("name")
@click.option("--kind", type=click.Choice(KINDS), required=True, help="What the plugin offers.")
@click.option(
    "--into",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    help="Where the package's folder is made; here, if not given.",
)
def new(name: str, kind: str, into: Path) -> None:
    """Write the package chicory-NAME: a plugin that works, with tests that inherit the suites, to be made yours.

    NAME is what its users will write: --plugin NAME, CHICORY_NAME_*, and for a broker NAME:// too.
    """
    for path, text in write_package(name, kind, into).items():
        click.echo(f"{path}  {len(text.splitlines())} lines")
    click.echo(f"now run: cd {into / f'chicory-{name}'} && pip install -e '.[testing]' && pytest")
