"""Alerts between workers: the bridge between ``ipc.lua`` and an endpoint, and what Python programs use.

Lua composes and takes apart the messages, each a batch of alerts, in memory that Python sends from and
receives into (:class:`Alerts`). :class:`Ipc` is ``ngx.ipc`` for Python code in the same event loop.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Union

import trio

from trio_lua.errors import IPCError
from trio_lua.ipc.endpoint import Endpoint
from trio_lua.ipc.frame import MAX_MESSAGE
from trio_lua.ipc.table import Entry, State
from trio_lua.lua.driver import Driver
from trio_lua.lua.ops import OpTable
from trio_lua.lua.vm import VM

__all__ = ["Alert", "Alerts", "Inbox", "Ipc"]

# see ipc.lua
_ALERT, _REQUEST, _ANSWER = 0, 1, 2

#: Handlers that run, and alerts that wait for Python code, when no more are received.
MAX_RUNNING = 1024


Message = Union[bytes, memoryview, mmap.mmap]


def _address(message: Message) -> int:
    if isinstance(message, bytes):
        return ctypes.cast(ctypes.c_char_p(message), ctypes.c_void_p).value or 0
    return ctypes.addressof(ctypes.c_char.from_buffer(message))


class Alerts:
    """The alerts of a VM.

    Args:
        table: Where to add the calls of ``ipc.lua``.
        driver: Of the VM.
    """

    def __init__(self, table: OpTable, driver: Driver) -> None:
        self._driver = driver
        self.endpoint: Endpoint | None = None
        self.inboxes: dict[bytes, Inbox] = {}
        self.answers: dict[int, Callable[[Any], None]] = {}
        self._buffers: dict[int, memoryview] = {}
        self._woken = trio.Event()
        self._collected = False
        self._delivering = False
        self._running = 0
        self._fewer = trio.lowlevel.ParkingLot()
        self._drained = trio.lowlevel.ParkingLot()
        table.call("ipc_buffer", self._buffer)
        table.call("ipc_send", self._send)
        table.call("ipc_send_large", self._send_large)
        table.call("ipc_wake", self._wake)

    def bind(self, vm: VM) -> None:
        """Take the functions of the VM, which is made after the table is complete."""
        self.vm = vm
        export = vm.export
        self._attach = export("ipc_attach")
        self._flush = export("ipc_flush")
        self._deliver = export("ipc_deliver")
        self._next = export("ipc_next")
        self._lua_drained = export("ipc_drained")
        self._stop = export("ipc_stop")
        self.post = export("ipc_post")
        self.expect = export("ipc_expect")
        self.forget = export("ipc_forget")
        self.listen = export("ipc_listen")

    def attach(self, endpoint: Endpoint) -> None:
        """This process has its place; from now on alerts can be sent, and handlers registered."""
        self.endpoint = endpoint
        self._attach(
            endpoint.table.address,
            endpoint.slot,
            MAX_MESSAGE,
            random.SystemRandom().getrandbits(32),
        )

    # -------------------------------------------------------------- calls of Lua

    def _buffer(self, slot: int) -> int:
        """``rt.py.ipc_buffer``: the address of where a message for a slot is composed."""
        buffer = bytearray(MAX_MESSAGE)
        self._buffers[slot] = memoryview(buffer)
        return ctypes.addressof(ctypes.c_char.from_buffer(buffer))

    def _send(self, slot: int, size: int) -> int:
        """``rt.py.ipc_send``: send what is in the buffer; how much waits for the receiver."""
        assert self.endpoint is not None
        return self.endpoint.send(slot, self._buffers[slot][:size])

    def _send_large(self, head: bytes, address: int, size: int, *slots: int) -> tuple[int, ...]:
        """``rt.py.ipc_send_large``: the same for an alert that does not fit, whose data is a Lua string."""
        assert self.endpoint is not None
        message = b"".join((head, (ctypes.c_char * size).from_address(address)))
        return tuple([self.endpoint.send(slot, message) for slot in slots])

    def _wake(self) -> None:
        """``rt.py.ipc_wake``: something is in a buffer that was not there."""
        self._collected = True
        if not self._delivering:
            self._woken.set()

    def flush(self) -> None:
        """Send what is in the buffers."""
        self._collected = False
        self._flush()

    # ------------------------------------------------------------------- running

    async def serve(self, start: Callable[[int, Any], None]) -> None:
        """Send and receive until cancelled.

        Args:
            start: Called with a handler that has not simply ended: the number of its request and what starting it has
                returned. It calls :meth:`ended` later.
        """
        assert self.endpoint is not None

        def deliver(slot: int, pid: int, message: Message) -> None:
            self._delivering = True
            result = self._deliver(_address(message), len(message), slot, pid)
            while result is not None:
                number = result[0]
                if number is False:
                    self._take(slot, pid, *result[1:])
                elif number is True:
                    answer = self.answers.pop(result[1], None)
                    if answer is not None:
                        answer(result[2:])
                else:
                    rest = result[1] if len(result) == 2 else result[1:]
                    if number > 0:
                        self._driver.woken(number, rest)
                    else:
                        self._running += 1
                        start(-number, rest)
                result = self._next()
            # what handlers have sent need not wait for a task's turn
            self._delivering = False
            if self._collected:
                self.flush()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_what_is_collected)
            await self.endpoint.serve(deliver, self._less_waits, self._room)

    async def _send_what_is_collected(self) -> None:
        while True:
            await self._woken.wait()
            self._woken = trio.Event()
            self.flush()

    def _less_waits(self, slot: int, waiting: int) -> None:
        self._lua_drained(slot, waiting)
        self._drained.unpark_all()

    async def _room(self) -> None:
        while self._running >= MAX_RUNNING:
            await self._fewer.park()

    async def drained(self) -> None:
        """Wait until something is sent that had to wait."""
        await self._drained.park()

    def ended(self, count: int = 1) -> None:
        """Handlers have ended."""
        self._running -= count
        self._fewer.unpark_all()

    async def finish(self, linger: float) -> None:
        """Take no more alerts; wait until no handler runs, and for some seconds until what was sent is on its way."""
        assert self.endpoint is not None
        self._stop()
        while self._running > sum(len(inbox) for inbox in self.inboxes.values()):
            await self._fewer.park()
        with trio.move_on_after(linger):
            self.flush()
            await self.endpoint.flushed()

    def _take(self, slot: int, pid: int, number: Any, name: bytes, data: bytes) -> None:
        """An alert for Python code."""
        inbox = self.inboxes.get(name)
        if inbox is not None:
            self._running += 1
            inbox.put(Alert(self, slot, pid, None if number is False else number, name, data))


class Alert:
    """An alert that was received.

    Attributes:
        name: Its name.
        data: Its data.
        sender: The pid of the process that sent it.
    """

    __slots__ = ("_alerts", "_number", "_slot", "data", "name", "sender")

    def __init__(
        self, alerts: Alerts, slot: int, sender: int, number: int | None, name: bytes, data: bytes
    ) -> None:
        self._alerts = alerts
        self._slot = slot
        self._number = number
        self.name = name
        self.data = data
        self.sender = sender

    def __repr__(self) -> str:
        return f"<Alert {self.name!r} from {self.sender}: {len(self.data)} bytes>"

    async def reply(self, name: str | bytes, data: str | bytes = b"") -> None:
        """Send an alert to the sender; to a request this is the answer, if it is the first one.

        Raises:
            IPCError: The sender is gone, or the name is too long.
        """
        endpoint = self._alerts.endpoint
        if endpoint is None or endpoint.table[self._slot].pid != self.sender:
            raise IPCError(f"No worker process with PID {self.sender}")
        number, self._number = self._number, None
        kind = _ALERT if number is None else _ANSWER
        await _post(self._alerts, self._slot, kind, number or 0, name, data)


class Inbox:
    """The alerts of one name, in the order in which they come; an asynchronous iterator."""

    def __init__(self, alerts: Alerts) -> None:
        self._alerts = alerts
        self._send, self._receive = trio.open_memory_channel[Alert](math.inf)

    def __len__(self) -> int:
        """How many wait."""
        return self._receive.statistics().current_buffer_used

    def put(self, alert: Alert) -> None:
        """One has come."""
        self._send.send_nowait(alert)

    async def receive(self) -> Alert:
        """Wait for the next one."""
        alert = await self._receive.receive()
        self._alerts.ended()
        return alert

    def __aiter__(self) -> Inbox:
        return self

    async def __anext__(self) -> Alert:
        return await self.receive()

    def close(self) -> None:
        """Forget those that wait."""
        self._alerts.ended(len(self))
        self._receive.close()
        self._send.close()


async def _post(
    alerts: Alerts, slot: int, kind: int, number: int, name: str | bytes, data: str | bytes
) -> None:
    """Send; wait while the receiver's queue is full."""
    while True:
        result = alerts.post(slot, kind, number, _bytes(name), _bytes(data))
        if result is True:
            await trio.lowlevel.checkpoint()
            return
        if result is not False:
            raise IPCError(result[1].decode())
        await alerts.drained()


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


