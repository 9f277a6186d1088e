"""For all tests."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import thoroughness

from trio_lua.process import single

pytest_plugins = ["pytester"]
thoroughness.register()


def pytest_collection_finish() -> None:
    """Modules and tests stay: the garbage collector need not look through them every time."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def garbage_of_many_servers() -> Iterator[None]:
    """A command does the same with what it starts with, which is not for a process that starts servers by the hundred."""
    nothing = SimpleNamespace(collect=lambda: 0, freeze=lambda: None, unfreeze=lambda: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(single, "gc", nothing)
        yield
