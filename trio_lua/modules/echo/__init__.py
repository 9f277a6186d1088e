"""The echo module: content written down in the configuration (OpenResty's echo-nginx-module).

The directives of a location make a program, a list of commands that the Lua half runs as the
request's entry thread. Options are worked out here, because only words without variables can be some.

Two things are other than there: ``echo_blocking_sleep`` lets other requests go on, and the body that
``echo_subrequest -f`` reads from a file is also ``$echo_request_body``, as its manual says.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trio_lua.config.directives import Context, Use, takes
from trio_lua.config.model import Template
from trio_lua.request.module import Module

__all__ = ["MODULE", "Command"]

MODULE = Module("echo", lua=Path(__file__).with_name("echo.lua"))

_PLACES = Context.LOCATION | Context.LOCATION_IF


@dataclass(frozen=True, slots=True)
class Command:
    """One directive of a program.

    Attributes:
        name: The directive.
        args: Its arguments without options.
        newline: Whether its output ends with a newline (there was no ``-n``).
    """

    name: str
    args: tuple[Template, ...]
    newline: bool


def _command(use: Use) -> Command:
    """Options are the leading words that begin with a dash, up to "--"."""
    first, options = 0, []
    for word in use.args:
        if len(word) < 2 or word[0] != "-" or "$" in word:
            break
        first += 1
        if word[1] == "-":
            break
        options.append(word[1:])
    args = tuple(use.template(index) for index in range(first, len(use.args)))
    return Command(use.name, args, options[:1] != ["n"])


def _content(use: Use) -> None:
    program = use.block.values.get("echo")
    if program is None:
        program = use.block.values["echo"] = []
        use.set_content("echo", program)
    program.append(_command(use))


for _name, _arity in {
    "echo": takes(0, None),
    "echo_abort_parent": takes(0),
    "echo_blocking_sleep": takes(1),
    "echo_duplicate": takes(2, None),
    "echo_end": takes(0),
    "echo_exec": takes(1, 2),
    "echo_flush": takes(0),
    "echo_foreach_split": takes(2, None),
    "echo_location": takes(1, 2),
    "echo_location_async": takes(1, 2),
    "echo_read_request_body": takes(0),
    "echo_request_body": takes(0),
    "echo_reset_timer": takes(0),
    "echo_sleep": takes(1),
    "echo_subrequest": takes(2, None),
    "echo_subrequest_async": takes(2, None),
}.items():
    MODULE.directive(_name, _PLACES, _arity)(_content)


@MODULE.directive("echo_status", _PLACES, takes(1))
def _status(use: Use) -> None:
    use.put_setting("echo_status", use.number())


@MODULE.directive("echo_before_body", _PLACES, takes(0, None))
@MODULE.directive("echo_after_body", _PLACES, takes(0, None))
def _around_body(use: Use) -> None:
    use.append_setting(use.name, _command(use))


MODULE.lua_variables(
    "echo_cacheable_request_uri",
    "echo_client_request_headers",
    "echo_client_request_method",
    "echo_incr",
    "echo_it",
    "echo_request_body",
    "echo_request_method",
    "echo_request_uri",
    "echo_response_status",
    "echo_timer_elapsed",
)
