"""What the master decides, with a system that is not there and a clock that jumps."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trio_lua.config.model import Config, Http, Listen
from trio_lua.errors import LuaError, TrioLuaError
from trio_lua.process.children import Event, Exited, Line, Ready, Signalled
from trio_lua.process.cycle import Cycle
from trio_lua.process.master import Application, Master, Post
from trio_lua.process.signals import DUMP
from trio_lua.process.sockets import Listeners
from trio_lua.process.upgrade import Upgrade


class StubApplication:
    def __init__(self, cycle: Cycle, agent: bool) -> None:
        self.cycle = cycle
        self.wants_agent = agent
        self.closed = False
        self.reopened = 0

    def run(self, post: Post) -> int:
        raise AssertionError("nothing is forked here")

    def reopen_logs(self) -> None:
        self.reopened += 1

    def close(self) -> None:
        assert not self.closed
        self.closed = True


class Stop(Exception):
    """The script is at its end."""


class System:
    """Processes that exist in a list, and a script of what happens.

    The script runs whenever the master waits: it yields the events of that moment, or a number of seconds to let the
    master wait for (it is woken before, if it asks to be).
    """

    def __init__(self) -> None:
        self.time = 1000.0
        self.pids = 100
        self.alive: list[int] = []
        self.sent: list[tuple[int, int]] = []
        self.asked: list[int] = []
        self.executed: list[tuple[list[str], dict[str, str], list[int]]] = []
        self.refuse_forks = 0
        self.script: Iterator[Event | float] = iter(())
        self._until: float | None = None
        #: Whether children report at once that they serve.
        self.prompt = True
        self._events: list[Event] = []

    def now(self) -> float:
        return self.time

    def fork(self, main: Callable[[Line], int]) -> int:
        if self.refuse_forks:
            self.refuse_forks -= 1
            raise BlockingIOError(11, "Resource temporarily unavailable")
        self.pids += 1
        self.alive.append(self.pids)
        if self.prompt:
            self._events.append(Ready(self.pids))
        return self.pids

    def execute(self, arguments: list[str], environment: dict[str, str], fds: list[int]) -> int:
        self.executed.append((arguments, environment, fds))
        self.pids += 1
        return self.pids

    def kill(self, pid: int, number: int) -> None:
        self.sent.append((pid, int(number)))
        if number == signal.SIGKILL:
            self._events.append(self.end(pid, signal=9))

    def ask(self, pid: int) -> None:
        self.asked.append(pid)

    def end(self, pid: int, code: int = 0, signal: int = 0) -> Exited:
        self.alive.remove(pid)
        return Exited(pid, code, signal)

    def wait(self, timeout: float | None) -> list[Event]:
        if self._events:
            events, self._events = self._events, []
            return events
        # real time goes on by itself, however short the wait
        end = math.inf if timeout is None else self.time + timeout + 1e-9
        while True:
            if self._until is not None:
                if end < self._until:
                    self.time = end
                    return []
                self.time, self._until = self._until, None
            try:
                step = next(self.script)
            except StopIteration:
                raise Stop from None
            if not isinstance(step, float):
                return [step]
            self._until = self.time + step

    def take_sent(self) -> list[tuple[int, int]]:
        sent, self.sent = self.sent, []
        return sent


class Stage:
    """A master with everything around it faked."""

    def __init__(self, log: Any) -> None:
        self.log = log
        self.system = System()
        self.applications: list[StubApplication] = []
        self.agent = False
        self.failure: Exception | None = None
        self.next: Cycle | None = None
        self.reloads = 0
        self.ready = 0
        self.replaced: list[tuple[Cycle, Cycle]] = []
        self.refuse_ready = False
        self.options: dict[str, Any] = {}
        self.status: int | None = None

    def cycle(self, workers: int = 2, patience: float = 0.0, **config: Any) -> Cycle:
        http = Http(lua_worker_stuck_timeout=patience)
        return Cycle(Config(http=http, worker_processes=workers, **config), self.log, Listeners())

    def _prepare(self, cycle: Cycle) -> Application:
        if self.failure is not None:
            raise self.failure
        self.applications.append(StubApplication(cycle, self.agent))
        return self.applications[-1]

    def _reload(self, current: Cycle) -> Cycle | None:
        self.reloads += 1
        return self.next

    def _ready(self) -> None:
        self.ready += 1
        if self.refuse_ready:
            raise TrioLuaError("no place for a pid file")

    def master(self, cycle: Cycle) -> Master:
        def resize(current: Cycle, number: int) -> Cycle:
            return replace(current, config=replace(current.config, worker_processes=number))

        return Master(
            cycle,
            self._prepare,
            self.system,
            reload=self._reload,
            resize=resize,
            ready=self._ready,
            replaced=lambda new, old: self.replaced.append((new, old)),
            **self.options,
        )

    def run(self, script: Iterator[Event | float], cycle: Cycle | None = None) -> Master:
        """Run a master through a script, to its end or the script's."""
        self.system.script = script
        self.status = None
        master = self.master(self.cycle() if cycle is None else cycle)
        with suppress(Stop):
            self.status = master.run()
        return master


