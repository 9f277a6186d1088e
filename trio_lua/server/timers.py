"""Timers: handlers without a client, owned by the worker.

Lua keeps the timers that wait and starts the function of one that fires, in the turn of the clock; what it leaves
waiting becomes a task of the worker's nursery. Its owner is a request as any other, but for the client.
"""

from __future__ import annotations

import traceback
from collections.abc import Coroutine
from typing import Any

import trio

from trio_lua.api.runtime import Runtime
from trio_lua.lua.driver import Outcome, resume_detached
from trio_lua.request.state import Request

__all__ = ["Timer", "Timers"]

_ALERT, _ERROR = 2, 4


async def _go_on(coroutine: Coroutine[Any, Any, None]) -> None:
    await resume_detached(coroutine)


class Timer(Request):
    """The owner of a timer's threads; it has no connection and no place in the configuration."""

    __slots__ = ()

    def __init__(self, id: int, lua: Runtime) -> None:
        super().__init__(id, lua, None, b"", 0)  # type: ignore[arg-type]


class Timers:
    """The clock of a VM, and the timers that have fired.

    Args:
        runtime: The VM.
        nursery: Where timers run; they end with it at the latest.
    """

    def __init__(self, runtime: Runtime, nursery: trio.Nursery) -> None:
        self._lua = runtime
        self._nursery = nursery
        self._changed: trio.Event | None = None

    async def run(self) -> None:
        """Wake threads and fire timers, as long as the VM is used."""
        await self._lua.driver.serve(self._fired)

    def expire(self) -> None:
        """Fire now, as premature, what waits for its time."""
        self._lua.expire_timers()

    def drop(self) -> None:
        """Forget what waits for its time."""
        self._lua.drop_timers()

    async def drained(self) -> None:
        """Wait until no timer runs and none waits."""
        while any(self._lua.timers()):
            self._changed = trio.Event()
            await self._changed.wait()

    def _fired(self, id: int, result: Any) -> None:
        if id:
            coroutine = self._serve(Timer(id, self._lua), result)
            try:
                coroutine.send(None)
            except StopIteration:
                pass
            else:
                self._nursery.start_soon(_go_on, coroutine)
        self._notice()

    def _notice(self) -> None:
        if self._changed is not None:
            self._changed.set()

    async def _serve(self, timer: Timer, result: Any) -> None:
        try:
            result = await self._lua.driver.finish(timer, result)
            if type(result) is tuple and result[0] == Outcome.FAILED:
                timer.log(
                    _ERROR,
                    b"lua entry thread aborted: runtime error: %b\nstack traceback:\n%b"
                    % (result[1], result[2]),
                )
        except Exception:
            timer.log(_ALERT, b"internal error: " + traceback.format_exc().encode())
        finally:
            self._lua.end_timer(timer.id)
            self._notice()
