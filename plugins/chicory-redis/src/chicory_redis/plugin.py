"""What chicory finds under the entry point ``redis``. Imports no client library before a broker or backend is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from chicory.errors import ConfigurationError
from chicory.plugin import App, BackendSpec, BrokerSpec, DoctorCheck, Place, hookimpl, mask

if TYPE_CHECKING:
    from chicory_redis.backend import RedisBackend
    from chicory_redis.broker import RedisBroker
    from chicory_redis.server import Place as ServerPlace
    from chicory_redis.settings import ServerSection

CHICORY_API = (1, 0)
_SCHEMES = ("redis", "rediss", "unix")
_PORT = 6379


@hookimpl
def chicory_register_brokers() -> list[BrokerSpec]:
    return [BrokerSpec(name="redis", schemes=_SCHEMES, build=_broker)]


@hookimpl
def chicory_register_backends() -> list[BackendSpec]:
    return [BackendSpec(name="redis", schemes=_SCHEMES, build=_backend)]


@hookimpl
def chicory_doctor(app: App) -> list[DoctorCheck]:
    from chicory_redis.checks import Checks

    return [Checks(app)]


def _broker(place: Place) -> RedisBroker:
    from chicory_redis.broker import RedisBroker

    return RedisBroker(server_place(place.config.broker.redis, place.url))


def _backend(place: Place) -> RedisBackend:
    from chicory_redis.backend import RedisBackend
    from chicory_redis.broker import RedisBroker

    section = place.config.backend.redis
    if place.url is None and isinstance(place.broker, RedisBroker) and not section.model_fields_set - {"result_ttl"}:
        return RedisBackend(place.broker.place)
    return RedisBackend(server_place(section, place.url))


def server_place(section: ServerSection, url: str | None) -> ServerPlace:
    """The server that *url* means, else the section's own, with the section's other settings.

    Raises:
        ConfigurationError: the URL names no server, or a setting that there is not.
    """
    section = _with_url(section, url or section.url)
    kind = "unix" if section.host.startswith("/") else "tls" if section.tls else "tcp"
    options: dict[str, Any] = {"username": section.username}
    if section.password is not None:
        options["password"] = section.password.get_secret_value()
    if kind == "unix":
        options["path"] = section.host
    else:
        options |= {"host": section.host, "port": section.port}
    if kind == "tls":
        files = {"ca_certs": section.tls_ca_file, "certfile": section.tls_cert_file, "keyfile": section.tls_key_file}
        options |= {f"ssl_{name}": file for name, file in files.items() if file is not None}

    from chicory_redis.server import Place as ServerPlace

    host = section.host if kind == "unix" else f"{section.host}:{section.port}"
    scheme = {"tcp": "redis", "tls": "rediss", "unix": "unix"}[kind]
    return ServerPlace(
        kind=kind,
        address=f"{scheme}://{host}/{section.db}" if kind != "unix" else f"unix://{host}?db={section.db}",
        host=host,
        db=section.db,
        prefix=section.key_prefix,
        group=getattr(section, "consumer_group", "chicory"),
        timeout=section.socket_timeout,
        options=options,
    )


def _with_url(section: ServerSection, url: str | None) -> ServerSection:
    """The section with what *url* says in place of its own."""
    if url is None:
        return section
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES:
        raise ConfigurationError(f"{mask(url)!r} is no address of Redis: write redis://HOST:PORT/DB, rediss:// or unix:///PATH")
    said: dict[str, Any] = dict(parse_qsl(parts.query))
    said["tls"] = parts.scheme == "rediss"
    if parts.scheme == "unix":
        said["host"] = unquote(parts.path)
    else:
        said |= {"host": parts.hostname or "127.0.0.1", "port": parts.port or _PORT}
        if number := parts.path.strip("/"):
            said["db"] = number
    if parts.username:
        said["username"] = unquote(parts.username)
    if parts.password is not None:
        said["password"] = unquote(parts.password)
    unknown = said.keys() - type(section).model_fields.keys()
    if unknown:
        raise ConfigurationError(f"{mask(url)!r} sets {', '.join(sorted(unknown))}, which Redis has no setting for")
    return type(section)(**{**section.model_dump(exclude={"url"}), **said})
