"""Threads with a large stack, and those that were there before."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue

import pytest

from trio_lua.threads.stack import large_stacks, on_large_stack


class Helper:
    """A thread that calls what it is told to."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._results: SimpleQueue[object] = SimpleQueue()
        self.thread = threading.Thread(target=self._work)
        self.thread.start()

    def _work(self) -> None:
        while job := self._jobs.get():
            try:
                self._results.put(on_large_stack(job))
            except Exception as error:
                self._results.put(error)

    def call(self, job: Callable[[], object]) -> object:
        self._jobs.put(job)
        return self._results.get(timeout=20)

    def close(self) -> None:
        self._jobs.put(None)
        self.thread.join()


@pytest.fixture
def helper() -> Iterator[Callable[[], Helper]]:
    helpers: list[Helper] = []

    def start() -> Helper:
        helpers.append(Helper())
        return helpers[-1]

    yield start
    for each in helpers:
        each.close()


def fail() -> None:
    raise LookupError("no")


def test_threads_that_were_there_before(helper: Callable[[], Helper]) -> None:
    before = helper()
    with large_stacks():
        assert before.call(threading.current_thread) is not before.thread
        error = before.call(fail)
    assert isinstance(error, LookupError)


def test_threads_that_are_started_meanwhile(helper: Callable[[], Helper]) -> None:
    with large_stacks():
        meanwhile = helper()
        assert meanwhile.call(threading.current_thread) is meanwhile.thread
    with large_stacks():
        assert meanwhile.call(threading.current_thread) is meanwhile.thread
        assert isinstance(meanwhile.call(fail), LookupError)


def test_the_size_is_that_of_before_when_nobody_needs_it() -> None:
    first, second = large_stacks(), large_stacks()
    before = threading.stack_size(0)
    threading.stack_size(before)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    during = threading.stack_size(0)
    threading.stack_size(during)
    second.__exit__(None, None, None)
    after = threading.stack_size(before)
    assert (during > before, after) == (True, before)
