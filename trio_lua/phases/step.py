"""What a step of a request's way through the phases ends with: where it goes on."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Union

from trio_lua.api.runtime import Runtime
from trio_lua.request.state import Request

__all__ = ["DECLINED", "DONE", "NEXT", "Goto", "Later", "Status", "Step", "change_uri", "redirect"]

#: ``ngx.DECLINED``: the handler has no opinion.
DECLINED = -5

#: nginx gives up after this many changes of the path in one request.
_MAX_URI_CHANGES = 10

_ERROR = 4


@dataclass(frozen=True, slots=True)
class Goto:
    """Search the location again.

    Attributes:
        name: Of a named location, which is not searched.
        server: The server's own steps run again before, as they do after an internal redirect.
    """

    name: bytes | None = None
    server: bool = False


@dataclass(frozen=True, slots=True)
class Status:
    """The request ends with a status whose response is still to be made."""

    code: int


@dataclass(frozen=True, slots=True)
class Later:
    """Filters may wait before the next step is known (``lua_strict_phases off``).

    Attributes:
        result: What they leave.
        step: What follows from that.
    """

    result: Coroutine[Any, Any, Any]
    step: Callable[[Request, Any], Step]


class _Done:
    """The response is complete."""


class _Next:
    """Go on with the next step."""


#: Nothing is left to do.
DONE = _Done()
#: The next step of the location.
NEXT = _Next()

Step = Union[Goto, Status, Later, _Done, _Next]


def change_uri(request: Request, doing: bytes) -> Status | None:
    """Count a change of the path; the end of the request when there were too many."""
    request.uri_changes += 1
    if request.uri_changes > _MAX_URI_CHANGES:
        request.log(_ERROR, b"rewrite or internal redirection cycle while " + doing)
        return Status(500)
    return None


def redirect(lua: Runtime, request: Request, uri: bytes, args: bytes | None) -> Step:
    """An internal redirect to a path or a named location."""
    failed = change_uri(request, b'internally redirecting to "' + uri + b'"')
    if failed is not None:
        return failed
    lua.restart(request.id)
    request.rewritten = request.below_alias = False
    if uri.startswith(b"@"):
        return Goto(uri)
    request.set_uri(uri)
    request.set_args(args)
    return Goto(server=True)