@pytest.fixture
def stage(log: Any) -> Stage:
    return Stage(log)


def lines(stage: Stage) -> list[str]:
    return [line for line in stage.log.lines if "SIGCHLD" not in line]


@contextmanager
def listening(stage: Stage, tmp_path: Path) -> Iterator[Listeners]:
    with Listeners.bind([Listen("", 0, path=str(tmp_path / "s"))], error_log=stage.log) as bound:
        yield bound


def test_start(stage: Stage) -> None:
    def script() -> Iterator[Event | float]:
        assert stage.ready == 1
        assert stage.system.alive == [101, 102]
        yield 1000.0

    stage.run(script())
    assert lines(stage) == [
        "[notice] start worker processes",
        "[notice] start worker process 101",
        "[notice] start worker process 102",
    ]


def test_a_privileged_agent(stage: Stage) -> None:
    stage.agent = True
    stage.run(iter(()))
    assert stage.system.alive == [101, 102, 103]
    assert lines(stage)[-1] == "[notice] start privileged agent process 103"


def test_it_is_ready_when_all_workers_are(stage: Stage) -> None:
    stage.system.prompt = False

    def script() -> Iterator[Event | float]:
        yield Ready(101)
        assert stage.ready == 0
        yield Ready(102)
        yield 1.0
        assert stage.ready == 1

    stage.run(script())


def test_init_by_lua_fails(stage: Stage) -> None:
    stage.failure = LuaError("init_by_lua error: no")
    with pytest.raises(LuaError):
        stage.run(iter(()))
    assert stage.system.alive == []


def test_a_worker_that_cannot_begin_ends_the_start(stage: Stage) -> None:
    stage.system.prompt = False

    def script() -> Iterator[Event | float]:
        yield stage.system.end(102, code=2)
        assert stage.system.sent == [(101, signal.SIGTERM)]
        yield stage.system.end(101)

    stage.run(script())
    assert stage.status == 1
    assert stage.ready == 0
    assert "[notice] worker process 102 exited with code 2" in lines(stage)
    assert (
        "[alert] worker process 102 exited with fatal code 2 and cannot be respawned"
        in stage.log.lines
    )


def test_a_pid_file_that_cannot_be_written_ends_the_start(stage: Stage) -> None:
    stage.refuse_ready = True

    def script() -> Iterator[Event | float]:
        yield stage.system.end(101)
        yield stage.system.end(102)

    stage.run(script())
    assert stage.status == 1


# ------------------------------------------------------------------ ends of workers


