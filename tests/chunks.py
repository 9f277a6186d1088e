"""Lua code over a bare VM, for the tests of families that need no server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trio_lua.lua.vm import VM

Eval = Callable[..., Any]


def evaluator(vm: VM) -> Eval:
    """A function that runs code over ``ngx``, ``rt`` and the arguments, each text compiled once."""
    compiled: dict[str, Callable[..., Any]] = {}

    def run(code: str, *args: Any) -> Any:
        if code not in compiled:
            chunk = f"local rt = ... local ngx = rt.ngx function rt.export.f(...) {code} end"
            vm.run(chunk.encode(), "=test")
            compiled[code] = vm.export("f")
        return compiled[code](*args)

    return run


def error(lua: Eval, code: str) -> str:
    """The message of the error that an expression raises."""
    ok, message = lua(f"return pcall(function() local x = {code} end)")
    assert ok is False
    return message.decode()  # type: ignore[no-any-return]
