"""Lua code run by hand: in a VM of its own, or in that of a server under test."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import trio

from trio_lua.api.runtime import Runtime
from trio_lua.config.model import Config
from trio_lua.errors import LuaError
from trio_lua.lua.driver import Outcome
from trio_lua.server.timers import Timers
from trio_lua.testing.log import LogRecords
from trio_lua.testing.network import LuaNetwork

__all__ = ["KIT", "Lua", "open_lua"]

#: The Lua half of the kit.
KIT = Path(__file__).with_name("kit.lua")


class _Owner:
    """What the light threads belong to: the task that runs the code."""

    inline = False
    nursery: trio.Nursery | None = None


class Lua:
    """Runs Lua code in a VM.

    Attributes:
        globals: Names of globals that modules have written, and the lines that did.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._values: list[Any] = []
        self.globals: dict[str, str] = {}
        vm = runtime.vm
        vm.set_call("kit_value", self._take)
        vm.set_call("kit_global", self._write)
        vm.load_file(KIT)

    def _take(self, kind: bytes, value: Any) -> None:
        if kind == b"s":
            value = value.decode("utf-8", "surrogateescape")
        elif kind == b"j":
            value = json.loads(value)
        elif kind == b"o":
            value = f"<{value.decode()}>"
        self._values.append(value)

    def _write(self, name: bytes, place: bytes) -> None:
        self.globals.setdefault(name.decode("utf-8", "replace"), place.decode("utf-8", "replace"))

    def watch_globals(self) -> None:
        """From now on collect in :attr:`globals` what modules write."""
        self._runtime.vm.export("kit_watch_globals")()

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
        self._values = []
        started = self._runtime.vm.export("kit_run")(_bytes(code), b"=" + _bytes(name))
        result = await self._runtime.driver.finish(_Owner(), started)
        outcome, *rest = result if isinstance(result, tuple) else (result,)
        if outcome in (Outcome.FAILED, Outcome.LOAD_FAILED):
            trace = rest[1].decode("utf-8", "replace") if len(rest) > 1 else ""
            raise LuaError(rest[0].decode("utf-8", "replace"), trace)
        values, self._values = self._values, []
        return values[0] if len(values) == 1 else tuple(values) or None

    async def require(self, name: str) -> Any:
        """Load a module and return it, as :meth:`run` does."""
        return await self.run(f"return require({_quoted(name)})")

    def execute(self, code: str, name: str = "test") -> None:
        """Run code that does not wait, outside of any request.

        Raises:
            LuaError: It does not compile, or failed.
        """
        result = self._runtime.vm.export("kit_execute")(_bytes(code), b"=" + _bytes(name))
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
        steps = "".join(f"[{_quoted(table)}]" for table in tables)
        self.execute(
            f"local t = {root}{steps} rawset(t, {_quoted(field)}, {value}\n)", f"patch of {target}"
        )


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
            async with runtime.sockets.running(), runtime.thread_pools.running():
                timers = Timers(runtime, nursery)
                nursery.start_soon(timers.run)
                yield Lua(runtime)
                timers.drop()
                await timers.drained()
        finally:
            runtime.datagrams.close()
            runtime.vm.close()
        nursery.cancel_scope.cancel()