def test_a_crashed_worker_is_replaced_at_once(stage: Stage) -> None:
    def script() -> Iterator[Event | float]:
        yield 100.0
        before = stage.system.time
        yield stage.system.end(101, signal=9)
        assert stage.system.alive == [102, 103]
        assert stage.system.time == before
        yield stage.system.end(102, code=1)
        assert stage.system.alive == [103, 104]
        assert stage.system.time == before

    stage.run(script())
    assert lines(stage)[-4:] == [
        "[alert] worker process 101 exited on signal 9",
        "[notice] start worker process 103",
        "[notice] worker process 102 exited with code 1",
        "[notice] start worker process 104",
    ]


def test_core_dump(stage: Stage) -> None:
    def script() -> Iterator[Event | float]:
        yield replace(stage.system.end(101, signal=11), core=True)

    stage.run(script())
    assert "[alert] worker process 101 exited on signal 11 (core dumped)" in stage.log.lines


def test_back_off(stage: Stage) -> None:
    """What fails again and again is started again at longer and longer intervals."""
    pauses: list[float] = []

    def script() -> Iterator[Event | float]:
        yield 1.0
        for _ in range(12):
            pid = stage.system.alive[-1]
            begun = stage.system.time
            yield stage.system.end(pid, signal=11)
            while not stage.system.alive:
                yield 0.05
            pauses.append(round(stage.system.time - begun, 3))
        yield 10.0
        begun = stage.system.time
        pid = stage.system.alive[-1]
        yield stage.system.end(pid, signal=11)
        assert stage.system.alive
        assert stage.system.time == begun

    stage.run(script(), stage.cycle(workers=1))
    assert pauses[:5] == pytest.approx([0.0, 0.1, 0.2, 0.4, 0.8], abs=0.051)
    assert pauses[-1] == pytest.approx(10.0, abs=0.051)


def test_fork_may_fail_for_a_while(stage: Stage) -> None:
    stage.system.refuse_forks = 1

    def script() -> Iterator[Event | float]:
        assert stage.system.alive == [101]
        assert stage.ready == 0
        yield 11.0
        assert stage.system.alive == [101, 102]
        assert stage.ready == 1

    stage.run(script())
    assert (
        '[alert] fork() failed while spawning "worker process" '
        "(11: Resource temporarily unavailable)" in stage.log.lines
    )


def test_unknown_children(stage: Stage) -> None:
    stage.run(iter([Exited(7, code=3)]))
    assert lines(stage)[-1] == "[notice] unknown process 7 exited with code 3"
    assert stage.system.alive == [101, 102]


# ------------------------------------------------------------------------ the end


def test_quit(stage: Stage, tmp_path: Path) -> None:
    with listening(stage, tmp_path) as bound:
        cycle = replace(stage.cycle(), listeners=bound)

        def script() -> Iterator[Event | float]:
            yield Signalled(signal.SIGQUIT)
            assert stage.system.take_sent() == [(101, signal.SIGQUIT), (102, signal.SIGQUIT)]
            # nobody connects any more
            assert list(tmp_path.iterdir()) == []
            yield Signalled(signal.SIGQUIT)
            assert stage.system.take_sent() == []
            yield stage.system.end(101)
            yield 1000.0
            yield stage.system.end(102)

        stage.run(script(), cycle)
    assert stage.status == 0
    assert stage.applications[0].closed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop(stage: Stage, number: signal.Signals) -> None:
    def script() -> Iterator[Event | float]:
        yield Signalled(number)
        assert stage.system.take_sent() == [(101, signal.SIGTERM), (102, signal.SIGTERM)]
        yield stage.system.end(101)
        yield stage.system.end(102)

    stage.run(script())
    assert stage.status == 0


def test_stop_kills_who_does_not_listen(stage: Stage) -> None:
    def script() -> Iterator[Event | float]:
        yield Signalled(signal.SIGTERM)
        yield stage.system.end(101)
        yield 6.0
        raise AssertionError("it has ended")

    stage.run(script())
    assert stage.status == 0
    assert stage.system.sent[-1] == (102, signal.SIGKILL)
    assert stage.system.time == pytest.approx(1005.0)


