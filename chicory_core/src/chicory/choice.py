"""Which broker and which backend an app works with: the rules of precedence, in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast, final
from urllib.parse import urlsplit

import pydantic
from msgspec import Struct

from chicory.backend import Backend
from chicory.broker import Broker
from chicory.config import EMBEDDED_BROKER
from chicory.errors import ConfigurationError, PluginNotFoundError
from chicory.logs import get_logger
from chicory.offers import Place
from chicory.plugins import split_names
from chicory.settings import readable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chicory.clock import Clock
    from chicory.config import ChicoryConfig
    from chicory.launch import Launch
    from chicory.offers import BackendSpec, BrokerSpec
    from chicory.plugins import Plugins

__all__ = ["UNSET", "Choice", "Chosen", "Unset"]


@final
class Unset:
    """An argument that was not given; None is a choice of its own."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset()
_NONE = "none"


@final
class Chosen(Struct, frozen=True, kw_only=True):
    """What an app works with. ``plugin`` is the one that offers the broker; None where an object was handed in."""

    broker: Broker
    backend: Backend | None
    plugin: str | None
    result_ttl: float
    """Seconds for which results are kept: as the backend's section says, else the configuration."""


@final
class Choice:
    """Chooses, highest first: command line, plugins asked for by name, argument, config object, environment, default."""

    def __init__(self, plugins: Plugins, config: ChicoryConfig, launch: Launch, clock: Clock) -> None:
        self._plugins, self._config, self._launch, self._clock = plugins, config, launch, clock
        self._shared: dict[str, Any] = {}
        self._log = get_logger("config")

    def make(self, broker: object, backend: object) -> Chosen:
        """Build what *broker* and *backend* (arguments of the app: a name, a URL, an object, `UNSET`, None) come to.

        Raises:
            PluginNotFoundError: a name or scheme that nobody offers.
            ConfigurationError: an argument of another kind.
        """
        plugin, url, built = self._broker(broker)
        self._result_ttl = self._config.result_ttl
        chosen = self._backend(backend, plugin, url, built)
        return Chosen(broker=built, backend=chosen, plugin=plugin, result_ttl=self._result_ttl)

    # --- broker --------------------------------------------------------------------------------

    def _broker(self, argument: object) -> tuple[str | None, str | None, Broker]:
        settings = self._config.broker
        if self._launch.broker is not None:
            return self._named_broker(self._launch.broker)
        if (name := self._only_one(self._plugins.brokers())) is not None:
            if argument is not UNSET:
                self._log.info("broker_overridden", by_plugin=name)
            return self._named_broker(name)
        if isinstance(argument, str):
            return self._named_broker(argument)
        if argument is not UNSET and argument is not None:
            return self._given_broker(argument)
        if settings.given_url is None and len(settings.given) == 1:
            return self._named_broker(settings.given[0])
        return self._named_broker(settings.url or EMBEDDED_BROKER)

    def _named_broker(self, text: str) -> tuple[str | None, str | None, Broker]:
        offers = self._plugins.brokers
        name, url = self._resolve(text, "broker", offers())
        if name not in offers():
            self._plugins.ensure(name)
        if name not in offers():
            raise self._plugins.refuse_unknown("broker", name, offers())
        plugin, spec = offers()[name]
        if url is None and _fits(self._config.broker.url, spec.schemes):
            url = self._config.broker.url
        place = Place(url=url, config=self._config, clock=self._clock, shared=self._shared)
        return plugin, url, _built(spec, place)

    def _given_broker(self, argument: object) -> tuple[str | None, str | None, Broker]:
        if not _has(argument, "publish", "receive", "settle", "capabilities"):
            raise ConfigurationError(
                f"broker= takes a name, a URL or a broker object, and {type(argument).__name__} is none of them"
            )
        given: Broker = argument  # type: ignore[assignment] # checked by shape; the suite checks the rest
        scheme = urlsplit(given.address).scheme
        owner = next((p for p, spec in self._plugins.backends().values() if scheme in spec.schemes), None)
        return owner, None, given

    # --- backend -------------------------------------------------------------------------------

    def _backend(self, argument: object, plugin: str | None, broker_url: str | None, broker: Broker) -> Backend | None:
        settings = self._config.backend
        if self._launch.backend is not None:
            return None if self._launch.backend == _NONE else self._named_backend(self._launch.backend, broker)
        if argument is None:
            return None
        if (name := self._only_one(self._plugins.backends())) is not None and settings.given_url is None:
            if argument is not UNSET:
                self._log.info("backend_overridden", by_plugin=name)
            beside = self._plugins.backends()[name][0] == plugin
            return self._named_backend(name, broker, beside_url=broker_url if beside else None)
        if isinstance(argument, str):
            return self._named_backend(argument, broker)
        if argument is not UNSET:
            return self._given_backend(argument)
        if settings.given_url is None and len(settings.given) == 1:
            return self._named_backend(settings.given[0], broker)
        if settings.url:
            return self._named_backend(settings.url, broker)
        beside_name = next((n for n, (p, _) in self._plugins.backends().items() if p == plugin), None)
        return None if beside_name is None else self._named_backend(beside_name, broker, beside_url=broker_url)

    def _named_backend(self, text: str, broker: Broker, *, beside_url: str | None = None) -> Backend:
        offers = self._plugins.backends
        name, url = self._resolve(text, "backend", offers())
        if name not in offers():
            self._plugins.ensure(name)
        if name not in offers():
            raise self._plugins.refuse_unknown("backend", name, offers())
        _, spec = offers()[name]
        if url is None:
            url = self._config.backend.url if _fits(self._config.backend.url, spec.schemes) else beside_url
        place = Place(url=url, config=self._config, clock=self._clock, broker=broker, shared=self._shared)
        self._result_ttl = self._ttl_of(name)
        return cast("Backend", _built(spec, place))

    def _ttl_of(self, name: str) -> float:
        try:
            own = self._config.backend.section(name).result_ttl
        except PluginNotFoundError:  # not every backend has a section
            own = None
        except pydantic.ValidationError as error:
            raise ConfigurationError(f"settings: {readable(error)}") from error
        return self._config.result_ttl if own is None else own

    def _given_backend(self, argument: object) -> Backend:
        if not _has(argument, "store", "fetch", "wait"):
            raise ConfigurationError(
                f"backend= takes a name, a URL, a backend object or None, and {type(argument).__name__} is none of them"
            )
        given: Backend = argument  # type: ignore[assignment] # checked by shape; the suite checks the rest
        return given

    # --- names and URLs ------------------------------------------------------------------------

    def _resolve(self, text: str, kind: str, offers: dict[str, tuple[str, Any]]) -> tuple[str, str | None]:
        """The name of a broker or backend, and the URL if *text* is one."""
        if "://" not in text:
            return str(text), None
        scheme = urlsplit(text).scheme
        plugin = self._plugins.owner_of(scheme)
        self._plugins.ensure(plugin)
        current = self._plugins.brokers() if kind == "broker" else self._plugins.backends()
        for name, (_, spec) in current.items():
            if scheme in spec.schemes:
                return name, text
        raise self._plugins.refuse_unknown(kind, plugin, offers)

    def _only_one(self, offers: dict[str, tuple[str, BrokerSpec]] | dict[str, tuple[str, BackendSpec]]) -> str | None:
        """The one broker (backend) offered by the plugins that were asked for by name."""
        for asked in (self._launch.plugins, self._config.plugins):
            found = _offered_by(split_names(asked)[0], offers)
            if len(found) == 1:
                return found[0]
        return None


def _has(argument: object, *names: str) -> bool:
    """An object, not its class, with these attributes."""
    return not isinstance(argument, type) and all(hasattr(argument, name) for name in names)


def _offered_by(plugins: Sequence[str], offers: dict[str, Any]) -> list[str]:
    return [name for name, (plugin, _) in offers.items() if plugin in plugins]


def _built(spec: Any, place: Place) -> Any:
    try:
        return spec.build(place)
    except pydantic.ValidationError as error:
        raise ConfigurationError(f"settings: {readable(error)}") from error


def _fits(url: str | None, schemes: Sequence[str]) -> bool:
    return url is not None and urlsplit(url).scheme in schemes
