"""What every group of settings has in common: where values come from, and how misspelt ones are noticed."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit, urlunsplit

import pydantic
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    PyprojectTomlConfigSettingsSource,
    SettingsConfigDict,
)

from chicory.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pydantic.fields import FieldInfo

__all__ = [
    "BackendSection",
    "BrokerSection",
    "ConfigurationWarning",
    "PluginSettings",
    "mask",
    "readable",
    "settings_from",
    "variables_of",
    "warn_of_unknown",
]

ENV_FILE = ".env"
PREFIX = "CHICORY_"
_OF_TESTS = f"{PREFIX}TEST_"
"""What tests read, such as the path of a server; no setting of an app."""


class ConfigurationWarning(UserWarning):
    """Something looks like a setting of chicory and is none."""


def mask(url: str) -> str:
    """*url* with its password replaced by stars, for people and logs.

    >>> mask("redis://me:secret@host:6379/0")
    'redis://me:***@host:6379/0'
    """
    parts = urlsplit(url)
    if parts.password is None:
        return url
    user = f"{parts.username or ''}:***@"
    return urlunsplit(parts._replace(netloc=user + parts.netloc.rpartition("@")[2]))


def settings_from(*path: str) -> SettingsConfigDict:
    """The ``model_config`` of a group of settings that lives at *path*, from all sources.

    ``settings_from("broker", "redis")`` reads ``CHICORY_BROKER_REDIS_*`` and ``[tool.chicory.broker.redis]``.
    """
    return SettingsConfigDict(
        env_prefix="".join(f"{part.upper()}_" for part in ("chicory", *path)),
        env_file=ENV_FILE,
        pyproject_toml_table_header=("tool", "chicory", *path),
        extra="ignore",
        hide_input_in_errors=True,
        validate_default=False,
        frozen=True,
    )


def _own(settings_cls: type[BaseSettings], values: dict[str, Any]) -> dict[str, Any]:
    """*values* without the groups inside of a group: these read their own variables and tables, each in its place."""
    groups = getattr(settings_cls, "groups", ())
    return {name: value for name, value in values.items() if name not in groups}


class _OwnVariables(PydanticBaseSettingsSource):
    """The environment, or ``.env``, without inner groups."""

    def __init__(self, settings_cls: type[BaseSettings], source: PydanticBaseSettingsSource) -> None:
        super().__init__(settings_cls)
        self._source = source

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self._source.get_field_value(field, field_name)

    def __call__(self) -> dict[str, Any]:
        return _own(self.settings_cls, self._source())


class _OwnTable(PyprojectTomlConfigSettingsSource):
    """A table of ``pyproject.toml`` without inner groups."""

    def __call__(self) -> dict[str, Any]:
        return _own(self.settings_cls, super().__call__())


class PluginSettings(BaseSettings):
    """A group of settings. Highest first: arguments, environment, ``.env``, ``pyproject.toml``, defaults.

    A subclass sets ``model_config = settings_from("otel")``. Instances are immutable.

    Raises:
        ConfigurationError: an argument that is no field, with the nearest name.
        pydantic.ValidationError: a value of the wrong kind; the value itself is not in the text.
    """

    model_config: ClassVar[SettingsConfigDict] = settings_from()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic passes it
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        if isinstance(init_settings, InitSettingsSource):
            cls._refuse_unknown(init_settings.init_kwargs)
        variables = (_OwnVariables(settings_cls, source) for source in (env_settings, dotenv_settings))
        return init_settings, *variables, _OwnTable(settings_cls)

    @classmethod
    def _refuse_unknown(cls, arguments: Mapping[str, Any]) -> None:
        known = tuple(cls.model_fields)
        for name in arguments:
            if name not in known:
                near = nearest(name, known)
                hint = f"did you mean {near!r}?" if near else f"it has {', '.join(known)}"
                raise ConfigurationError(f"{cls.__name__} has no setting {name!r}: {hint}")


class BrokerSection(PluginSettings):
    """Base of a broker plugin's section: ``config.broker.<name>``."""


class BackendSection(PluginSettings):
    """Base of a backend plugin's section: ``config.backend.<name>``."""

    result_ttl: float | None = pydantic.Field(default=None, gt=0)
    """Seconds for which a result is kept after its task has ended; None: as ``ChicoryConfig.result_ttl`` says."""


def readable(error: pydantic.ValidationError) -> str:
    """A pydantic error about settings in one line: naming their variables, without the offending values."""
    prefix = next((str(m.model_config.get("env_prefix", "")) for m in _models(PluginSettings) if m.__name__ == error.title), "")
    parts = []
    for problem in error.errors(include_input=False, include_url=False, include_context=False):
        place = ".".join(str(step) for step in problem["loc"])
        where = f"{place} ({prefix}{place.upper()})" if prefix and place else place
        parts.append(f"{where}: {problem['msg'].lower()}" if where else problem["msg"])
    return "; ".join(parts)


def _models(model: type[PluginSettings]) -> Iterator[type[PluginSettings]]:
    yield model
    for derived in model.__subclasses__():
        yield from _models(derived)


def variables_of(model: type[BaseSettings]) -> set[str]:
    """The environment variables that *model* reads."""
    prefix = str(model.model_config.get("env_prefix", ""))
    return {f"{prefix}{name.upper()}" for name in model.model_fields}


def warn_of_unknown(known: Iterable[str], *, environ: Mapping[str, str] | None = None) -> None:
    """Warn of each variable, in the environment or ``.env``, that begins with ``CHICORY_`` and is not in *known*."""
    names = tuple(sorted(known))
    found = {name.upper() for name in (os.environ if environ is None else environ)} | _names_in(Path(ENV_FILE))
    for name in sorted(found):
        if name.startswith(PREFIX) and not name.startswith(_OF_TESTS) and name not in names:
            near = nearest(name, names)
            hint = f"did you mean {near}?" if near else "no installed plugin reads it"
            warnings.warn(f"{name} is not a setting of chicory: {hint}", ConfigurationWarning, stacklevel=3)


def _names_in(file: Path) -> set[str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return set()
    heads = (line.strip().removeprefix("export ").partition("=") for line in lines if not line.lstrip().startswith("#"))
    return {name.strip().upper() for name, equals, _ in heads if equals}