def test_stop_while_quitting(stage: Stage) -> None:
    def script() -> Iterator[Event | float]:
        yield Signalled(signal.SIGQUIT)
        stage.system.take_sent()
        yield Signalled(signal.SIGTERM)
        assert stage.system.take_sent() == [(101, signal.SIGTERM), (102, signal.SIGTERM)]
        yield 6.0

    stage.run(script())
    assert stage.status == 0


def test_a_worker_that_ends_while_all_do_is_not_replaced(stage: Stage) -> None:
    def script() -> Iterator[Event | float]:
        yield Signalled(signal.SIGQUIT)
        yield stage.system.end(101, signal=9)
        assert stage.system.alive == [102]
        yield stage.system.end(102)

    stage.run(script())
    assert stage.status == 0


# ------------------------------------------------------------------------- reloads


def test_reload(stage: Stage) -> None:
    first, second = stage.cycle(), stage.cycle(workers=1)
    stage.next = second

    def script() -> Iterator[Event | float]:
        stage.system.prompt = False
        yield Signalled(signal.SIGHUP)
        assert stage.system.alive == [101, 102, 103]
        assert stage.system.sent == []
        yield Ready(103)
        assert stage.system.take_sent() == [(101, signal.SIGQUIT), (102, signal.SIGQUIT)]
        assert stage.replaced == [(second, first)]
        yield stage.system.end(102)
        assert not stage.applications[0].closed
        yield stage.system.end(101)
        assert stage.applications[0].closed
        assert stage.system.alive == [103]
        yield 1.0

    master = stage.run(script(), first)
    assert master.cycle is second
    assert stage.ready == 1
    assert "[notice] reconfiguring" in stage.log.lines


def test_reload_that_cannot_be_read(stage: Stage) -> None:
    stage.run(iter([Signalled(signal.SIGHUP), 5.0]))
    assert stage.reloads == 1
    assert stage.system.alive == [101, 102]
    assert stage.system.sent == []


def test_reload_whose_init_by_lua_fails(stage: Stage) -> None:
    stage.next = stage.cycle()
    first = stage.cycle()

    def script() -> Iterator[Event | float]:
        stage.failure = LuaError("init_by_lua error: no")
        yield Signalled(signal.SIGHUP)
        yield 1.0

    master = stage.run(script(), first)
    assert master.cycle is first
    assert stage.system.alive == [101, 102]
    assert "[error] init_by_lua error: no" in stage.log.lines


def test_reload_whose_workers_do_not_start(stage: Stage) -> None:
    first = stage.cycle()
    stage.next = stage.cycle()

    def script() -> Iterator[Event | float]:
        stage.system.prompt = False
        yield Signalled(signal.SIGHUP)
        yield Ready(103)
        for _ in range(3):
            yield stage.system.end(stage.system.alive[-1], signal=11)
            yield 0.2
        assert stage.system.take_sent() == [(103, signal.SIGTERM)]
        yield stage.system.end(103)
        assert stage.applications[1].closed

    master = stage.run(script(), first)
    assert master.cycle is first
    assert stage.system.alive == [101, 102]
    assert "[error] the new worker processes do not start, the old ones go on" in stage.log.lines


def test_reloads_come_one_after_the_other(stage: Stage) -> None:
    stage.next = stage.cycle(workers=1)

    def script() -> Iterator[Event | float]:
        stage.system.prompt = False
        yield Signalled(signal.SIGHUP)
        yield Signalled(signal.SIGHUP)
        yield Signalled(signal.SIGHUP)
        assert stage.reloads == 1
        yield Ready(102)
        assert stage.reloads == 2
        yield 0.1
        yield Ready(103)
        yield stage.system.end(101)
        yield stage.system.end(102)
        assert stage.reloads == 2

    stage.run(script(), stage.cycle(workers=1))
    assert stage.system.alive == [103]


