"""The system behind a master: forks, ends, lines and signals, with real processes that do next to nothing."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator

import pytest

from trio_lua.process.children import Children, Event, Exited, Line, Ready, Signalled


@pytest.fixture
def children() -> Iterator[Children]:
    with Children([signal.SIGUSR1, signal.SIGUSR2]) as children:
        yield children


def events(children: Children, wanted: int) -> list[Event]:
    """The next events but for SIGCHLD."""
    found: list[Event] = []
    while len(found) < wanted:
        new = children.wait(10)
        assert new, "nothing happens"
        found += [event for event in new if event != Signalled(signal.SIGCHLD)]
    return found


def test_ends(children: Children) -> None:
    def killed(_line: Line) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    first = children.fork(lambda _line: 7)
    assert events(children, 1) == [Exited(first, 7)]
    second = children.fork(killed)
    assert events(children, 1) == [Exited(second, 0, signal.SIGKILL)]


def test_an_error_is_an_exit_code(children: Children, capfd: pytest.CaptureFixture[str]) -> None:
    def fails(_line: Line) -> int:
        raise ValueError("no")

    pid = children.fork(fails)
    assert events(children, 1) == [Exited(pid, 1)]
    assert "ValueError: no" in capfd.readouterr().err


def test_a_line_in_both_directions(children: Children) -> None:
    def main(line: Line) -> int:
        line.ready()
        return 3 if line.asked() else 4

    pid = children.fork(main)
    assert events(children, 1) == [Ready(pid)]
    children.ask(pid)
    assert events(children, 1) == [Exited(pid, 3)]
    children.ask(pid)


def _second_child(children: Children) -> Callable[[Line], int]:
    """Waits with the first one's line open, if that is a mistake that is made."""

    def main(line: Line) -> int:
        line.ready()
        line.asked()
        return 0

    return main


def test_a_child_notices_that_its_master_is_gone(children: Children) -> None:
    """The line ends although a sibling lives that was forked later."""
    reading, writing = os.pipe()

    def orphan(line: Line) -> int:
        line.ready()
        os.write(writing, b"f" if not line.asked() else b"t")
        return 0

    def master() -> None:
        with Children([signal.SIGUSR1]) as own:
            own.fork(orphan)
            sibling = own.fork(_second_child(own))
            events(own, 2)
            os.write(writing, b"%d;" % sibling)
            os._exit(0)

    pid = os.fork()
    if not pid:
        master()
    os.close(writing)
    data = b""
    while chunk := os.read(reading, 100):
        data += chunk
    os.close(reading)
    os.waitpid(pid, 0)
    assert data.endswith(b";f")


def test_signals_wait_for_the_childs_handlers(children: Children) -> None:
    def main(line: Line) -> int:
        seen: list[int] = []
        line.ready()
        assert line.asked()
        signal.signal(signal.SIGUSR1, lambda number, _frame: seen.append(number))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
        return len(seen)

    pid = children.fork(main)
    children.kill(pid, signal.SIGUSR1)
    children.ask(pid)
    assert events(children, 2) == [Ready(pid), Exited(pid, 1)]


def test_own_signals(children: Children) -> None:
    os.kill(os.getpid(), signal.SIGUSR2)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert events(children, 2) == [Signalled(signal.SIGUSR2), Signalled(signal.SIGUSR1)]
    assert children.wait(0) == []


def test_another_program_inherits_descriptors(children: Children) -> None:
    reading, writing = os.pipe()
    code = f"import os; os.write({writing}, os.environ['A'].encode())"
    pid = children.execute([sys.executable, "-c", code], {"A": "b"}, [writing])
    os.close(writing)
    assert events(children, 1) == [Exited(pid, 0)]
    assert os.read(reading, 10) == b"b"
    os.close(reading)
