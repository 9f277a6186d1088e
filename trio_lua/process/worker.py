"""What a worker process is between the fork and its exit: privileges, signals, heartbeat, the server's worker.

:class:`WorkerApplication` is made in the master, with a VM that has run ``init_by_lua*``. Each child goes on with a copy
of it, under a Trio run of its own.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import AsyncIterator, Mapping
from functools import partial

import trio

from trio_lua.about import NGINX_VERSION
from trio_lua.api.place import AGENT, MASTER, Place
from trio_lua.debug import dump_threads
from trio_lua.errors import TrioLuaError
from trio_lua.last_words import Witness
from trio_lua.log.error_log import ALERT, EMERG, NOTICE, ErrorLog, Log
from trio_lua.log.files import os_error
from trio_lua.process import affinity, environment
from trio_lua.process.cycle import Cycle, detach, report
from trio_lua.process.master import FATAL, Post
from trio_lua.process.scoreboard import Scoreboard
from trio_lua.process.signals import WORKER_ACTIONS, Action, action_of, receive, restart_calls
from trio_lua.server.worker import Worker

__all__ = ["WorkerApplication"]

#: How often a heart beats, in seconds.
_BEAT = 1.0


class Share:
    """Workers accept from the same sockets, and each leaves to the others what would be more than its share.

    Without that one worker could take all of a burst of connections, and keep them.

    Args:
        scoreboard: Where all workers tell how many connections they have.
        slot: This one's.
    """

    def __init__(self, scoreboard: Scoreboard, slot: int) -> None:
        self._scoreboard = scoreboard
        self._slot = slot

    def leaves(self, connections: int) -> bool:
        """Whether another worker has clearly fewer."""
        least = self._scoreboard.least_load()
        return connections > least + 1 + least // 8

    def publish(self, connections: int) -> None:
        """Tell the others."""
        self._scoreboard.set_load(self._slot, connections)


class WorkerApplication:
    """A configuration ready to be forked.

    Args:
        cycle: What to serve.
        inherited: The environment that the command was started with; None to leave it as it is.
        account: Whom workers become.
        product: What ``Server`` names.
        console: Whether messages of workers may appear on a terminal.

    Raises:
        ConfigError: The configuration cannot be used.
        LuaError: ``init_by_lua*`` failed.
    """

    def __init__(
        self,
        cycle: Cycle,
        *,
        inherited: Mapping[str, str] | None = None,
        account: environment.Account | None = None,
        product: str = f"nginx/{NGINX_VERSION}",
        console: bool = False,
    ) -> None:
        self._console = console
        self._inherited = inherited
        self._account = account
        self._log = cycle.error_log
        config = cycle.config
        self._worker = Worker(config, error_log=cycle.error_log, product=product, zones=cycle.zones)
        self._worker.set_place(Place(MASTER, None, config.worker_processes, os.getpid()))
        try:
            self._worker.init()
        except BaseException:
            self._worker.close()
            raise
        connections = self._worker.runtime.vm.export("privileged_agent")()
        self.wants_agent = bool(connections)
        if connections == 0:
            message = (
                "0 worker_connection is not enough, privileged agent process cannot be spawned"
            )
            cycle.error_log.log(ALERT, message.encode())

    def reopen_logs(self) -> None:
        """Open the access logs again by name; new log files are given to the user that will write them."""
        self._worker.reopen_logs()
        if self._account is not None:
            log = self._log
            paths = log.paths if isinstance(log, ErrorLog) else ()
            environment.give((*paths, *self._worker.log_paths), self._account)

    def close(self) -> None:
        """Free the VM."""
        self._worker.close()

    def run(self, post: Post) -> int:
        """Serve until a signal ends it; returns the exit code."""
        log = post.cycle.error_log
        if not self._console:
            detach(post.cycle)
        try:
            self._prepare(post, log)
        except TrioLuaError as exc:
            log.log(EMERG, str(exc).encode("utf-8", "surrogateescape"))
            return FATAL
        try:
            return trio.run(self._serve, post)
        except Exception as exc:
            report(log, exc)
            return 1
        finally:
            log.log(NOTICE, b"exit")

    def _prepare(self, post: Post, log: Log) -> None:
        """Become what the configuration wants; in nginx's order, as the first steps need privileges."""
        config = post.cycle.config
        if self._inherited is not None:
            environment.apply(config.env, self._inherited)
        if config.worker_priority:
            try:
                os.setpriority(os.PRIO_PROCESS, 0, config.worker_priority)
            except OSError as exc:
                message = f"setpriority({config.worker_priority}) failed {os_error(exc)}"
                log.log(ALERT, message.encode())
        try:
            environment.limit_files(config.worker_rlimit_nofile)
            environment.limit_core(config.worker_rlimit_core)
        except TrioLuaError as exc:
            log.log(ALERT, str(exc).encode())
        # an agent is privileged in that it stays what the master is
        if self._account is not None and post.place.kind != AGENT:
            environment.become(self._account)
        chosen = None
        if post.place.number is not None:
            chosen = affinity.processors(config.worker_cpu_affinity, post.place.number)
        if chosen is not None and hasattr(os, "sched_setaffinity"):
            try:
                os.sched_setaffinity(0, chosen)
            except OSError as exc:
                log.log(ALERT, f"sched_setaffinity() failed {os_error(exc)}".encode())
        environment.change_folder(config.working_directory)
        self._worker.set_place(post.place)
        self._worker.ipc = post.endpoint
        if post.place.number is not None and post.place.total > 1:
            self._worker.balance = Share(post.scoreboard, post.slot)

    async def _serve(self, post: Post) -> int:
        log = post.cycle.error_log
        worker = self._worker
        listeners = []
        if post.place.number is not None:
            listeners = post.cycle.listeners.of_worker(post.place.number)
        status = 0
        with receive(WORKER_ACTIONS) as signals:
            restart_calls(post.cycle.config.http.lua_sa_restart, WORKER_ACTIONS)
            # the master blocked them for the time without handlers
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (*WORKER_ACTIONS, signal.SIGCHLD))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._follow, signals, log, nursery.cancel_scope)
                nursery.start_soon(self._beat, post)
                try:
                    async with trio.open_nursery() as serving:
                        await serving.start(partial(worker.run, listeners))
                        self._watch_line(post, log)
                        post.line.ready()
                    log.log(NOTICE, b"exiting")
                except Exception as exc:
                    report(log, exc)
                    status = 1
                nursery.cancel_scope.cancel()
        return status

    async def _follow(self, signals: AsyncIterator[int], log: Log, scope: trio.CancelScope) -> None:
        async for number in signals:
            action = action_of(number, log, WORKER_ACTIONS)
            if action is Action.STOP:
                log.log(NOTICE, b"exiting")
                scope.cancel()
            elif action is Action.QUIT:
                self._quit(log)
            elif action is Action.REOPEN:
                log.log(NOTICE, b"reopening logs")
                log.reopen()
                self._worker.reopen_logs()
            elif action is Action.DUMP:
                dump_threads(log)

    def _quit(self, log: Log) -> None:
        if not self._worker.quitting:
            log.log(NOTICE, b"gracefully shutting down")
            self._worker.quit()

    async def _beat(self, post: Post) -> None:
        patience = post.cycle.config.http.lua_worker_stuck_timeout or 4 * _BEAT
        worker = self._worker
        while True:
            post.scoreboard.beat(post.slot)
            accepts = not worker.quitting
            post.scoreboard.set_load(post.slot, len(worker.connections) if accepts else None)
            await trio.sleep(min(_BEAT, patience / 4))

    def _watch_line(self, post: Post, log: Log) -> None:
        """Wait for what the master asks, in a thread: when it asks, the event loop stands still."""
        token = trio.lowlevel.current_trio_token()
        witness = Witness(self._worker.runtime)

        def orphaned() -> None:
            log.log(ALERT, b"the master process is gone")
            self._quit(log)

        def listen() -> None:
            # system calls of Lua code are to see them, and those are in the main thread
            signal.pthread_sigmask(signal.SIG_BLOCK, (*WORKER_ACTIONS, signal.SIGPROF))
            while post.line.asked():
                answer = witness.ask()
                log.log(ALERT, b"it runs " + (answer or b"what cannot be told"))
            try:
                token.run_sync_soon(orphaned)
            except trio.RunFinishedError:
                return

        threading.Thread(target=listen, name="master", daemon=True).start()
