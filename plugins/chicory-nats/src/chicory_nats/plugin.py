"""What chicory finds under the entry point ``nats``. Imports no client library before a broker or backend is wanted."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from chicory.errors import ConfigurationError
from chicory.plugin import App, BackendSpec, BrokerSpec, DoctorCheck, Place, hookimpl, mask

if TYPE_CHECKING:
    from ssl import SSLContext

    from chicory_nats.backend import NatsBackend
    from chicory_nats.broker import NatsBroker
    from chicory_nats.server import Place as ServerPlace
    from chicory_nats.settings import ServerSection

CHICORY_API = (1, 0)
_SCHEMES = ("nats", "tls")
_PORT = 4222


@hookimpl
def chicory_register_brokers() -> list[BrokerSpec]:
    return [BrokerSpec(name="nats", schemes=_SCHEMES, build=_broker)]


@hookimpl
def chicory_register_backends() -> list[BackendSpec]:
    return [BackendSpec(name="nats", schemes=_SCHEMES, build=_backend)]


@hookimpl
def chicory_doctor(app: App) -> list[DoctorCheck]:
    from chicory_nats.checks import Checks

    return [Checks(app)]


def _broker(place: Place) -> NatsBroker:
    from chicory_nats.broker import NatsBroker

    return NatsBroker(server_place(place.config.broker.nats, place.url))


def _backend(place: Place) -> NatsBackend:
    from chicory_nats.backend import NatsBackend
    from chicory_nats.broker import NatsBroker

    section = place.config.backend.nats
    if place.url is None and isinstance(place.broker, NatsBroker) and not section.model_fields_set - {"result_ttl"}:
        return NatsBackend(place.broker.place)
    return NatsBackend(server_place(section, place.url))


def server_place(section: ServerSection, url: str | None) -> ServerPlace:
    """The servers that *url* means, else the section's own, with the section's other settings.

    Raises:
        ConfigurationError: the URL names no server, or a setting that there is not.
    """
    section, hosts = _with_url(section, url or section.url)

    from chicory_nats.names import Names
    from chicory_nats.server import Place as ServerPlace

    scheme = "tls" if section.tls else "nats"
    servers = tuple(f"{scheme}://{host}" for host in hosts)
    return ServerPlace(
        servers=servers,
        address=f"{scheme}://{','.join(hosts)}",
        names=Names(section.namespace),
        replicas=section.replicas,
        timeout=section.request_timeout,
        options=_options(section),
        make_tls=partial(_tls, section) if section.tls else None,
        monitor_url=getattr(section, "monitor_url", None),
    )


def _options(section: ServerSection) -> dict[str, Any]:
    """Those of nats-py's ``connect``."""
    said: dict[str, Any] = {
        "user": section.username,
        "password": None if section.password is None else section.password.get_secret_value(),
        "token": None if section.token is None else section.token.get_secret_value(),
        "user_credentials": section.creds_file,
        "nkeys_seed": section.nkey_file,
        "tls_hostname": section.tls_hostname,
    }
    return {"inbox_prefix": section.inbox_prefix, "name": "chicory", **{k: v for k, v in said.items() if v is not None}}


def _tls(section: ServerSection) -> SSLContext:
    import ssl

    context = ssl.create_default_context(cafile=section.tls_ca_file)
    if section.tls_cert_file is not None:
        context.load_cert_chain(section.tls_cert_file, section.tls_key_file)
    return context


def _with_url(section: ServerSection, url: str | None) -> tuple[ServerSection, list[str]]:
    """The section with what *url* says in place of its own; and the servers."""
    if url is None:
        return section, [_host(section.host, section.port)]
    first, *others = url.split(",")
    tail = urlsplit(url).query
    parts = urlsplit(first)
    if parts.scheme not in _SCHEMES or not parts.hostname:
        raise ConfigurationError(f"{mask(url)!r} is no address of NATS: write nats://HOST:PORT or tls://HOST:PORT")
    hosts = [_host(parts.hostname, parts.port or _PORT)]
    for other in others:
        more = urlsplit(other if "://" in other else f"{parts.scheme}://{other}")
        if more.scheme != parts.scheme or not more.hostname:
            raise ConfigurationError(f"{mask(url)!r} names servers of several kinds: all are {parts.scheme}:// or none")
        hosts.append(_host(more.hostname, more.port or _PORT))
    said: dict[str, Any] = dict(parse_qsl(tail))
    said["tls"] = parts.scheme == "tls"
    if parts.username and parts.password is None:
        said["token"] = unquote(parts.username)
    elif parts.username:
        said |= {"username": unquote(parts.username), "password": unquote(parts.password or "")}
    unknown = said.keys() - type(section).model_fields.keys()
    if unknown:
        raise ConfigurationError(f"{mask(url)!r} sets {', '.join(sorted(unknown))}, which NATS has no setting for")
    return type(section)(**{**section.model_dump(exclude={"url"}), **said}), hosts


def _host(name: str, port: int) -> str:
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
