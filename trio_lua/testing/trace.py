"""``--lua-trace``: what the servers of a test did, in the order in which it happened."""

from __future__ import annotations

import trio

from trio_lua.server.observe import ObservedOperation, ObservedPhase, ObservedRequest, Observer

__all__ = ["Trace"]


class Trace(Observer):
    """Writes down what a server does.

    Attributes:
        lines: One for each event, with the time on the run's clock.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []

    def _note(self, request: ObservedRequest | None, text: str) -> None:
        number = "" if request is None else f"#{request.number}"
        self.lines.append(f"{trio.current_time():10.3f} {number:>4} {text}")

    def request_started(self, request: ObservedRequest) -> None:
        """The line of the request."""
        parent = request.parent
        inner = "" if parent is None else f" (subrequest of #{parent.number})"
        self._note(request, f"{request.method} {request.target}{inner}")

    def request_finished(self, request: ObservedRequest) -> None:
        """Its status."""
        self._note(request, f"{request.status or 'no response'}, {request.seconds:.3f} s")

    def phase_started(self, phase: ObservedPhase) -> None:
        """The name of the phase."""
        self._note(phase.request, f"  {phase.name}")

    def phase_finished(self, phase: ObservedPhase) -> None:
        """How it ended."""
        error = f": {phase.error}" if phase.error else ""
        self._note(phase.request, f"  {phase.name} {phase.outcome}{error}")

    def operation_started(self, operation: ObservedOperation) -> None:
        """The name of the operation."""
        self._note(operation.request, f"    {operation.name}")

    def operation_finished(self, operation: ObservedOperation) -> None:
        """How long it took."""
        self._note(operation.request, f"    {operation.name} {operation.seconds:.3f} s")

    def log(self, level: str, message: str, connection: int) -> None:
        """The record."""
        if level != "debug":
            self._note(None, f"[{level}] {message.partition(chr(10))[0]}")
