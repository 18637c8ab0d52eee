"""What the unit tests share: a process without settings, and a place for plugins that exist only in one test."""

import os
import sys
import textwrap
from importlib import metadata

import pytest


@pytest.fixture
def no_settings(tmp_path, monkeypatch):
    """An empty working directory, and no variable of chicory in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.upper().startswith("CHICORY_")]:
        monkeypatch.delenv(name)
    return tmp_path


class Site:
    """A directory of installed distributions, the only ones in which chicory finds plugins."""

    def __init__(self, folder):
        self.folder = folder
        self.modules = set()

    def install(self, module, source, *, distribution=None, entry_points=None, requires=(), version="1.0"):
        """A distribution with one module; *entry_points* are ``{group: {name: value}}``."""
        distribution = distribution or f"the-{module}"
        self.modules.add(module)
        (self.folder / f"{module}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        info = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        needs = "".join(f"Requires-Dist: {line}\n" for line in requires)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n{needs}")
        groups = {"chicory.plugins": {module: module}} if entry_points is None else entry_points
        lines = [f"[{group}]\n" + "".join(f"{n} = {v}\n" for n, v in names.items()) for group, names in groups.items()]
        (info / "entry_points.txt").write_text("\n".join(lines))

    def entry_points(self, *, group):
        found = metadata.distributions(path=[str(self.folder)])
        return [entry for distribution in found for entry in distribution.entry_points if entry.group == group]


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Hides the plugins of this machine, so that the same tests pass with and without them."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    site = Site(folder)
    monkeypatch.syspath_prepend(folder)
    for module in ("chicory.plugins", "chicory.config"):
        monkeypatch.setattr(f"{module}.entry_points", site.entry_points)
    yield site
    for module in site.modules:
        sys.modules.pop(module, None)
