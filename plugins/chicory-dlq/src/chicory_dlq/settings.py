"""The settings of dead letters."""

from __future__ import annotations

from typing import ClassVar, final

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from chicory.plugin import PluginSettings, settings_from

__all__ = ["DlqConfig"]


@final
class DlqConfig(PluginSettings):
    """``CHICORY_DLQ_*``."""

    model_config: ClassVar[SettingsConfigDict] = settings_from("dlq")

    expired: bool = False
    """Set messages aside too that came too late to start."""
    history: int = Field(default=20, ge=0)
    """The most former deaths that a dead letter remembers, the newest of them."""
    max_age_seconds: float | None = Field(default=None, gt=0)
    """What ``chicory dlq purge --retention`` removes: dead letters that are older. None: none for their age."""
    max_count: int | None = Field(default=None, ge=0)
    """What ``chicory dlq purge --retention`` leaves of each queue: that many, the newest. None: all."""
