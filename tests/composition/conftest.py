"""What these tests share: a process without settings, in an empty working directory."""

import os

import pytest


@pytest.fixture
def no_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.upper().startswith("CHICORY_")]:
        monkeypatch.delenv(name)
    return tmp_path