def test_old_workers_that_crash_are_not_replaced(stage: Stage) -> None:
    stage.next = stage.cycle(workers=1)

    def script() -> Iterator[Event | float]:
        yield Signalled(signal.SIGHUP)
        yield 1.0
        yield stage.system.end(101, signal=11)

    stage.run(script(), stage.cycle(workers=1))
    assert stage.system.alive == [102]


def test_quit_during_a_reload(stage: Stage) -> None:
    stage.next = stage.cycle(workers=1)

    def script() -> Iterator[Event | float]:
        stage.system.prompt = False
        yield Signalled(signal.SIGHUP)
        yield Signalled(signal.SIGQUIT)
        assert stage.system.take_sent() == [(101, signal.SIGQUIT), (102, signal.SIGQUIT)]
        yield Ready(102)
        yield stage.system.end(101)
        yield stage.system.end(102)

    stage.run(script(), stage.cycle(workers=1))
    assert stage.status == 0
    assert stage.replaced == []


def test_one_worker_more_or_less(stage: Stage) -> None:
    def script() -> Iterator[Event | float]:
        yield Signalled(signal.SIGTTIN)
        assert stage.system.alive == [101, 102, 103]
        yield stage.system.end(101)
        yield Signalled(signal.SIGTTOU)
        yield stage.system.end(102)
        yield stage.system.end(103)
        assert stage.system.alive == [104]
        # the last one stays
        yield Signalled(signal.SIGTTOU)

    stage.run(script(), stage.cycle(workers=1))
    assert stage.system.alive == [104]
    assert stage.reloads == 0


def test_changed_files(stage: Stage) -> None:
    looks = iter([False, False, True])
    stage.next = stage.cycle(workers=1)
    stage.options["poll"] = lambda: next(looks, False)
    stage.run(iter([2.0]), stage.cycle(workers=1))
    assert stage.reloads == 1


# ------------------------------------------------------------------------- signals


def test_logs_are_reopened_everywhere(stage: Stage) -> None:
    stage.run(iter([Signalled(signal.SIGUSR1)]))
    assert stage.log.reopened == 1
    assert stage.applications[0].reopened == 1
    assert stage.system.sent == [(101, signal.SIGUSR1), (102, signal.SIGUSR1)]
    assert lines(stage)[-1] == "[notice] reopening logs"


def test_a_dump_of_all_workers(stage: Stage) -> None:
    stage.run(iter([Signalled(DUMP)]))
    assert stage.system.sent == [(101, DUMP), (102, DUMP)]


def test_a_signal_that_does_not_arrive_is_logged(stage: Stage) -> None:
    def kill(pid: int, number: int) -> None:
        raise ProcessLookupError(3, "No such process")

    stage.system.kill = kill  # type: ignore[method-assign]
    stage.run(iter([Signalled(signal.SIGUSR1)]))
    assert "[alert] kill(101, 10) failed (3: No such process)" in stage.log.lines


def test_sigwinch_of_a_terminal_is_about_its_size(stage: Stage) -> None:
    stage.run(iter([Signalled(signal.SIGWINCH)]))
    assert stage.system.sent == []


def test_standing_down_and_coming_back(stage: Stage) -> None:
    stage.options["background"] = True
    stage.next = stage.cycle()

    def script() -> Iterator[Event | float]:
        yield Signalled(signal.SIGWINCH)
        assert stage.system.take_sent() == [(101, signal.SIGQUIT), (102, signal.SIGQUIT)]
        yield stage.system.end(101)
        yield stage.system.end(102)
        yield 100.0
        assert stage.system.alive == []
        yield Signalled(signal.SIGHUP)
        yield 1.0

    stage.run(script())
    assert stage.system.alive == [103, 104]
    assert stage.reloads == 1


# ------------------------------------------------------------------------ upgrades


