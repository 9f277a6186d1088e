"""Where ``require`` looks."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from trio_lua.lua import paths


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "_AT_START", {"LUA_PATH": "", "LUA_CPATH": ""})
    monkeypatch.delenv("LUA_PATH", raising=False)
    monkeypatch.delenv("LUA_CPATH", raising=False)


def test_two_semicolons_are_the_default() -> None:
    default = paths.lua_path(None, "/p/")
    assert default.startswith("./?.lua;")
    assert paths.lua_path("", "/p/") == default
    assert paths.lua_path("/a/?.lua", "/p/") == "/a/?.lua"
    assert paths.lua_path(";;/a/?.lua", "/p/") == f"{default};/a/?.lua"
    assert paths.lua_path("$prefix?.lua;${prefix}lib/?.lua;;", "/p/") == (
        f"/p/?.lua;/p/lib/?.lua;{default}"
    )
    assert paths.lua_cpath("/a/?.so;;", "/p/").startswith("/a/?.so;./?.so;")


def test_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    default = paths.lua_path(None, "")
    monkeypatch.setenv("LUA_PATH", "/x/?.lua;;")
    monkeypatch.setenv("LUA_CPATH", "/x/?.so")
    assert paths.lua_path("/a/?.lua;;", "") == f"/a/?.lua;/x/?.lua;{default}"
    assert paths.lua_cpath(None, "") == "/x/?.so"


def test_variables_of_a_reduced_environment() -> None:
    """nginx empties the environment behind the making of its VM, trio-lua-nginx before."""
    code = """
from trio_lua.process import environment
environment.apply([], {})
from trio_lua.lua import paths
print(paths.lua_path(None, ""))
"""
    env = {**os.environ, "LUA_PATH": "/y/?.lua"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
    assert done.stdout == b"/y/?.lua\n"
