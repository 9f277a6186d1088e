"""One process that runs one worker, answers signals and reloads in place.

It is what runs where there is no master process: signals act on the worker directly. A reload starts a worker of the new
configuration beside the old one, inside the same process and event loop; the old one stops
accepting, finishes its requests and is gone. So the process id stays, as that of
nginx's master does, and no connection is refused.

A worker is an async function with the interface of :class:`RunWorker`; what it reports when
it serves is a :class:`Worker`.
"""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from socket import socket
from typing import Protocol

import trio

from trio_lua.config.model import Config, Listen
from trio_lua.debug import dump_threads
from trio_lua.errors import TrioLuaError
from trio_lua.log.error_log import NOTICE, Log
from trio_lua.process.cycle import Cycle, report
from trio_lua.process.signals import Action, action_of, receive, restart_calls
from trio_lua.shm.zone import Zone

__all__ = ["RunWorker", "SingleProcess", "StartError", "Worker"]


class StartError(TrioLuaError):
    """The worker did not start. The error log has the reason."""


class Worker(Protocol):
    """A worker that serves."""

    def quit(self) -> None:
        """Stop accepting, close idle connections, and end when the running requests have."""

    def reopen_logs(self) -> None:
        """Open the log files again that the worker opened itself."""


class RunWorker(Protocol):
    """Runs a worker until it has quit, or is cancelled."""

    def __call__(
        self,
        config: Config,
        *,
        listeners: list[tuple[Listen, socket]],
        error_log: Log,
        zones: Mapping[str, Zone],
        task_status: trio.TaskStatus[Worker],
    ) -> Awaitable[None]:
        """Start, report the worker by ``task_status.started(worker)``, and serve.

        The sockets are the worker's own to close; the zones are its shared dictionaries.
        """


Signals = Callable[[], AbstractContextManager[AsyncIterator[int]]]


@dataclass(eq=False, slots=True)
class _Generation:
    """A worker with the cycle that it serves."""

    cycle: Cycle
    worker: Worker
    quitting: bool = False


