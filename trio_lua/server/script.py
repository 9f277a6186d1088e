"""Runs a Lua script in a VM of its own, without any server: the engine of ``trio-lua run``.

The script is a handler in the context of a timer, as under OpenResty's ``resty``: it may use what a timer may use,
and what it says goes to standard output. It ends with the last of its light threads and of the timers that run
then; those that still wait for their time are dropped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import trio

from trio_lua.api import SCRIPT
from trio_lua.api.runtime import Runtime
from trio_lua.config.builder import ConfigBuilder
from trio_lua.errors import LuaError
from trio_lua.log.error_log import Log
from trio_lua.lua.driver import Outcome
from trio_lua.modules import BUNDLED
from trio_lua.server.timers import Timers

__all__ = ["run_script"]


class _Owner:
    """What the script's light thread belongs to: the task that runs it."""

    inline = False
    nursery: trio.Nursery | None = None


async def run_script(
    chunks: Sequence[tuple[bytes, str]],
    *,
    arguments: Sequence[str] = (),
    name: str = "trio-lua",
    package_path: str = "",
    libraries: Sequence[str] = (),
    write: Callable[[bytes], None],
    error_log: Log,
) -> int:
    """Run Lua chunks, one after the other, in one light thread of a VM of their own.

    Args:
        chunks: Code and chunk name of each, such as ``(b"...", "@hello.lua")``.
        arguments: The global table ``arg``, from index 1, and ``...`` of each chunk.
        name: ``arg[0]``.
        package_path: Goes in front of ``package.path``; may be empty.
        libraries: Modules to ``require`` first; each becomes a global of its name.
        write: Receives what ``ngx.say``, ``ngx.print`` and ``print`` write.
        error_log: Receives what ``ngx.log`` writes.

    Returns:
        The exit status: 0, or what the script passed to ``ngx.exit``.

    Raises:
        LuaError: The code does not compile, or failed.
    """
    epoch = time.time() - trio.current_time()
    runtime = Runtime(
        ConfigBuilder(modules=BUNDLED).build(),
        clock=lambda: trio.current_time() + epoch,
        sinks=[error_log],
        product="",
        files=[SCRIPT],
        calls={"write": write},
    )
    export = runtime.vm.export
    try:
        for code, chunk_name in chunks:
            export("add_chunk")(code, _bytes(chunk_name))
        for library in libraries:
            export("add_library")(_bytes(library))
        for index, argument in enumerate((name, *arguments)):
            export("add_argument")(index, _bytes(argument))
        async with runtime.running(), trio.open_nursery() as nursery:
            timers = Timers(runtime, nursery)
            nursery.start_soon(timers.run)
            result = await runtime.driver.finish(
                _Owner(), export("run_script")(_bytes(package_path))
            )
            timers.drop()
            await timers.drained()
            nursery.cancel_scope.cancel()
        outcome, *values = result if isinstance(result, tuple) else (result,)
        if outcome == Outcome.EXIT:
            return int(values[0]) & 0xFF
        if outcome in (Outcome.FAILED, Outcome.LOAD_FAILED):
            message, trace = values[0], values[1] if len(values) > 1 else b""
            raise LuaError(
                message.decode("utf-8", "replace"),
                "stack traceback:\n" + trace.decode("utf-8", "replace") if trace else "",
            )
        return 0
    finally:
        runtime.datagrams.close()
        runtime.vm.close()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
