"""Finding, checking and loading plugins, and collecting what they offer."""

from __future__ import annotations

import inspect
import os
import warnings
from collections import defaultdict
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points, requires, version
from typing import TYPE_CHECKING, Any, TypeVar, cast, final

import pluggy
from msgspec import Struct
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from chicory import hookspecs
from chicory.config import CORE_SETTINGS, install_hint
from chicory.errors import PluginBrokenError, PluginConflictError, PluginNotFoundError
from chicory.plugin import API_VERSION
from chicory.settings import ConfigurationWarning

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from chicory.offers import BackendSpec, BrokerSpec, OptionSpec, SerializerSpec
    from chicory.settings import PluginSettings

__all__ = ["CORE", "PluginInfo", "Plugins", "split_names"]

CORE = "chicory-core"
_GROUP = "chicory.plugins"
_SCHEMES = "chicory.schemes"
_NO_AUTOLOAD = "CHICORY_DISABLE_PLUGIN_AUTOLOAD"
_PREFIX = "chicory_"
_SCHEME_OWNERS = {"rediss": "redis", "unix": "redis", "tls": "nats"}
"""Schemes of plugins of ours that are not called like their plugin: for the hint what to install."""

S = TypeVar("S")


@final
class PluginInfo(Struct, frozen=True, kw_only=True):
    """What ``chicory plugins`` shows of one plugin. ``state`` is active, blocked, broken or idle (found, not asked for)."""

    name: str
    distribution: str
    version: str
    state: str
    reason: str = ""
    offers: tuple[str, ...] = ()


def split_names(names: Iterable[str]) -> tuple[list[str], set[str]]:
    """Plugin names as asked for, and those blocked by ``no:NAME``.

    >>> split_names(["nats", "no:otel"])
    (['nats'], {'otel'})
    """
    names = list(names)
    asked = [name for name in names if not name.startswith("no:")]
    return asked, {name.removeprefix("no:") for name in names if name.startswith("no:")}


