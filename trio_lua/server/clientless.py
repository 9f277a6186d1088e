"""Handlers that no client waits for: those of timers and of alerts.

Their owner is a request as any other, but for the client.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Coroutine
from typing import Any

import trio

from trio_lua.api.runtime import Runtime
from trio_lua.log.error_log import ALERT, ERROR
from trio_lua.lua.driver import Outcome, resume_detached
from trio_lua.request.state import Request

__all__ = ["Clientless", "serve_without_client"]


class Clientless(Request):
    """The owner of threads that no client waits for; it has no connection and no place in the configuration."""

    __slots__ = ()

    def __init__(self, id: int, lua: Runtime) -> None:
        super().__init__(id, lua, None, b"", 0)  # type: ignore[arg-type]


def serve_without_client(
    lua: Runtime, nursery: trio.Nursery, id: int, result: Any, ended: Callable[[int], None]
) -> None:
    """Run a handler that Lua has started to its end: at once, as far as it does not wait.

    Args:
        lua: The VM.
        nursery: Where it waits.
        id: Lua's number for its request.
        result: What starting it has returned.
        ended: Called when all its threads have ended.
    """
    coroutine = _serve(Clientless(id, lua), result, ended)
    try:
        coroutine.send(None)
    except StopIteration:
        pass
    else:
        nursery.start_soon(_go_on, coroutine)


async def _go_on(coroutine: Coroutine[Any, Any, None]) -> None:
    await resume_detached(coroutine)


async def _serve(owner: Clientless, result: Any, ended: Callable[[int], None]) -> None:
    try:
        result = await owner.lua.driver.finish(owner, result)
        if type(result) is tuple and result[0] == Outcome.FAILED:
            owner.log(
                ERROR,
                b"lua entry thread aborted: runtime error: %b\nstack traceback:\n%b"
                % (result[1], result[2]),
            )
    except Exception:
        owner.log(ALERT, b"internal error: " + traceback.format_exc().encode())
    finally:
        ended(owner.id)
