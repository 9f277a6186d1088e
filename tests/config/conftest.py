"""Configurations in short: only what a test is about has to be written."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from trio_lua.config.model import Config, Location, Server
from trio_lua.config.nginx import loads
from trio_lua.errors import ConfigError


@pytest.fixture
def http() -> Callable[[str], Config]:
    """Reads the inside of an ``http`` block; its first line is line 2."""

    def read(text: str) -> Config:
        return loads(f"events {{}} http {{\n{text}\n}}")

    return read


@pytest.fixture
def server(http: Callable[[str], Config]) -> Callable[[str], Server]:
    """Reads the inside of a ``server`` block; its first line is line 3."""

    def read(text: str) -> Server:
        return http(f"server {{ listen 127.0.0.1:8000;\n{text}\n}}").http.servers[0]

    return read


@pytest.fixture
def location(server: Callable[[str], Server]) -> Callable[[str], Location]:
    """Reads the inside of a ``location`` block; its first line is line 4."""

    def read(text: str) -> Location:
        return server(f"location / {{\n{text}\n}}").location.locations[0]

    return read


@pytest.fixture
def refused() -> Callable[[Callable[[str], object], str], str]:
    """The error that reading a text gives, as printed."""

    def read(reader: Callable[[str], object], text: str) -> str:
        with pytest.raises(ConfigError) as caught:
            reader(text)
        return str(caught.value)

    return read