@final
class Plugins:
    """The plugins of one app.

    Everything installed is loaded, unless ``CHICORY_DISABLE_PLUGIN_AUTOLOAD`` is set: then what is asked for. A plugin that
    was asked for and cannot be loaded is an error; one that is merely installed is a warning.

    Raises:
        PluginNotFoundError: a name that was asked for is not installed.
        PluginBrokenError: a plugin that was asked for cannot be loaded.
        PluginConflictError: two distributions have a plugin of one name; one of them may be the core.
    """

    def __init__(self, names: Iterable[str] = (), *, builtins: Mapping[str, object]) -> None:
        self._asked, self._blocked = split_names(names)
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._found = _discover()
        self._infos: dict[str, PluginInfo] = {}
        for name, builtin in builtins.items():
            self._register(name, builtin, CORE, version(CORE))
            self._let_add_hooks(name)
        self._load_all()
        self._refuse_unknown_hooks()

    # --- what is there -------------------------------------------------------------------------

    def __iter__(self) -> Any:
        return iter(sorted(self._infos.values(), key=lambda info: info.name))

    def ensure(self, name: str) -> None:
        """Load the plugin *name* if it is installed and not loaded yet; raises as the constructor does."""
        info = self._infos.get(name)
        if name in self._found and (info is None or info.state == "idle"):
            self._load(name, self._found[name], asked=True)
            self._refuse_unknown_hooks()

    @contextmanager
    def including(self, name: str, plugin: object) -> Iterator[None]:
        """With one more plugin for a while, in place of one of that name: for tests."""
        before = self._manager.unregister(name=name) if self._manager.has_plugin(name) else None
        self._manager.register(plugin, name=name)
        try:
            yield
        finally:
            self._manager.unregister(name=name)
            if before is not None:
                self._manager.register(before, name=name)

    def collect(self, hook: str, **arguments: Any) -> list[tuple[str, Any]]:
        """Each plugin's answer to *hook*, as (plugin name, answer), ordered by plugin name; None answers are left out."""
        caller = getattr(self._manager.hook, hook)
        implementations = sorted(caller.get_hookimpls(), key=lambda implementation: implementation.plugin_name)
        answers = []
        for implementation in implementations:
            taken = {name: arguments[name] for name in implementation.argnames}
            try:
                answer = implementation.function(*(taken[name] for name in implementation.argnames))
            except Exception as error:
                name = implementation.plugin_name
                raise PluginBrokenError(name, self._distribution(name), f"{hook} raised {_cause(error)}") from error
            if answer is not None:
                answers.append((implementation.plugin_name, answer))
        return answers

    def brokers(self) -> dict[str, tuple[str, BrokerSpec]]:
        """By broker name: the plugin that offers it, and its spec."""
        return cast("dict[str, tuple[str, BrokerSpec]]", self._offers("chicory_register_brokers", "broker", "name"))

    def backends(self) -> dict[str, tuple[str, BackendSpec]]:
        """By backend name: the plugin that offers it, and its spec."""
        return cast("dict[str, tuple[str, BackendSpec]]", self._offers("chicory_register_backends", "backend", "name"))

    def serializers(self) -> dict[str, tuple[str, SerializerSpec]]:
        """By content type: the plugin that offers it, and its spec."""
        return cast(
            "dict[str, tuple[str, SerializerSpec]]",
            self._offers("chicory_register_serializers", "serializer", "content_type"),
        )

    def options(self, taken: Collection[str]) -> dict[str, OptionSpec]:
        """Options of tasks by name; *taken* are those of the core."""
        offered = cast("dict[str, tuple[str, OptionSpec]]", self._offers("chicory_task_options", "task option", "name"))
        for name in sorted(offered.keys() & set(taken)):
            raise PluginConflictError("task option", name, CORE, self._distribution(offered[name][0]))
        return {name: spec for name, (_, spec) in offered.items()}

    def settings(self, sections: Iterable[EntryPoint]) -> list[type[PluginSettings]]:
        """The groups of settings that plugins have, in *sections* and by their hook.

        Raises:
            PluginConflictError: two distributions read variables of one prefix; one of them may be the core.
        """
        owned = [(_distribution_of(entry), entry.load()) for entry in sections]
        owned += [(self._distribution(plugin), model) for plugin, model in self.collect("chicory_settings")]
        taken = {str(model.model_config.get("env_prefix")): CORE for model in CORE_SETTINGS}
        for distribution, model in owned:
            prefix = str(model.model_config.get("env_prefix"))
            if (owner := taken.setdefault(prefix, distribution)) != distribution:
                raise PluginConflictError("settings prefix", prefix, owner, distribution)
        return [model for _, model in owned]

    def owner_of(self, scheme: str) -> str:
        """The name of the plugin whose broker or backend a URL with *scheme* means, without importing any.

        Raises:
            PluginNotFoundError: no installed plugin has that scheme; the text says what to install.
            PluginConflictError: two plugins that are not blocked have it.
        """
        owners: dict[str, dict[str, str]] = defaultdict(dict)
        for entry in entry_points(group=_SCHEMES):
            owners[entry.name][entry.value] = _distribution_of(entry)
        for offered in (self.brokers(), self.backends()):
            for plugin, spec in offered.values():
                for name in spec.schemes:
                    owners[name][plugin] = self._distribution(plugin)
        if scheme not in owners:
            hint = install_hint(_SCHEME_OWNERS.get(scheme, scheme))
            raise PluginNotFoundError("URL scheme", scheme, tuple(sorted(owners)), hint)
        found = {name: where for name, where in owners[scheme].items() if name not in self._blocked} or owners[scheme]
        if len(found) > 1:
            first, second, *_ = sorted(found.values())
            raise PluginConflictError("URL scheme", scheme, first, second)
        return next(iter(found))

    def refuse_unknown(self, kind: str, name: str, known: Iterable[str]) -> PluginNotFoundError:
        """The error for a broker or backend *name* that nobody offers."""
        info = self._infos.get(name)
        blocked = f"no:{name}" if info is not None and info.state == "blocked" else None
        return PluginNotFoundError(kind, name, tuple(sorted(known)), install_hint(name), blocked)

    # --- loading -------------------------------------------------------------------------------

    def _load_all(self) -> None:
        autoload = not os.environ.get(_NO_AUTOLOAD)
        known = tuple(sorted({*self._found, *self._infos}))
        for name in self._asked:
            if name not in known:
                raise PluginNotFoundError("plugin", name, known, install_hint(name))
        for name, entry in sorted(self._found.items()):
            if name in self._blocked:
                self._infos[name] = self._info(name, entry, "blocked", "by no:" + name)
            elif name in self._infos:
                raise PluginConflictError("plugin", name, CORE, _distribution_of(entry))
            elif name in self._asked or autoload:
                self._load(name, entry, asked=name in self._asked)
            else:
                self._infos[name] = self._info(name, entry, "idle", f"{_NO_AUTOLOAD} is set")

    def _load(self, name: str, entry: EntryPoint, *, asked: bool) -> None:
        try:
            _check_requirements(entry)
            plugin = entry.load()
            _check_plugin(plugin)
            self._register(name, plugin, _distribution_of(entry), _version_of(entry))
            self._let_add_hooks(name)
        except Exception as error:  # noqa: BLE001 - the edge of a plugin's code: whatever its import raises, it is that plugin which is broken
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
            self._mark_broken(name, _cause(error), asked=asked, error=error)

    def _register(self, name: str, plugin: object, distribution: str, release: str) -> None:
        if name in self._blocked:
            self._infos[name] = PluginInfo(
                name=name, distribution=distribution, version=release, state="blocked", reason="by no:" + name
            )
            return
        self._manager.register(plugin, name=name)
        hooks = tuple(caller.name for caller in self._manager.get_hookcallers(plugin) or ())
        self._infos[name] = PluginInfo(
            name=name, distribution=distribution, version=release, state="active", offers=tuple(sorted(hooks))
        )

    def _let_add_hooks(self, name: str) -> None:
        for implementation in self._manager.hook.chicory_add_hookspecs.get_hookimpls():
            if implementation.plugin_name == name:
                implementation.function(*(self._manager for _ in implementation.argnames))

    def _refuse_unknown_hooks(self) -> None:
        """A hook that nobody specified is a misspelt one: its plugin would be silently without effect."""
        for caller in [c for n, c in vars(self._manager.hook).items() if n.startswith(_PREFIX)]:
            if caller.has_spec():
                continue
            for implementation in caller.get_hookimpls():
                name = implementation.plugin_name
                self._manager.unregister(name=name)
                known = tuple(n for n in vars(hookspecs) if n.startswith(_PREFIX))
                cause = f"it implements {caller.name}, which is no hook; there are {', '.join(sorted(known))}"
                self._mark_broken(name, cause, asked=name in self._asked, error=None)

    def _mark_broken(self, name: str, cause: str, *, asked: bool, error: Exception | None) -> None:
        entry = self._found.get(name)
        if asked or entry is None:
            raise PluginBrokenError(name, _distribution_of(entry) if entry else CORE, cause) from error
        self._infos[name] = self._info(name, entry, "broken", cause)
        warnings.warn(str(PluginBrokenError(name, _distribution_of(entry), cause)), ConfigurationWarning, stacklevel=6)

    # --- small steps ---------------------------------------------------------------------------

    def _offers(self, hook: str, kind: str, key: str) -> dict[str, tuple[str, object]]:
        offers: dict[str, tuple[str, object]] = {}
        for plugin, specs in self.collect(hook):
            for spec in specs:
                name = getattr(spec, key)
                if name in offers:
                    raise PluginConflictError(kind, name, self._distribution(offers[name][0]), self._distribution(plugin))
                offers[name] = (plugin, spec)
        return offers

    def _distribution(self, plugin: str) -> str:
        info = self._infos.get(plugin)
        return info.distribution if info else plugin

    def _info(self, name: str, entry: EntryPoint, state: str, reason: str) -> PluginInfo:
        return PluginInfo(
            name=name, distribution=_distribution_of(entry), version=_version_of(entry), state=state, reason=reason
        )