class Ipc:
    """Alerts between the workers (``require "ngx.ipc"`` in Lua), for Python code in the worker's event loop.

    Names and data are bytes, or text that is encoded as UTF-8. Receivers are named by ``pid``, or by ``worker``, their number
    (``ngx.worker.id()``), which a replacement takes over.
    """

    def __init__(self, alerts: Alerts) -> None:
        self._alerts = alerts

    @property
    def _endpoint(self) -> Endpoint:
        endpoint = self._alerts.endpoint
        if endpoint is None:
            raise IPCError("the worker does not run yet")
        return endpoint

    def workers(self) -> list[Entry]:
        """The processes that alerts can be sent to."""
        return [entry for entry in self._endpoint.table.used() if entry.pid]

    def _slot(self, pid: int | None, worker: int | None) -> int:
        if (pid is None) == (worker is None):
            raise TypeError("either pid or worker is needed")
        found = [
            entry
            for entry in self._endpoint.table.used()
            if (entry.id == worker if pid is None else entry.pid == pid)
        ]
        for entry in found:
            if entry.state is State.WORKER:
                return entry.slot
        if found:
            return found[0].slot
        if pid is None:
            raise IPCError(f"No worker with the id {worker}")
        raise IPCError(f"No worker process with PID {pid}")

    async def send(
        self,
        name: str | bytes,
        data: str | bytes = b"",
        *,
        pid: int | None = None,
        worker: int | None = None,
    ) -> None:
        """Send an alert; waits while the receiver's queue is full.

        Raises:
            IPCError: There is no such process, or the name is too long.
        """
        await _post(self._alerts, self._slot(pid, worker), _ALERT, 0, name, data)

    async def broadcast(self, name: str | bytes, data: str | bytes = b"") -> None:
        """Send an alert to all workers, this one included.

        Raises:
            IPCError: The name is too long.
        """
        for entry in self._endpoint.table.used():
            if entry.id is not None:
                await _post(self._alerts, entry.slot, _ALERT, 0, name, data)

    async def request(
        self,
        name: str | bytes,
        data: str | bytes = b"",
        *,
        pid: int | None = None,
        worker: int | None = None,
    ) -> bytes:
        """Send an alert and wait for what its handler replies: the data of that.

        How long is for a cancel scope to say: a process that dies does not answer.

        Raises:
            IPCError: There is no such process or handler, or the handler has not replied.
        """
        slot = self._slot(pid, worker)
        alerts = self._alerts
        answered = trio.Event()
        result: list[Any] = []

        def answer(values: Any) -> None:
            result[:] = values
            answered.set()

        number = alerts.expect()
        alerts.answers[number] = answer
        try:
            await _post(alerts, slot, _REQUEST, number, name, data)
            await answered.wait()
        finally:
            if alerts.answers.pop(number, None) is not None:
                alerts.forget(number)
        _, reply, error = result
        if error is not None:
            raise IPCError(error.decode())
        assert isinstance(reply, bytes)
        return reply

    @contextmanager
    def receive(self, name: str | bytes) -> Iterator[Inbox]:
        """Receive the alerts of a name, instead of a handler in Lua, inside a ``with`` block::

        with server.ipc.receive("hello") as alerts:
            async for alert in alerts:
                await alert.reply("hello-response", b"you said " + alert.data)
        """
        key = _bytes(name)
        if key in self._alerts.inboxes:
            raise IPCError(f"somebody receives {key.decode('utf-8', 'replace')!r} already")
        inbox = self._alerts.inboxes[key] = Inbox(self._alerts)
        self._alerts.listen(key, True)
        try:
            yield inbox
        finally:
            del self._alerts.inboxes[key]
            if not self._alerts.vm.closed:
                self._alerts.listen(key, False)
            inbox.close()
