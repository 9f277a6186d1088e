"""Lua code run by hand: in a VM of its own, or in that of a server under test."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any

import trio

from trio_lua.api.runtime import Runtime
from trio_lua.config.model import Config
from trio_lua.debug import threads
from trio_lua.errors import LuaError
from trio_lua.lua.driver import Outcome
from trio_lua.server.timers import Timers
from trio_lua.testing.coverage import watching
from trio_lua.testing.log import LogRecords
from trio_lua.testing.network import LuaNetwork

__all__ = ["KIT", "Lua", "open_lua", "set_compiler", "shorter"]

#: The Lua half of the kit.
KIT = Path(__file__).with_name("kit.lua")


#: Whether LuaJIT's compiler is on.
_compiling = True


def set_compiler(on: bool) -> None:
    """Say whether LuaJIT's compiler is on in VMs under test from now on.

    Args:
        on: If not, what still goes wrong is not its doing.
    """
    global _compiling
    _compiling = on


class _Owner:
    """What the light threads belong to: the task that runs the code."""

    inline = False
    nursery: trio.Nursery | None = None


class Lua:
    """Runs Lua code in a VM.

    Attributes:
        runtime: The VM's whole surface, for those who know it.
        sources: The code that was run, by the name that tracebacks call it.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._values: list[Any] = []
        self._globals: dict[str, str] = {}
        self._left_open: list[str] = []
        self.sources: dict[str, str] = {}
        vm = runtime.vm
        vm.set_call("kit_value", self._take)
        vm.set_call("kit_global", self._write)
        vm.set_call("kit_leak", self._leave_open)
        vm.load_file(KIT)
        if not _compiling:
            self.execute("jit.off() jit.flush()")

    def _take(self, kind: bytes, value: Any) -> None:
        if kind == b"s":
            value = value.decode("utf-8", "surrogateescape")
        elif kind == b"j":
            value = json.loads(value)
        elif kind == b"o":
            value = f"<{value.decode()}>"
        self._values.append(value)

    def _write(self, name: bytes, place: bytes) -> None:
        self._globals.setdefault(_text(name), _places(place))

    def _leave_open(self, place: bytes) -> None:
        self._left_open.append(_places(place))

    def watch(self) -> None:
        """From now on remember who makes what, for :meth:`leaks`."""
        self.runtime.vm.export("kit_watch_globals")()
        self.runtime.vm.export("kit_watch")()

    def leaks(self, *, allowed: Collection[str] = ()) -> list[str]:
        """What is there that the end of the requests should have ended, each with the Lua line that made it.

        Args:
            allowed: What is no leak: ``threads``, ``timers``, ``sockets`` or ``globals``.
        """
        export = self.runtime.vm.export
        found = []
        if "threads" not in allowed:
            for thread in threads(self.runtime):
                origin = export("kit_origin")(thread.number)
                made = "" if origin is None else f", spawned at {_places(origin)}"
                found.append(f"{thread}{made}")
        if "timers" not in allowed:
            number = 1
            while (timer := export("kit_timer")(number)) is not None:
                delay, place = timer
                found.append(f"a timer of {delay:g} s that has not fired, made at {_places(place)}")
                number += 1
        if "sockets" not in allowed:
            found += [
                f"a socket neither closed nor kept alive, connected at {place}"
                for place in self._left_open
            ]
        if "globals" not in allowed:
            found += [
                f'the global variable "{name}" of a module, written at {place}'
                for name, place in self._globals.items()
            ]
        return found

    async def run(self, code: str, name: str = "test") -> Any:
        """Run code that may sleep and do what a timer may do.

        Args:
            code: Lua code; what it returns is the result.
            name: What tracebacks call it.

        Returns:
            None, a value, or a tuple of several. Strings are text (UTF-8, surrogates for other bytes), tables
            become lists and dicts.

        Raises:
            LuaError: It does not compile, or failed.
        """
        __tracebackhide__ = True
        self._values = []
        self.sources[name] = code
        number, *begun = self.runtime.vm.export("kit_run")(_bytes(code), b"=" + _bytes(name))
        try:
            started = begun[0] if len(begun) == 1 else tuple(begun)
            result = await self.runtime.driver.finish(_Owner(), started)
        finally:
            if not self.runtime.vm.closed:
                self.runtime.release(number)
        outcome, *rest = result if isinstance(result, tuple) else (result,)
        if outcome in (Outcome.FAILED, Outcome.LOAD_FAILED):
            trace = rest[1].decode("utf-8", "replace") if len(rest) > 1 else ""
            raise LuaError(rest[0].decode("utf-8", "replace"), trace)
        values, self._values = self._values, []
        return values[0] if len(values) == 1 else tuple(values) or None

    async def load(self, path: str | os.PathLike[str]) -> Any:
        """Run a file, as :meth:`run` does.

        Args:
            path: Where it is.

        Raises:
            OSError: It cannot be read.
            LuaError: It does not compile, or failed.
        """
        __tracebackhide__ = True
        code = await trio.Path(path).read_text("utf-8", "surrogateescape")
        return await self.run(code, os.fspath(path))

    async def require(self, name: str) -> Any:
        """Load a module and return it, as :meth:`run` does."""
        return await self.run(f"return require({_quoted(name)})")

    def execute(self, code: str, name: str = "test") -> None:
        """Run code that does not wait, outside of any request.

        Raises:
            LuaError: It does not compile, or failed.
        """
        result = self.runtime.vm.export("kit_execute")(_bytes(code), b"=" + _bytes(name))
        if result is not True:
            raise LuaError(result[1].decode("utf-8", "replace"))

    def patch(self, target: str, value: str) -> None:
        """Replace a field of a table until the VM ends.

        Args:
            target: ``ngx.worker.id``, or ``module:field`` for a field of what ``require "module"`` returns.
            value: A Lua expression, such as ``function() return 7 end``.

        Raises:
            LuaError: There is no such table, or the expression does not compile.
        """
        module, colon, path = target.rpartition(":")
        *tables, field = path.split(".")
        root = f"require({_quoted(module)})" if colon else "_G"
        steps = "".join(f"t = step(t, {_quoted(table)}) " for table in tables)
        self.execute(
            "local function step(t, name) "
            "return type(t) == 'table' and t[name] or error('there is no ' .. name, 0) end "
            f"local t = {root} {steps} rawset(t, {_quoted(field)}, {value}\n)",
            f"patch of {target}",
        )


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def _places(data: bytes) -> str:
    """Lines of code, from FILE:LINE < FILE:LINE, with names as short as they can be."""
    return " < ".join(map(shorter, _text(data).split(" < ")))


