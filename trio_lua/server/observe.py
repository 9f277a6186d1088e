"""What happens in a server, told to objects of the embedding program: for tracing and metrics.

A server without observers is made without anything of this: the engine, the operations and the logs are
replaced when the worker is made, and only if there is somebody to tell. With observers every request also takes the
engine's way, on which it has a Python side from its beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from trio_lua.api.modules import Hook
from trio_lua.api.runtime import Runtime
from trio_lua.log.error_log import ALERT, NAMES
from trio_lua.lua.driver import Outcome
from trio_lua.lua.ops import Op
from trio_lua.phases.access_log import AccessLogs
from trio_lua.phases.engine import Engine
from trio_lua.phases.handlers import Handlers
from trio_lua.phases.step import Step
from trio_lua.phases.subrequest import Subrequest
from trio_lua.request.phase import PHASE_NAMES, Phase
from trio_lua.request.state import Request

__all__ = [
    "Audience",
    "ObservedEngine",
    "ObservedOperation",
    "ObservedPhase",
    "ObservedRequest",
    "Observer",
]

_OUTCOMES = {
    Outcome.EXIT: "exit",
    Outcome.EXEC: "exec",
    Outcome.JUMP: "exec",
    Outcome.FAILED: "failed",
    Outcome.LOAD_FAILED: "failed",
}


@dataclass(eq=False)
class ObservedRequest:
    """A request that is being served.

    Attributes:
        number: Counts the requests of the server.
        parent: The request that has made this subrequest; None for a client's.
        method: Such as ``GET``.
        target: Path and query string as they came.
        host: The host name of the request, without port.
        client: The address of the client.
        began: When, on the run's clock (:func:`trio.current_time`).
        seconds: How long it took; 0 until it has finished.
        status: The status of its response; 0 until it has finished, or when there is none.
        notes: The observers' own: what one call leaves there the next one finds.
    """

    number: int
    parent: ObservedRequest | None
    method: str
    target: str
    host: str
    client: str
    began: float
    seconds: float = 0.0
    status: int = 0
    notes: dict[Any, Any] = field(default_factory=dict)
    _request: Request | None = field(default=None, repr=False)

    def variable(self, name: str) -> str | None:
        """The present value of an nginx variable, as ``ngx.var`` has it; None when there is none.

        Args:
            name: Such as ``bytes_sent`` or ``http_user_agent``.

        Raises:
            RuntimeError: The request has finished.
        """
        if self._request is None:
            raise RuntimeError("the request has finished")
        value = self._request.variable(name.encode())
        return None if value is None else _text(value)


@dataclass(eq=False)
class ObservedPhase:
    """A handler of one phase of a request.

    Attributes:
        request: The request.
        name: What ``ngx.get_phase()`` calls the phase.
        began: When, on the run's clock.
        seconds: How long it took, waiting included; 0 until it has finished.
        outcome: How it ended: ``done``, ``exit`` (``ngx.exit``, ``ngx.redirect``), ``exec`` (``ngx.exec`` and other
            internal redirects), ``failed`` or ``cancelled``; "" until then.
        error: The message, when it failed.
    """

    request: ObservedRequest
    name: str
    began: float
    seconds: float = 0.0
    outcome: str = ""
    error: str = ""


@dataclass(eq=False)
class ObservedOperation:
    """A light thread's wait for something outside of Lua: a socket, a subrequest, a Python function.

    Attributes:
        request: The request; None for a timer's.
        name: Such as ``tcp_connect``, ``capture`` or ``python_await``.
        began: When, on the run's clock.
        seconds: How long it took; 0 until it has finished.
    """

    request: ObservedRequest | None
    name: str
    began: float
    seconds: float = 0.0


class Observer:
    """Is told what a server does: to be subclassed, and given to :func:`trio_lua.serve`.

    The methods here do nothing; those that a subclass leaves out cost nothing. They are called in the server's task, so they
    must not block. One that raises is not called again, and the error log says why.
    """

    def request_started(self, request: ObservedRequest) -> None:
        """A request, or a subrequest, has been read."""

    def request_finished(self, request: ObservedRequest) -> None:
        """Its response is with the connection, and its log phase is over; or it was cancelled."""

    def phase_started(self, phase: ObservedPhase) -> None:
        """A handler of a phase begins."""

    def phase_finished(self, phase: ObservedPhase) -> None:
        """A handler of a phase has ended, with all its light threads."""

    def operation_started(self, operation: ObservedOperation) -> None:
        """A light thread begins to wait."""

    def operation_finished(self, operation: ObservedOperation) -> None:
        """A light thread has waited."""

    def log(self, level: str, message: str, connection: int) -> None:
        """A record of the error log.

        Args:
            level: nginx's name of the level, such as ``error``.
            message: The text, without time and process.
            connection: The number of the connection; 0 for none.
        """


class Audience:
    """The observers of a server.

    Args:
        observers: Who they are.
        log: Writes to the error log: a level and a message.
    """

    def __init__(self, observers: Sequence[Observer], log: Callable[[int, bytes], None]) -> None:
        self._log = log
        self._calls: dict[str, list[Callable[..., None]]] = {
            name: [
                getattr(observer, name)
                for observer in observers
                if getattr(type(observer), name) is not getattr(Observer, name)
            ]
            for name in vars(Observer)
            if not name.startswith("_")
        }

    def listens(self, name: str) -> bool:
        """Whether anybody wants to know of something."""
        return bool(self._calls[name])

    def record(self, level: int, message: bytes, connection: int) -> None:
        """Tell of a line of an error log."""
        self.tell("log", NAMES[level], _text(message), connection)

    def tell(self, name: str, *args: Any) -> None:
        """Call a method of those that have it."""
        calls = self._calls[name]
        for call in list(calls):
            try:
                call(*args)
            except Exception as error:
                if call in calls:
                    calls.remove(call)
                text = f"observer {call!r} failed, and is not called again: {error!r}"
                self._log(ALERT, text.encode("utf-8", "backslashreplace"))


class _Watch:
    """The requests that are being served, and the phases that they are in."""

    def __init__(self, runtime: Runtime, audience: Audience) -> None:
        self._audience = audience
        self._count = 0
        self._requests: dict[int, ObservedRequest] = {}
        self._suspended: dict[int, ObservedPhase] = {}
        if audience.listens("operation_started") or audience.listens("operation_finished"):
            runtime.driver.wrap_ops(self._observed_op)
        if audience.listens("phase_started") or audience.listens("phase_finished"):
            runtime.run = self._observed_run(runtime.run)
            runtime.content = self._observed_run(runtime.content)
            runtime.run_sync = self._observed_run(runtime.run_sync)

    # ---------------------------------------------------------------- requests

    @contextmanager
    def request(self, request: Request) -> Iterator[None]:
        """A request is served inside."""
        self._count += 1
        parent = request.parent if isinstance(request, Subrequest) else None
        args = request.args
        target = request.uri if args is None else request.uri + b"?" + args
        if parent is None:
            target = request.lua.get(request.id, b"unparsed_uri") or b""
        seen = ObservedRequest(
            self._count,
            None if parent is None else self._requests.get(parent.id),
            _text(request.method),
            _text(target),
            _text(request.host),
            _text(request.connection.addresses()[0]),
            trio.current_time(),
            _request=request,
        )
        self._requests[request.id] = seen
        self._audience.tell("request_started", seen)
        try:
            yield
        finally:
            phase = self._suspended.pop(request.id, None)
            if phase is not None:
                self._end(phase, "cancelled")
            seen.seconds = trio.current_time() - seen.began
            status = request.variable(b"status")
            seen.status = int(status) if status and status.isdigit() else 0
            self._audience.tell("request_finished", seen)
            seen._request = None
            del self._requests[request.id]

    # ------------------------------------------------------------------ phases

    def begin(self, request: Request, phase: Phase) -> ObservedPhase:
        """A handler begins."""
        return self._begin(self._requests[request.id], phase)

    def _begin(self, request: ObservedRequest, phase: Phase) -> ObservedPhase:
        seen = ObservedPhase(request, PHASE_NAMES[phase], trio.current_time())
        self._audience.tell("phase_started", seen)
        return seen

    def end(self, phase: ObservedPhase, result: Any) -> None:
        """A handler has ended: ``result`` is what it was left with."""
        outcome, *rest = result if isinstance(result, tuple) else (result,)
        name = _OUTCOMES.get(outcome, "done") if outcome.__class__ is not bool else "done"
        if outcome is False:
            name = "failed"
        if name == "failed" and rest and isinstance(rest[0], bytes):
            phase.error = _text(rest[0].split(b"\nstack traceback:")[0])
        self._end(phase, name)

    def _end(self, phase: ObservedPhase, outcome: str) -> None:
        phase.seconds = trio.current_time() - phase.began
        phase.outcome = outcome
        self._audience.tell("phase_finished", phase)

    def _observed_run(self, run: Callable[..., Any]) -> Callable[..., Any]:
        def observed(id: int, handler: int, phase: int, *args: Any) -> Any:
            request = self._requests.get(id)
            if request is None:
                return run(id, handler, phase, *args)
            seen = self._begin(request, Phase(phase))
            result = run(id, handler, phase, *args)
            if result.__class__ is tuple and result[0] is not True and result[0] == 1:
                self._suspended[id] = seen
            else:
                self.end(seen, result)
            return result

        return observed

    def went_on(self, request: Request, result: Any) -> None:
        """The handler of a request that had suspended has ended."""
        phase = self._suspended.pop(request.id, None)
        if phase is not None:
            self.end(phase, result)

    # -------------------------------------------------------------- operations

    def _observed_op(self, name: str, op: Op) -> Op:
        async def observed(owner: Any, *args: Any) -> tuple[Any, ...]:
            seen = ObservedOperation(self._requests.get(owner.id), name, trio.current_time())
            self._audience.tell("operation_started", seen)
            try:
                return await op(owner, *args)
            finally:
                seen.seconds = trio.current_time() - seen.began
                self._audience.tell("operation_finished", seen)

        return observed


class _ObservedHandlers(Handlers):
    """Handlers whose phases are told."""

    def __init__(self, *args: Any, watch: _Watch) -> None:
        super().__init__(*args)
        self._watch = watch

    async def _finish(self, request: Request, result: object) -> object:
        result = await super()._finish(request, result)
        self._watch.went_on(request, result)
        return result

    async def run_hooks(self, request: Request, hooks: Sequence[Hook], phase: Phase) -> Step:
        with self._told(request, phase):
            return await super().run_hooks(request, hooks, phase)

    async def run_content_hook(self, request: Request, hook: Hook) -> Step:
        with self._told(request, Phase.CONTENT):
            return await super().run_content_hook(request, hook)

    @contextmanager
    def _told(self, request: Request, phase: Phase) -> Iterator[None]:
        """Modules run inside."""
        seen = self._watch.begin(request, phase)
        result: Any = None
        try:
            yield
        except BaseException:
            result = "cancelled"
            raise
        finally:
            if result is None:
                self._watch.end(seen, Outcome.DONE)
            else:
                self._watch._end(seen, result)


class ObservedEngine(Engine):
    """An engine that tells what it does.

    Args:
        runtime, logs: As for any engine.
        audience: Who is told.
    """

    def __init__(self, runtime: Runtime, logs: AccessLogs, audience: Audience) -> None:
        super().__init__(runtime, logs)
        self._watch = _Watch(runtime, audience)
        self._handlers = _ObservedHandlers(runtime, self._responses, watch=self._watch)

    async def handle(self, request: Request) -> bool:
        """As any engine does."""
        with self._watch.request(request):
            return await super().handle(request)

    async def serve_subrequest(self, request: Subrequest) -> None:
        """As any engine does."""
        with self._watch.request(request):
            await super().serve_subrequest(request)

    async def refuse(self, request: Request, status: int, why: bytes, level: int) -> None:
        """As any engine does."""
        request.plan = request.server.outer
        with self._watch.request(request):
            await super().refuse(request, status, why, level)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
