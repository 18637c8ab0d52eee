"""Writing the package of a plugin from its templates; what it must not be called, and why."""

from __future__ import annotations

import keyword
import re
from importlib.metadata import entry_points, version
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from chicory.builtin import BUILTINS
from chicory.config import BackendConfig, BrokerConfig, install_hint, known_variables
from chicory.errors import ConfigurationError
from chicory.plugin import API_VERSION
from chicory.plugins import CORE

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["KINDS", "package_files", "write_package"]

KINDS = ("broker", "middleware")

_TEMPLATES = Path(__file__).with_name("templates")
_SUFFIX = ".template"
_PLACE = "NAME"
"""Stands in the paths of templates for the plugin's name."""
_NAME = re.compile(r"[a-z][a-z0-9]{0,39}")


def write_package(name: str, kind: str, folder: Path) -> dict[Path, str]:
    """Write the package of a plugin of that *kind* into *folder*, as ``chicory-<name>``; return what was written, by its path.

    Raises:
        ConfigurationError: the name does not fit, or the package's folder is there already; nothing was written.
    """
    files = package_files(name, kind)
    package = folder / f"chicory-{name}"
    if package.exists():
        raise ConfigurationError(f"{str(package)!r} exists already: choose another name, or another folder with --into")
    written = {package / path: text for path, text in files.items()}
    try:
        for path, text in written.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{str(package)!r} cannot be written: {error.strerror or error}") from error
    return written


def package_files(name: str, kind: str) -> dict[Path, str]:
    """The files of a plugin's package, by their paths below its folder.

    Raises:
        ConfigurationError: the name does not fit; the text says why.
    """
    _check(name, kind)
    values = {
        "name": name,
        "Name": name.title(),
        "NAME": name.upper(),
        "api": repr(API_VERSION),
        "core": _compatible(version(CORE)),
    }
    files: dict[Path, str] = {}
    for source in (_TEMPLATES / "shared", _TEMPLATES / kind):
        for file in sorted(source.rglob(f"*{_SUFFIX}")):
            path = str(file.relative_to(source)).removesuffix(_SUFFIX).replace(_PLACE, name)
            files[Path(path)] = _filled(file, values)
    return dict(sorted(files.items()))


def _filled(file: Path, values: Mapping[str, str]) -> str:
    return Template(file.read_text(encoding="utf-8")).substitute(values)


def _compatible(release: str) -> str:
    """The releases of the core that a plugin written for *release* works with.

    >>> _compatible("0.3.1"), _compatible("2.5.0")
    ('>=0.3,<0.4', '>=2.5,<3')
    """
    major, minor = (int(part) for part in release.split(".")[:2])
    return f">={major}.{minor},<{major + 1}" if major else f">=0.{minor},<0.{minor + 1}"


def _check(name: str, kind: str) -> None:
    if name.startswith("chicory-"):
        bare = name.removeprefix("chicory-")
        raise ConfigurationError(f"the package will be called {name!r} anyway: write `chicory plugin new {bare}`")
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} cannot be the name of a plugin, for it is a URL scheme and a part of variables too: "
            "a letter, then letters and digits, all in lower case, 40 at most"
        )
    if reason := _taken_by(name, kind):
        raise ConfigurationError(f"{name!r} cannot be the name of a plugin, for {reason}: choose another")


def _taken_by(name: str, kind: str) -> str | None:
    """Why *name* is not free; None if it is."""
    if keyword.iskeyword(name):
        return "it is a word of Python"
    if name in BUILTINS or f"chicory-{name}" == CORE:
        return "chicory itself has it"
    if install_hint(name) is not None:
        return f"{install_hint(name)} has it"
    for entry in entry_points(group="chicory.plugins"):
        if entry.name == name:
            return f"{entry.dist.name if entry.dist is not None else entry.value}, which is installed, has it"
    prefix = f"CHICORY_{name.upper()}"
    theirs = sorted(v for v in known_variables(()) if v == prefix or v.startswith(f"{prefix}_"))
    if kind == "middleware" and (theirs or prefix in ("CHICORY_BROKER", "CHICORY_BACKEND", "CHICORY_WORKER", "CHICORY_TEST")):
        return f"its variables would begin as those of chicory do ({theirs[0] if theirs else prefix + '_'})"
    if kind == "broker" and any(hasattr(config, name) for config in (BrokerConfig, BackendConfig)):
        return f"`config.broker.{name}` means something else"
    return None
