"""``lua_strict_phases off``: handlers that may wait in phases where OpenResty's may not.

In Lua they are light threads (``waiting.lua``); the methods here start one and await its end. With the directive on
nothing of this is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trio_lua.config.model import LuaCode
from trio_lua.errors import LuaError
from trio_lua.lua.driver import Outcome, Owner
from trio_lua.request.phase import Phase

if TYPE_CHECKING:
    from trio_lua.api.runtime import Runtime

__all__ = ["Waiting"]


class Waiting:
    """Runs what may wait.

    Args:
        runtime: The VM, of a configuration with ``lua_strict_phases off``.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._lua = runtime
        self._start_handler = runtime.vm.export("start_handler")
        self._start_main = runtime.vm.export("start_main")
        self._start_response = runtime.vm.export("start_response")
        self._kept = runtime.vm.export("kept")

    async def _finish(self, owner: Owner, number: int, result: Any) -> Any:
        """The results of a thread of request ``number``, as ``run_sync`` gives them."""
        result = await self._lua.driver.finish(owner, result)
        if result == Outcome.DONE:
            return self._kept(number)
        if isinstance(result, tuple) and result[0] == Outcome.FAILED:
            return False, result[1] + b"\nstack traceback:\n" + result[2]
        return False, b"the handler was left"

    async def response(self, request: Any, name: bytes, *args: object) -> Any:
        """Call a function of ``rt.response``, which runs filters."""
        return await self._finish(
            request, request.id, self._start_response(request.id, name, *args)
        )

    async def log(self, request: Any, handler: LuaCode) -> Any:
        """Run a ``log_by_lua*`` handler: True, or False and an error."""
        return await self._handler(request, handler, Phase.LOG)

    async def value(self, request: Any, handler: LuaCode) -> bytes | None:
        """Run a ``set_by_lua*`` handler: its value, or None when it failed (and that is logged)."""
        self._lua.set_args(request.id, *[request.evaluate(arg) for arg in handler.args])
        return self._lua.set_value(request, await self._handler(request, handler, Phase.SET))

    async def _handler(self, request: Any, handler: LuaCode, phase: Phase) -> Any:
        lua = self._lua
        path = lua.handler_path(request, handler)
        result = self._start_handler(request.id, lua.handler(handler), int(phase), path)
        return await self._finish(request, request.id, result)

    async def main(self, owner: Any, handler: LuaCode, phase: Phase) -> None:
        """Run ``init_worker_by_lua*``.

        Args:
            owner: What its threads belong to; it gets the number of what stands in for a request.

        Raises:
            LuaError: It failed; the message has the traceback in it.
        """
        lua = self._lua
        owner.id, *outcome = self._start_main(
            lua.handler(handler), int(phase), lua.main_path(handler)
        )
        try:
            result = outcome[0] if len(outcome) == 1 else tuple(outcome)
            result = await self._finish(owner, owner.id, result)
        finally:
            lua.release(owner.id)
        if result is not True and result[0] is not True:
            raise LuaError(result[1].decode("utf-8", "replace"))
