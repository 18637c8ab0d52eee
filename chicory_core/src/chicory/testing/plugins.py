"""``PluginSuite``: what every plugin package keeps to, whatever it offers."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest

from chicory.builtin import BUILTINS
from chicory.plugin import API_VERSION, PluginSettings
from chicory.plugins import Plugins

__all__ = ["PUBLIC_MODULES", "PluginSuite"]

PUBLIC_MODULES = frozenset({"chicory", "chicory.plugin", "chicory.errors", "chicory.config", "chicory.cli", "chicory.testing"})
"""What a plugin may import of chicory."""


class PluginSuite:
    """The contract of a plugin package, which must be installed.

    A subclass gives ``name`` (of its entry point), ``client_libraries`` (top-level modules that importing the plugin must not
    bring in: only its factories do), and ``settings`` (its groups of settings).
    """

    name: str
    client_libraries: tuple[str, ...] = ()
    settings: tuple[type[PluginSettings], ...] = ()

    @property
    def entry(self) -> EntryPoint:
        found = [entry for entry in entry_points(group="chicory.plugins") if entry.name == self.name]
        assert found, f"no plugin {self.name!r} is installed: pip install -e its package"
        return found[0]

    @property
    def folder(self) -> Path:
        spec = find_spec(self.entry.module.partition(".")[0])
        assert spec is not None and spec.submodule_search_locations, f"{self.entry.module} is not a package"
        return Path(spec.submodule_search_locations[0])

    def test_it_is_found_and_active(self) -> None:
        (info,) = [info for info in Plugins([self.name], builtins=BUILTINS) if info.name == self.name]
        assert (info.state, info.reason) == ("active", "")
        assert info.offers

    def test_it_can_be_blocked(self) -> None:
        (info,) = [info for info in Plugins([f"no:{self.name}"], builtins=BUILTINS) if info.name == self.name]
        assert info.state == "blocked"

    def test_it_states_its_api(self) -> None:
        stated = self.entry.load().CHICORY_API
        assert stated[0] == API_VERSION[0]
        assert stated[1] <= API_VERSION[1]

    def test_importing_it_brings_in_no_client_library(self) -> None:
        code = f"import sys, {self.entry.module}; print([n for n in {self.client_libraries!r} if n in sys.modules])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603 - our own code
        assert done.stdout.strip() == "[]"

    def test_it_imports_public_names_only(self) -> None:
        private = []
        for file in sorted(self.folder.rglob("*.py")):
            imports = (
                n for n in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(n, ast.Import | ast.ImportFrom)
            )
            for node in imports:
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
                names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                ours = [name for name in names if name == "chicory" or name.startswith("chicory.")]
                private += [f"{file.name}:{node.lineno} {name}" for name in ours if name not in PUBLIC_MODULES]
        assert private == []

    def test_it_is_typed(self) -> None:
        assert (self.folder / "py.typed").exists()

    def test_every_setting_is_documented(self) -> None:
        text = self._readme() if self.settings else ""
        for model in self.settings:
            for field in model.model_fields:
                assert f"`{field}`" in text, f"{model.__name__}.{field} is not in the README.md of {self.folder.name}"

    def _readme(self) -> str:
        """Beside the source; or, of a package that is not installed as editable, the description of its distribution."""
        folder = self.folder.parent.parent if self.folder.parent.name == "src" else self.folder
        if (readme := folder / "README.md").exists():
            return readme.read_text(encoding="utf-8")
        description = self.entry.dist.metadata.json.get("description") if self.entry.dist is not None else None
        if not description:
            pytest.fail(f"{folder} has no README.md to document its settings in, and its distribution no description")
        return str(description)

    def test_settings_have_a_prefix_of_their_own(self) -> None:
        for model in self.settings:
            prefix = str(model.model_config.get("env_prefix"))
            assert prefix.startswith("CHICORY_")
            assert prefix.endswith("_")
            assert prefix not in ("CHICORY_", "CHICORY_WORKER_", "CHICORY_BROKER_", "CHICORY_BACKEND_")