def _discover() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=_GROUP):
        other = found.get(entry.name)
        if other is not None and (other.value, _distribution_of(other)) != (entry.value, _distribution_of(entry)):
            raise PluginConflictError("plugin", entry.name, _distribution_of(other), _distribution_of(entry))
        found[entry.name] = entry
    return found


def _check_plugin(plugin: object) -> None:
    stated = getattr(plugin, "CHICORY_API", None)
    if stated is not None and (stated[0] != API_VERSION[0] or stated[1] > API_VERSION[1]):
        raise ImportError(
            f"it was written for plugin API {'.'.join(map(str, stated))}, and this chicory has "
            f"{'.'.join(map(str, API_VERSION))}: install matching versions of both"
        )
    for name in dir(plugin):
        implementation = getattr(plugin, name, None)
        if not name.startswith(_PREFIX) or not inspect.isroutine(implementation):
            continue
        marks = getattr(implementation, "chicory_impl", None)
        if marks is None:
            raise ImportError(f"{name} is not marked with @hookimpl")
        if marks.get("wrapper") or marks.get("hookwrapper"):
            raise ImportError(f"{name} is a hook wrapper; hooks of chicory only collect")
        if inspect.iscoroutinefunction(implementation):
            raise ImportError(f"{name} is an async function; hooks are plain, and what they return may be asynchronous")


def _check_requirements(entry: EntryPoint) -> None:
    """An editable or vendored plugin escapes the installer's check of its requirement on the core."""
    if entry.dist is None:
        return
    for line in requires(entry.dist.name) or ():
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        if canonicalize_name(requirement.name) == CORE and not requirement.specifier.contains(version(CORE), prereleases=True):
            raise ImportError(f"it requires {line}, and {CORE} {version(CORE)} is installed")


def _distribution_of(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.value


def _version_of(entry: EntryPoint) -> str:
    return entry.dist.version if entry.dist is not None else "?"


def _cause(error: BaseException) -> str:
    text = " ".join(str(error).split()) if isinstance(error, pluggy.PluginValidationError) else str(error).partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