def shorter(path: str) -> str:
    """A path as a person would write it who is in the working folder."""
    if not path.startswith("/"):
        return path
    short = os.path.relpath(path)
    return path if short.startswith("..") else short


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


@contextlib.asynccontextmanager
async def open_lua(
    config: Config, *, log: LogRecords, epoch: float, network: LuaNetwork | None = None
) -> AsyncIterator[Lua]:
    """A VM without a server, with the ``http`` block's settings of a configuration.

    Args:
        config: The configuration; its ``init_by_lua*`` does not run.
        log: Where ``ngx.log`` goes.
        epoch: What the run's clock counts from, in seconds since 1970.
        network: What its sockets can reach; by default the real network.
    """
    async with trio.open_nursery() as nursery:
        runtime = Runtime(
            config,
            clock=lambda: trio.current_time() + epoch,
            sinks=[log],
            product="",
            network=None if network is None else network.bound(nursery),
        )
        try:
            async with runtime.running():
                with watching(runtime):
                    timers = Timers(runtime, nursery)
                    nursery.start_soon(timers.run)
                    lua = Lua(runtime)
                    lua.watch()
                    yield lua
                timers.drop()
                await timers.drained()
        finally:
            runtime.datagrams.close()
            runtime.vm.close()
        nursery.cancel_scope.cancel()
