"""Public libraries, unmodified, against real servers.

None of their files is part of the repository: the environment variable TRIO_LUA_RESTY_PATH names where they are, in
the form of ``lua_package_path``. A test is skipped where a library that it
needs is not found.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import real_servers
from real_servers import Run

LIBRARIES = os.environ.get("TRIO_LUA_RESTY_PATH", "")


def _is_there(name: str) -> bool:
    path = name.replace(".", "/")
    return any(Path(part.replace("?", path)).exists() for part in LIBRARIES.split(";") if part)


@pytest.fixture
def need() -> Callable[[str], None]:
    """Skip the test if a library is not there."""

    def skip_without(name: str) -> None:
        if not _is_there(name):
            pytest.skip(f"{name} is not in TRIO_LUA_RESTY_PATH")

    return skip_without


@pytest.fixture
def run(request: pytest.FixtureRequest, need: Callable[[str], None]) -> Run:
    """:func:`real_servers.run` with the libraries; the module names what it needs in ``NEEDS``."""
    if not LIBRARIES:
        pytest.skip("TRIO_LUA_RESTY_PATH is not set")
    for name in request.module.NEEDS:
        need(name)

    async def run_with_libraries(code: str, *, http: str = "", **options: str) -> list[str]:
        path = f'lua_package_path "{LIBRARIES};;"; {http}'
        return await real_servers.run(code, http=path, **options)

    return run_with_libraries
