"""Python functions for Lua code: ``config.expose("db.fetch", fetch)`` is ``require("python.db").fetch``.

Lua gets numbers, not functions, and data by value (:mod:`trio_lua.lua.values`), so nothing of Python can be reached from
there. An async function is an operation like any other: it is awaited in the scope of the request, and cancelled
with it or with the thread that waits for it.

What a function comes to is passed on as *True* and its results; *nil* and a message; or *false*, a message and a Python
traceback if it is the function's own fault, which is then a Lua error.
"""

from __future__ import annotations

import inspect
import traceback
from typing import Any

import trio

from trio_lua.config.model import Config, PythonFunction
from trio_lua.lua.driver import Owner
from trio_lua.lua.ops import OpTable
from trio_lua.lua.values import from_lua, to_lua
from trio_lua.lua.vm import VM

__all__ = ["PythonFunctions"]


class PythonFunctions:
    """The functions that one VM may call.

    Args:
        table: Where to add the call and the operation of ``python.lua``.
        config: Names them.
    """

    def __init__(self, table: OpTable, config: Config) -> None:
        known: dict[str, PythonFunction] = {}
        for module in config.modules:
            known.update(module.functions)
        known.update(config.functions)
        self._functions = list(known.values())
        self._vm: VM
        table.call("python_call", self._call)
        table.op("python_await", self._await)

    def bind(self, vm: VM) -> None:
        """Make the modules in the VM."""
        self._vm = vm
        define = vm.export("define_python_function")
        for number, entry in enumerate(self._functions):
            module, _, name = entry.name.rpartition(".")
            define(module.encode(), name.encode(), number, _is_async(entry.function))

    # Ctrl-C in one of these would be an error in Lua, where it ends nothing.
    @trio.lowlevel.enable_ki_protection
    def _call(self, number: int, *args: Any) -> tuple[Any, ...]:
        entry = self._functions[number]
        try:
            values = self._from_lua(entry, args)
        except (TypeError, ValueError) as error:
            return False, str(error).encode("utf-8", "replace")
        try:
            result = entry.function(*values)
            if inspect.iscoroutine(result):
                result.close()
                raise TypeError("an async function that cannot be seen to be one was exposed")
        except Exception as error:
            return _failed(entry, error)
        return self._to_lua(result)

    async def _await(self, _owner: Owner, number: int, *args: Any) -> tuple[Any, ...]:
        entry = self._functions[number]
        try:
            values = self._from_lua(entry, args)
        except (TypeError, ValueError) as error:
            return False, str(error).encode("utf-8", "replace")
        try:
            result = await entry.function(*values)
        except Exception as error:
            return _failed(entry, error)
        return self._to_lua(result)

    def _from_lua(self, entry: PythonFunction, args: tuple[Any, ...]) -> list[Any]:
        values = []
        for place, value in enumerate(args, 1):
            try:
                values.append(from_lua(self._vm, value, text=entry.text))
            except UnicodeDecodeError:
                raise ValueError(f"bad argument #{place}: a string is not UTF-8") from None
            except TypeError as error:
                raise TypeError(f"bad argument #{place}: {error}") from None
        return values

    def _to_lua(self, result: Any) -> tuple[Any, ...]:
        try:
            if isinstance(result, tuple):
                return True, *[to_lua(self._vm, value) for value in result]
            return True, to_lua(self._vm, result)
        except (TypeError, ValueError) as error:
            return False, b"bad result: " + str(error).encode("utf-8", "replace")


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004
    )


def _failed(entry: PythonFunction, error: Exception) -> tuple[Any, ...]:
    if isinstance(error, entry.errors):
        message = str(error) or type(error).__name__
        return None, message.encode("utf-8", "replace")
    own_frame = error.__traceback__
    inner = None if own_frame is None else own_frame.tb_next
    trace = "".join(traceback.format_exception(type(error), error, inner)).rstrip()
    summary = "".join(traceback.format_exception_only(error)).strip()
    return False, summary.encode("utf-8", "replace"), trace.encode("utf-8", "replace")