class SingleProcess:
    """Serves a cycle, and those that follow it, until a signal ends it.

    Args:
        cycle: What to serve first. The cycle in use when :meth:`run` returns, :attr:`cycle`, is
            the caller's to close.
        run_worker: The worker.
        reload: Makes the next cycle from the one in use; returns None, with the reason in the
            log, when that does not work. It runs in a thread, as it waits for files and sockets.
            Without it a request to reload only gets a log line.
        ready: Called once, when the first worker serves.
        replaced: Called after a reload with the cycle in use and the one before it.
        beside: An async function that runs as long as the server does.
        signals: Where the signals come from.
    """

    def __init__(
        self,
        cycle: Cycle,
        run_worker: RunWorker,
        *,
        reload: Callable[[Cycle], Cycle | None] | None = None,
        ready: Callable[[Worker], None] | None = None,
        replaced: Callable[[Cycle, Cycle], None] | None = None,
        beside: Callable[[SingleProcess], Awaitable[None]] | None = None,
        signals: Signals = receive,
    ) -> None:
        self.cycle = cycle
        self._run_worker = run_worker
        self._reload = reload
        self._ready = ready
        self._replaced = replaced
        self._beside = beside
        self._signals = signals
        self._generations: list[_Generation] = []
        self._failed = False
        self._quitting = False
        self._ended = trio.Event()
        self._wanted = trio.Event()

    async def run(self) -> int:
        """Serve until stopped; the exit status is 0, or 1 when a worker broke down.

        Raises:
            StartError: The first worker did not start, or ``ready`` failed.
        """
        serving = False
        with self._signals() as signals:
            async with trio.open_nursery() as nursery:
                first = await self._start(nursery, self.cycle)
                if first is not None and self._announce(first.worker):
                    serving = True
                    nursery.start_soon(self._follow, signals)
                    nursery.start_soon(self._serve_reloads, nursery)
                    if self._beside is not None:
                        nursery.start_soon(self._beside, self)
                    await self._ended.wait()
                nursery.cancel_scope.cancel()
        gc.unfreeze()
        if not serving:
            raise StartError("the server did not start")
        return 1 if self._failed else 0

    def request_reload(self) -> None:
        """Reload soon, as after SIGHUP."""
        self._wanted.set()

    def _announce(self, worker: Worker) -> bool:
        try:
            if self._ready is not None:
                self._ready(worker)
        except TrioLuaError as exc:
            report(self.cycle.error_log, exc)
            return False
        return True

    async def _start(self, nursery: trio.Nursery, cycle: Cycle) -> _Generation | None:
        restart_calls(cycle.config.http.lua_sa_restart)
        generation: _Generation | None = await nursery.start(self._generation, cycle)
        _settle()
        return generation

    async def _generation(
        self, cycle: Cycle, *, task_status: trio.TaskStatus[_Generation | None]
    ) -> None:
        generation: _Generation | None = None
        listeners = cycle.listeners.duplicates()
        try:
            async with trio.open_nursery() as nursery:
                worker = await nursery.start(
                    partial(
                        self._run_worker,
                        cycle.config,
                        listeners=listeners,
                        error_log=cycle.error_log,
                        zones=cycle.zones,
                    )
                )
                generation = _Generation(cycle, worker)
                self._generations.append(generation)
                task_status.started(generation)
        except Exception as exc:
            report(cycle.error_log, exc)
            if generation is None:
                task_status.started(None)
                return
            self._failed = True
            self._ended.set()
        finally:
            # the worker has done so, unless it failed early
            for _, sock in listeners:
                sock.close()
            if generation is not None:
                self._generations.remove(generation)
                if cycle is not self.cycle:
                    cycle.error_log.close()
        if self._generations:
            _settle()
        else:
            self._ended.set()

    async def _follow(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            log = self.cycle.error_log
            action = action_of(number, log)
            if action is Action.STOP:
                self._ended.set()
                return
            if action is Action.QUIT:
                log.log(NOTICE, b"gracefully shutting down")
                self._quitting = True
                for generation in list(self._generations):
                    self._quit(generation)
            elif action is Action.REOPEN:
                log.log(NOTICE, b"reopening logs")
                log.reopen()
                for generation in self._generations:
                    generation.worker.reopen_logs()
            elif action is Action.DUMP:
                dump_threads(log)
            elif action is Action.RELOAD:
                self._wanted.set()

    def _quit(self, generation: _Generation) -> None:
        if generation.quitting:
            return
        generation.quitting = True
        generation.worker.quit()

    async def _serve_reloads(self, nursery: trio.Nursery) -> None:
        while not self._quitting:
            await self._wanted.wait()
            self._wanted = trio.Event()
            await self._reload_once(nursery)

    async def _reload_once(self, nursery: trio.Nursery) -> None:
        old = self.cycle
        old.error_log.log(NOTICE, b"reconfiguring")
        if self._reload is None:
            return
        try:
            new = await trio.to_thread.run_sync(self._reload, old)
        except Exception as exc:
            report(old.error_log, exc)
            return
        if new is None:
            return
        before = list(self._generations)
        generation = None
        try:
            generation = await self._start(nursery, new)
        finally:
            if generation is None:
                new.close(keep=old)
        if generation is None:
            return
        self.cycle = new
        if self._replaced is not None:
            try:
                self._replaced(new, old)
            except TrioLuaError as exc:
                report(new.error_log, exc)
        # at once, not when the old worker has finished: nobody accepts there any more
        old.listeners.close(error_log=new.error_log, keep=new.listeners)
        for gone in before:
            self._quit(gone)
        if self._quitting:
            self._quit(generation)


def _settle() -> None:
    """What there is when serving begins mostly stays: let the garbage collector not look through it every time."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