@pytest.fixture
def upgrade(stage: Stage, tmp_path: Path) -> Upgrade:
    (tmp_path / "pid").write_text("1")
    upgrade = Upgrade(["/bin/new", "-c", "x"], {"A": "b"}, lambda _cycle: str(tmp_path / "pid"))
    stage.options |= {"upgrade": upgrade, "background": True}
    return upgrade


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_executable_takes_over(stage: Stage, upgrade: Upgrade, tmp_path: Path) -> None:
    with listening(stage, tmp_path) as bound:
        cycle = replace(stage.cycle(), listeners=bound)
        [fd] = bound.fds

        def script() -> Iterator[Event | float]:
            yield Signalled(signal.SIGUSR2)
            assert stage.system.executed == [
                (["/bin/new", "-c", "x"], {"A": "b", "NGINX": f"{fd};"}, [fd])
            ]
            assert names(tmp_path) == ["pid.oldbin", "s"]
            yield Signalled(signal.SIGUSR2)
            assert len(stage.system.executed) == 1
            yield Signalled(signal.SIGQUIT)
            yield stage.system.end(101)
            yield stage.system.end(102)

        stage.run(script(), cycle)
        assert stage.status == 0
        # the socket is the successor's
        assert names(tmp_path) == ["pid.oldbin", "s"]
        (tmp_path / "s").unlink()
    assert "[notice] start new binary process 103" in stage.log.lines
    assert any("the changing binary signal is ignored" in line for line in stage.log.lines)


def test_a_new_executable_that_is_no_good(stage: Stage, upgrade: Upgrade, tmp_path: Path) -> None:
    def script() -> Iterator[Event | float]:
        yield Signalled(signal.SIGUSR2)
        yield Signalled(signal.SIGWINCH)
        yield stage.system.end(101)
        yield stage.system.end(102)
        assert stage.system.alive == []
        # its predecessor's workers come back when it goes
        yield Exited(103, code=1)
        yield 1.0

    stage.run(script())
    assert stage.system.alive == [104, 105]
    assert names(tmp_path) == ["pid"]
    assert upgrade.pid == 0
    assert "[notice] new binary process 103 exited with code 1" in stage.log.lines


def test_workers_come_back_beside_a_new_executable(stage: Stage, upgrade: Upgrade) -> None:
    def script() -> Iterator[Event | float]:
        yield Signalled(signal.SIGUSR2)
        yield Signalled(signal.SIGWINCH)
        yield stage.system.end(101)
        yield stage.system.end(102)
        yield Signalled(signal.SIGHUP)
        yield 1.0

    stage.run(script())
    assert stage.system.alive == [104, 105]
    assert stage.reloads == 0


# ---------------------------------------------------------------------- heartbeats


def beating(stage: Stage, master: Master, *slots: int) -> None:
    for generation in master._generations:
        for slot in slots:
            generation.scoreboard.beat(slot, stage.system.time)


def test_a_stuck_worker_is_asked_killed_and_replaced(stage: Stage) -> None:
    cycle = stage.cycle(patience=8.0)
    master = stage.master(cycle)

    def script() -> Iterator[Event | float]:
        for _ in range(12):
            beating(stage, master, 0)
            yield 1.0

    stage.system.script = script()
    with pytest.raises(Stop):
        master.run()
    assert stage.system.asked == [102]
    assert stage.system.sent == [(102, signal.SIGKILL)]
    assert stage.system.alive == [101, 103]
    assert lines(stage)[-3:] == [
        "[alert] worker process 102 has not answered for 8 s, killing it",
        "[alert] worker process 102 exited on signal 9",
        "[notice] start worker process 103",
    ]


def test_a_machine_that_slept_has_no_stuck_workers(stage: Stage) -> None:
    cycle = stage.cycle(patience=8.0)
    master = stage.master(cycle)

    def script() -> Iterator[Event | float]:
        yield 1.0
        stage.system.time += 3600.0
        yield Signalled(signal.SIGUSR1)
        beating(stage, master, 0, 1)
        yield 2.0

    stage.system.script = script()
    with pytest.raises(Stop):
        master.run()
    assert stage.system.asked == []


def test_no_patience_means_for_ever(stage: Stage) -> None:
    stage.run(iter([100000.0]))
    assert stage.system.asked == []
