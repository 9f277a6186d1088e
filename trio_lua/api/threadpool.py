"""Thread pools as Lua and Python code of a worker see them.

``threadpool.lua`` is the Lua half here, ``resty/threadpool.lua`` the module that users load, and what they share with
the other side, in the threads, is in :mod:`trio_lua.threads`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from trio_lua.api import codec, thread_files
from trio_lua.config.model import Config
from trio_lua.config.model import ThreadPool as PoolConfig
from trio_lua.errors import LuaError
from trio_lua.log.error_log import Log
from trio_lua.lua.driver import Owner, detach
from trio_lua.lua.ops import OpTable
from trio_lua.lua.vm import VM
from trio_lua.shm.zone import FILES as SHM_FILES
from trio_lua.shm.zone import Zone
from trio_lua.threads.pool import (
    State,
    Stats,
    Stretch,
    Task,
    TaskError,
    ThreadPool,
)
from trio_lua.threads.stack import large_stacks
from trio_lua.threads.vm import Outcome, ThreadVM

__all__ = ["PoolHandle", "ThreadPools"]

#: There is always one of this name, with nginx's measures.
DEFAULT = PoolConfig("default", threads=32, max_queue=65536)

_Pool = ThreadPool[ThreadVM]


class PoolHandle:
    """A thread pool, for Python code in the same event loop."""

    def __init__(self, pool: _Pool) -> None:
        self._pool = pool

    @property
    def name(self) -> str:
        """What the configuration calls it."""
        return self._pool.name

    async def run(self, source: str | bytes | os.PathLike[str], *args: Any) -> Any:
        """Run Lua code in a thread of the pool.

        Args:
            source: Lua code, which receives the arguments as ``...``; or the text of one function,
                ``"function(a, b) ... end"``, which is called with them; or the path of a file.
            args: None, booleans, numbers, strings, and lists or mappings of them.

        Returns:
            What the code returns: None, one value, or a tuple. Strings are bytes, tables lists or dicts.

        Raises:
            LuaError: The code failed, or returns something else.
            TypeError: An argument is something else.
            ValueError: It is a number or a text that Lua cannot have.
            OSError: The file cannot be read.
            TaskError: It could not be run; :class:`~trio_lua.threads.pool.QueueFull` if too many tasks wait.
        """
        name = f"=thread_pool({self._pool.name})".encode()

        def work(vm: ThreadVM) -> Stretch:
            if isinstance(source, os.PathLike):
                return vm.run(Path(source).read_bytes(), b"@" + os.fsencode(source), args)
            return vm.run(source.encode() if isinstance(source, str) else source, name, args)

        task: Task[ThreadVM] = Task()
        values = await self._pool.run(task, work)
        if len(values) > 1:
            return values
        return values[0] if values else None

    def stats(self) -> Stats:
        """What the pool is doing."""
        return self._pool.stats()


class ThreadPools:
    """The thread pools of a worker.

    Args:
        table: Where to add the calls and operations of ``threadpool.lua``.
        config: The configuration.
        sinks: Error logs by number.
        values: The values of the worker's VM; some of them go to the threads.
        zones: The memory of the shared dictionaries, whose addresses are among the values.
    """

    def __init__(
        self,
        table: OpTable,
        config: Config,
        sinks: list[Log],
        values: Mapping[str, Any],
        zones: Mapping[str, Zone],
    ) -> None:
        self._zones = zones
        self._sinks = sinks
        self._values = values
        self._vm: VM | None = None
        self._names: dict[str, Any] | None = None
        #: How many calls of ngx.run_worker_thread there may be at once, and there are.
        self._call_limit = config.http.lua_worker_thread_vm_pool_size
        self._calls = 0
        self._tasks: dict[int, tuple[_Pool, Task[ThreadVM]]] = {}
        self._pools: dict[bytes, _Pool] = {}
        for pool in (DEFAULT, *config.thread_pools):
            self._pools[pool.name.encode("utf-8", "surrogateescape")] = ThreadPool(
                pool.name,
                threads=pool.threads,
                max_queue=pool.max_queue,
                suspended=config.http.lua_worker_thread_vm_pool_size,
                prepare=partial(self._prepare, pool),
                reclaim=self._reclaim,
            )
        table.call("has_thread_pool", self._pools.__contains__)
        table.call("has_pool_task", self._tasks.__contains__)
        table.call("add_pool_task", self._add)
        table.call("drop_pool_task", self._drop)
        table.call("thread_pool_stats", self._stats)
        table.op("worker_thread", self._worker_thread, inline=True)
        table.op("pool_task", self._pool_task)

    def bind(self, vm: VM) -> None:
        """Take the worker's VM, which is made after the table is complete."""
        self._vm = vm

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Take tasks."""
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(large_stacks())
            for pool in self._pools.values():
                await stack.enter_async_context(pool.running())
            yield

    def __getitem__(self, name: str) -> PoolHandle:
        try:
            return PoolHandle(self._pools[name.encode("utf-8", "surrogateescape")])
        except KeyError:
            raise KeyError(f'thread pool "{name}" not found') from None

    # ---------------------------------------------------------------------- VMs

    def _prepare(self, pool: PoolConfig) -> Callable[[], ThreadVM]:
        """Take from the worker's VM what a new one needs, and return what makes it, in a thread."""
        assert self._vm is not None
        path, cpath, worker, workers = self._vm.export("thread_paths")()
        if self._names is None:
            self._names = _names(*self._vm.export("ngx_names")())
        values = {
            name: self._values[name]
            for name in (
                "prefix",
                "zones",
                "hostname",
                "nginx_version",
                "nginx_version_number",
                "ngx_lua_version",
                "configure_arguments",
                "lua_regex_match_limit",
                "lua_regex_cache_max_entries",
            )
        }
        values |= self._names
        values["worker_id"], values["worker_count"] = worker, workers
        suffix = f', thread pool: "{pool.name}"'.encode("utf-8", "surrogateescape")

        def log(sink: int, level: int, message: bytes) -> None:
            self._sinks[sink].log(level, message + suffix)

        return partial(
            ThreadVM,
            calls=codec.calls(),
            values=values,
            files=(*SHM_FILES, *thread_files()),
            keep=self._zones,
            paths=(path, cpath),
            log=log,
            max_memory=pool.max_memory,
        )

    def _reclaim(self) -> None:
        """Let Lua find the tasks that nobody has any more: see ``resty/threadpool.lua``."""
        assert self._vm is not None
        self._vm.export("collect_garbage")()

    # ----------------------------------------------------- calls and operations

    async def _worker_thread(
        self,
        owner: Owner,
        name: bytes,
        module: bytes,
        function: bytes,
        sink: int,
        level: int,
        *message: bytes,
    ) -> tuple[Any, ...]:
        """``ngx.run_worker_thread``: true and a message, or false and an error."""

        def work(vm: ThreadVM) -> Stretch:
            vm.aim(sink, level)
            return vm.call(module, function, message)

        if self._calls >= self._call_limit:
            return False, b"no available Lua vm"
        # counted before the first wait, as the calls of other requests come now
        self._calls += 1
        try:
            await detach(owner)
            outcome, *result = await self._pools[name].run(Task(), work)
        except TaskError as error:
            self._sinks[sink].log(4, str(error).encode())
            return False, b"ngx_thread_task_post failed"
        except LuaError as error:
            return False, str(error).encode()
        finally:
            self._calls -= 1
        return outcome == Outcome.DONE, *result

    async def _pool_task(
        self, _owner: Owner, number: int, waiter: int, sink: int, level: int, *message: bytes
    ) -> tuple[Any, ...]:
        """``task:resume``: the outcome and what belongs to it."""
        known = self._tasks.get(number)
        if known is None:
            return Outcome.BROKEN, b"the task was cancelled"
        pool, task = known
        step = ThreadVM.start if task.state is State.NEW else ThreadVM.resume

        def work(vm: ThreadVM) -> Stretch:
            vm.aim(sink, level)
            return step(vm, message)

        try:
            return await pool.run(task, work, waiter=waiter)  # type: ignore[no-any-return]
        except (TaskError, LuaError) as error:
            return Outcome.BROKEN, str(error).encode("utf-8", "replace")
        finally:
            if task.state in (State.DEAD, State.NEW):
                self._tasks.pop(number, None)

    def _add(self, name: bytes, number: int) -> None:
        self._tasks[number] = (self._pools[name], Task())

    def _drop(self, number: int) -> bool:
        known = self._tasks.pop(number, None)
        if known is None:
            return False
        pool, task = known
        return pool.drop(task)

    def _stats(self, name: bytes) -> tuple[int, ...]:
        return dataclasses.astuple(self._pools[name].stats())


def _names(*list_: Any) -> dict[str, Any]:
    pairs = [(list_[i], list_[i + 1]) for i in range(0, len(list_), 2)]
    return {
        "constants": {
            name: value for name, value in pairs if value is not True and value is not False
        },
        "functions": [name for name, value in pairs if value is True],
        "tables": [name for name, value in pairs if value is False],
    }
