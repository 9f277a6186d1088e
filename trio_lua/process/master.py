"""The master: starts workers, watches them, replaces them, and never serves anything itself.

What it decides is here; what the system does for it is behind :class:`~trio_lua.process.children.Processes`, so that
tests run it with a system that is not there and a clock that jumps.

A *generation* is a configuration with the workers that serve it. A reload starts a second generation beside
the first one; when all its workers serve, the first is told to finish. If they do not come to serve, they are
stopped and nothing else has changed. The VM of a generation is made, and runs ``init_by_lua*``, in the master; workers begin
with a copy of it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from trio_lua.api.place import AGENT, WORKER, Place
from trio_lua.errors import TrioLuaError
from trio_lua.ipc.endpoint import Endpoint
from trio_lua.ipc.mesh import Mesh
from trio_lua.log.error_log import ALERT, ERROR, NOTICE, Log
from trio_lua.log.files import os_error
from trio_lua.process.children import Event, Exited, Line, Processes, Ready, Signalled
from trio_lua.process.cycle import Cycle, report
from trio_lua.process.scoreboard import Scoreboard
from trio_lua.process.signals import DUMP, MASTER_ACTIONS, Action, action_of
from trio_lua.process.upgrade import Upgrade

__all__ = ["FATAL", "Application", "Master", "Post"]

#: The exit code of a child that could not even begin (nginx's): it is not replaced.
FATAL = 2

#: A child that has run for so long has not failed at once, and is replaced at once.
_STEADY = 5.0
#: The pause before a child that failed at once is replaced again, from the second time on: doubled each time.
_FIRST_PAUSE, _LAST_PAUSE = 0.1, 10.0
#: So many failures before it serves, and a new generation is given up.
_MAX_FALSE_STARTS = 3

#: How long children may take to end when they are to end at once.
_STOP_TIME = 5.0
#: How long a stuck child has to say what it is doing.
_LAST_WORDS = 1.0
#: How often files are looked at for changes.
_POLL = 0.5


@dataclass(frozen=True, slots=True)
class Post:
    """What a child needs to take its place.

    Attributes:
        slot: Its place on the scoreboard.
        place: What it is, for Lua code.
        scoreboard: Where its heart beats.
        cycle: What it serves.
        line: To its master.
        endpoint: Its inbox, and the way to those of the others; None without a mesh.
    """

    slot: int
    place: Place
    scoreboard: Scoreboard
    cycle: Cycle
    line: Line
    endpoint: Endpoint | None = None


class Application(Protocol):
    """A configuration ready to be served: everything up to the point where a worker is forked."""

    #: Whether ``init_by_lua*`` asked for a privileged agent.
    wants_agent: bool

    def run(self, post: Post) -> int:
        """In a child: serve until told to end; returns the exit code."""

    def reopen_logs(self) -> None:
        """Open the log files again that the workers write."""

    def close(self) -> None:
        """In the master: it is not needed any more, and no child is forked from it."""


@dataclass(eq=False, slots=True)
class _Child:
    """A slot of a generation, and the process that runs in it, if one does."""

    slot: int
    kind: str
    #: Its slot in the mesh; None while it has none.
    inbox: int | None = None
    pid: int = 0
    ready: bool = False
    began: float = 0.0
    failures: int = 0
    #: When to start (again); None while it runs or is not wanted.
    start_at: float | None = None
    #: When to kill it, as it does not answer.
    kill_at: float | None = None

    @property
    def title(self) -> str:
        return "worker process" if self.kind == WORKER else "privileged agent process"


@dataclass(eq=False, slots=True)
class _Generation:
    cycle: Cycle
    application: Application
    scoreboard: Scoreboard
    children: list[_Child]
    #: Told to finish: children that end are not replaced.
    finishing: bool = False
    #: How old the heartbeat of a child may become; 0: does not matter.
    patience: float = 0.0

    @property
    def running(self) -> list[_Child]:
        return [child for child in self.children if child.pid]


class Master:
    """Runs the workers of a cycle, and of those that follow it, until a signal ends it.

    Args:
        cycle: What to serve first. The one in use at the end, :attr:`cycle`, is the caller's to close.
        prepare: Makes the application of a cycle, ``init_by_lua*`` included.
        processes: The system.
        reload: Makes the next cycle from the one in use, or None with the reason in the log.
        resize: The same for another number of workers of the same configuration.
        ready: Called once, when the first workers serve.
        replaced: Called after a reload with the cycle in use and the one before it.
        upgrade: Starts a new executable; without it SIGUSR2 is only logged.
        background: Whether this process has left its terminal; only then SIGWINCH is from somebody who means it.
        poll: Called twice a second; the result is whether to reload.
        mesh: What connects all children. It is the caller's to close.
    """

    def __init__(
        self,
        cycle: Cycle,
        prepare: Callable[[Cycle], Application],
        processes: Processes,
        *,
        reload: Callable[[Cycle], Cycle | None] | None = None,
        resize: Callable[[Cycle, int], Cycle | None] | None = None,
        ready: Callable[[], None] | None = None,
        replaced: Callable[[Cycle, Cycle], None] | None = None,
        upgrade: Upgrade | None = None,
        background: bool = False,
        poll: Callable[[], bool] | None = None,
        mesh: Mesh | None = None,
    ) -> None:
        self.cycle = cycle
        self._prepare = prepare
        self._processes = processes
        self._reload = reload
        self._resize = resize
        self._ready = ready
        self._replaced = replaced
        self._upgrade = upgrade
        self._background = background
        self._poll = poll
        self._mesh = mesh
        self._generations: list[_Generation] = []
        self._current: _Generation | None = None
        #: The generation whose workers do not serve yet.
        self._starting: _Generation | None = None
        #: What to do when they do.
        self._next: Callable[[], Cycle | None] | None = None
        self._ending = False
        self._failed = False
        self._kill_at: float | None = None
        self._poll_at: float | None = None
        self._announce_at: float | None = None
        self._looked = 0.0

    # ------------------------------------------------------------------ the loop

    def run(self) -> int:
        """Serve until stopped; the exit status is 0, or 1 when nothing could be served.

        Raises:
            TrioLuaError: The application could not be made.
        """
        self._starting = self._begin(self.cycle)
        now = self._looked = self._processes.now()
        if self._poll is not None:
            self._poll_at = now + _POLL
        while True:
            self._act()
            if self._ending and not any(g.running for g in self._generations):
                break
            for event in self._processes.wait(self._timeout()):
                self._handle(event)
        for generation in list(self._generations):
            self._close(generation)
        self._close_listeners(self.cycle)
        return 1 if self._failed else 0

    def _handle(self, event: Event) -> None:
        if isinstance(event, Signalled):
            self._signalled(event.number)
        elif isinstance(event, Ready):
            for _, child in self._children():
                if child.pid == event.pid:
                    child.ready = True
        else:
            self._exited(event)

    def _children(self) -> Iterator[tuple[_Generation, _Child]]:
        for generation in list(self._generations):
            for child in generation.children:
                yield generation, child

    def _timeout(self) -> float | None:
        now = self._processes.now()
        times = [self._kill_at, self._poll_at, self._announce_at]
        for generation, child in self._children():
            times += [child.start_at, child.kill_at]
            if child.pid and generation.patience:
                times.append(now + self._step(generation))
        known = [time for time in times if time is not None]
        return max(0.0, min(known) - now) if known else None

    @staticmethod
    def _step(generation: _Generation) -> float:
        return min(generation.patience / 4, 1.0)

    def _act(self) -> None:
        """Do what the time has come for, and what the last events allow."""
        now = self._processes.now()
        self._look_after(now)
        for generation, child in self._children():
            if child.start_at is not None and child.start_at <= now:
                self._start(generation, child)
        starting = self._starting
        if (
            starting is not None
            and not starting.finishing
            and all(child.ready for child in starting.children)
        ):
            self._promote(starting)
        for generation in list(self._generations):
            if generation.finishing and not generation.running and generation is not self._current:
                self._close(generation)
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            for _, child in self._children():
                self._kill(child, signal.SIGKILL)
        if self._poll is not None and self._poll_at is not None and now >= self._poll_at:
            self._poll_at = now + _POLL
            if self._poll() and not self._ending:
                self._change(self._reloaded)
        if self._next is not None and self._starting is None and not self._ending:
            make, self._next = self._next, None
            self._change(make)
        # those that were there before learn of new inboxes; a full one is tried again
        self._announce_at = None
        if self._mesh is not None and not self._mesh.announce():
            self._announce_at = now + _FIRST_PAUSE

    # --------------------------------------------------------------- generations

    def _begin(self, cycle: Cycle) -> _Generation:
        """Make the application of a cycle and plan its children."""
        application = self._prepare(cycle)
        workers = cycle.config.worker_processes
        children = [_Child(slot, WORKER) for slot in range(workers)]
        if application.wants_agent:
            children.append(_Child(workers, AGENT))
        generation = _Generation(
            cycle,
            application,
            Scoreboard(len(children), workers),
            children,
            patience=cycle.config.http.lua_worker_stuck_timeout,
        )
        self._generations.append(generation)
        try:
            self._start_all(generation)
        except BaseException:
            self._finish(generation, signal.SIGTERM)
            self._generations.remove(generation)
            application.close()
            raise
        return generation

    def _start_all(self, generation: _Generation) -> None:
        """Let the children start; all have their inboxes before the first of them is forked."""
        generation.finishing = False
        generation.cycle.error_log.log(NOTICE, b"start worker processes")
        now = self._processes.now()
        for child in generation.children:
            if self._mesh is not None and child.inbox is None:
                child.inbox = self._mesh.claim(child.slot if child.kind == WORKER else None)
            child.start_at, child.failures = now, 0

    def _start(self, generation: _Generation, child: _Child) -> None:
        log = generation.cycle.error_log
        child.start_at, child.ready, child.began = None, False, self._processes.now()
        try:
            child.pid = self._processes.fork(partial(self._child_main, generation, child))
        except OSError as exc:
            log.log(ALERT, f'fork() failed while spawning "{child.title}" {os_error(exc)}'.encode())
            child.start_at = child.began + _LAST_PAUSE
            return
        generation.scoreboard.set_pid(child.slot, child.pid, child.began)
        if self._mesh is not None and child.inbox is not None:
            self._mesh.forked(child.inbox, child.pid)
        log.log(NOTICE, f"start {child.title} {child.pid}".encode())

    def _child_main(self, generation: _Generation, child: _Child, line: Line) -> int:
        """What the forked process does instead of being the master."""
        generation.scoreboard.set_pid(child.slot, os.getpid(), child.began)
        for other in self._generations:
            if other is not generation:
                other.cycle.listeners.abandon(generation.cycle.listeners)
                if other.cycle.error_log is not generation.cycle.error_log:
                    other.cycle.error_log.close()
        workers = generation.cycle.config.worker_processes
        place = Place(
            child.kind,
            child.slot if child.kind == WORKER else None,
            workers,
            os.getppid(),
            generation.scoreboard.pids,
        )
        endpoint = None
        if self._mesh is not None and child.inbox is not None:
            endpoint = self._mesh.endpoint(child.inbox)
        post = Post(child.slot, place, generation.scoreboard, generation.cycle, line, endpoint)
        return generation.application.run(post)

    def _promote(self, new: _Generation) -> None:
        """All its workers serve: it is the one in use, and the one before it may finish."""
        self._starting = None
        old, self._current = self._current, new
        try:
            if old is None:
                if self._ready is not None:
                    self._ready()
                return
            if old is new:
                return
            self.cycle = new.cycle
            if self._replaced is not None:
                self._replaced(new.cycle, old.cycle)
        except TrioLuaError as exc:
            report(new.cycle.error_log, exc)
            if old is None:
                self._fail()
                return
        assert old is not None
        old.cycle.listeners.close(error_log=new.cycle.error_log, keep=new.cycle.listeners)
        self._finish(old, signal.SIGQUIT)

    def _finish(self, generation: _Generation, number: int) -> None:
        """Tell the children to end, and replace none of them any more."""
        generation.finishing = True
        for child in generation.children:
            child.start_at = None
            if not child.pid:
                self._release(child)
                continue
            if self._mesh is not None and child.inbox is not None:
                self._mesh.retire(child.inbox)
            self._kill(child, number)

    def _release(self, child: _Child) -> None:
        """Nobody comes after a child: give its inbox back."""
        if self._mesh is not None and child.inbox is not None:
            self._mesh.release(child.inbox)
            child.inbox = None

    def _close(self, generation: _Generation) -> None:
        self._generations.remove(generation)
        generation.application.close()
        if generation.cycle is not self.cycle:
            generation.cycle.error_log.close()

    def _give_up(self, generation: _Generation) -> None:
        """A generation does not come to serve: go on without it, or end."""
        self._starting = None
        if self._current is None:
            self._fail()
            return
        log = self.cycle.error_log
        log.log(ERROR, b"the new worker processes do not start, the old ones go on")
        generation.cycle.listeners.close(error_log=log, keep=self.cycle.listeners)
        self._finish(generation, signal.SIGTERM)

    def _fail(self) -> None:
        self._failed = True
        self._stop()

    # ------------------------------------------------------------------- reloads

    def _reloaded(self) -> Cycle | None:
        if self._reload is None:
            return None
        self.cycle.error_log.log(NOTICE, b"reconfiguring")
        return self._reload(self.cycle)

    def _resized(self, difference: int) -> Cycle | None:
        number = self.cycle.config.worker_processes + difference
        if self._resize is None or number < 1:
            return None
        return self._resize(self.cycle, number)

    def _change(self, make: Callable[[], Cycle | None]) -> None:
        """Start a new generation; after the one that is starting, if one is."""
        if self._starting is not None:
            self._next = make
            return
        log = self.cycle.error_log
        cycle = None
        try:
            cycle = make()
            if cycle is not None:
                self._starting = self._begin(cycle)
        except Exception as exc:
            report(log, exc)
            if cycle is not None:
                cycle.close(keep=self.cycle)

    # ------------------------------------------------------------------- signals

    def _signalled(self, number: int) -> None:
        log = self.cycle.error_log
        action = action_of(number, log, MASTER_ACTIONS)
        if action is Action.STOP:
            self._stop()
        elif action is Action.QUIT:
            self._quit()
        elif action is Action.REOPEN:
            log.log(NOTICE, b"reopening logs")
            log.reopen()
            for generation in self._generations:
                generation.application.reopen_logs()
            self._tell_all(number)
        elif action is Action.DUMP:
            self._tell_all(DUMP)
        elif self._ending:
            pass
        elif action is Action.RELOAD:
            current = self._current
            if current is not None and current.finishing and self._successor_runs():
                # the workers were sent away for the sake of a new executable: they come back as they were
                self._starting = current
                self._start_all(current)
            else:
                self._change(self._reloaded)
        elif action is Action.STAND_DOWN:
            if self._background and self._current is not None:
                self._finish(self._current, signal.SIGQUIT)
        elif action is Action.UPGRADE:
            if self._upgrade is not None:
                self._upgrade.start(self._processes, self.cycle)
        elif action is Action.MORE:
            self._change(partial(self._resized, +1))
        elif action is Action.FEWER:
            self._change(partial(self._resized, -1))

    def _successor_runs(self) -> bool:
        return self._upgrade is not None and bool(self._upgrade.pid)

    def _tell_all(self, number: int) -> None:
        for _, child in self._children():
            self._kill(child, number)

    def _stop(self) -> None:
        if not self._ending or self._kill_at is None:
            self._kill_at = self._processes.now() + _STOP_TIME
        self._ending = True
        for generation in self._generations:
            self._finish(generation, signal.SIGTERM)

    def _quit(self) -> None:
        if self._ending:
            return
        self._ending = True
        for generation in self._generations:
            self._finish(generation, signal.SIGQUIT)
            self._close_listeners(generation.cycle)

    def _close_listeners(self, cycle: Cycle) -> None:
        # the files of Unix sockets are the successor's, if there is one
        cycle.listeners.close(error_log=self.cycle.error_log, leave_files=self._successor_runs())

    def _kill(self, child: _Child, number: int) -> None:
        if not child.pid:
            return
        try:
            self._processes.kill(child.pid, number)
        except OSError as exc:
            message = f"kill({child.pid}, {int(number)}) failed {os_error(exc)}"
            self.cycle.error_log.log(ALERT, message.encode())

    # ------------------------------------------------------------- ends of children

    def _exited(self, event: Exited) -> None:
        log = self.cycle.error_log
        if self._upgrade is not None and self._upgrade.pid == event.pid:
            _log_end("new binary process", event, log)
            self._upgrade.ended(self.cycle)
            current = self._current
            if current is not None and current.finishing and not self._ending:
                self._starting = current
                self._start_all(current)
            return
        for generation, child in self._children():
            if child.pid == event.pid:
                _log_end(child.title, event, log)
                self._vacate(generation, child, event)
                return
        _log_end("unknown process", event, log)

    def _vacate(self, generation: _Generation, child: _Child, event: Exited) -> None:
        """A child has ended: replace it, unless it was to end."""
        now = self._processes.now()
        served, child.ready = child.ready, False
        child.pid, child.kill_at = 0, None
        generation.scoreboard.set_pid(child.slot, 0, now)
        if generation.finishing or self._ending:
            self._release(child)
            return
        if self._mesh is not None and child.inbox is not None:
            self._mesh.died(child.inbox)
        if event.code == FATAL and not served:
            message = f"{child.title} {event.pid} exited with fatal code 2 and cannot be respawned"
            self.cycle.error_log.log(ALERT, message.encode())
            if generation is self._starting:
                self._give_up(generation)
            return
        child.failures = 0 if now - child.began >= _STEADY else child.failures + 1
        if generation is self._starting and not served and child.failures >= _MAX_FALSE_STARTS:
            self._give_up(generation)
            return
        pause = 0.0
        if child.failures > 1:
            pause = min(_FIRST_PAUSE * 2 ** (child.failures - 2), _LAST_PAUSE)
        child.start_at = now + pause

    # ----------------------------------------------------------------- heartbeats

    def _look_after(self, now: float) -> None:
        """Replace the children whose event loop stands still, after they had the chance to say why."""
        # if this process itself did not run (a stopped machine), nobody else may have
        late = now - self._looked > 5.0
        self._looked = now
        for generation, child in self._children():
            if not child.pid or not generation.patience:
                continue
            if child.kill_at is not None:
                if now >= child.kill_at:
                    child.kill_at = None
                    self._kill(child, signal.SIGKILL)
                continue
            silence = now - generation.scoreboard.last_beat(child.slot)
            if silence < generation.patience:
                continue
            if late:
                continue
            message = f"{child.title} {child.pid} has not answered for {silence:.0f} s, killing it"
            generation.cycle.error_log.log(ALERT, message.encode())
            self._processes.ask(child.pid)
            child.kill_at = now + _LAST_WORDS


def _log_end(title: str, event: Exited, log: Log) -> None:
    if event.signal:
        core = " (core dumped)" if event.core else ""
        log.log(ALERT, f"{title} {event.pid} exited on signal {event.signal}{core}".encode())
    else:
        log.log(NOTICE, f"{title} {event.pid} exited with code {event.code}".encode())
