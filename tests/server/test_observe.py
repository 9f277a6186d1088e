"""What observers are told."""

from __future__ import annotations

import re
from typing import Any

import trio

from trio_lua import ObservedOperation, ObservedPhase, ObservedRequest, Observer
from trio_lua.testing import LuaClock, LuaServer, open_server

CONF = """
location = /plain { content_by_lua_block { ngx.say("plain") } }
location = /phases {
    rewrite_by_lua_block { ngx.ctx.a = 1 }
    access_by_lua_block { ngx.sleep(2) }
    content_by_lua_block {
        ngx.sleep(3)
        ngx.say(ngx.ctx.a)
    }
    log_by_lua_block { ngx.log(ngx.WARN, "logged") }
}
location = /denied { access_by_lua_block { ngx.exit(403) } content_by_lua_block { ngx.say(1) } }
location = /exec { content_by_lua_block { ngx.exec("/plain") } }
location = /throws { content_by_lua_block { error("oops") } }
location = /capture {
    content_by_lua_block { ngx.print(ngx.location.capture("/plain?a=b").body) }
}
location = /for_ever { content_by_lua_block { ngx.sleep(1e6) } }
location = /python {
    content_by_lua_block { require("python.math").wait() }
}
location = /text { return 200 "text"; }
"""


class Recorder(Observer):
    """Keeps what it is told, as text."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.requests: list[ObservedRequest] = []

    def request_started(self, request: ObservedRequest) -> None:
        inner = "" if request.parent is None else f" of {request.parent.target}"
        self.told.append(f"> {request.method} {request.target}{inner}")

    def request_finished(self, request: ObservedRequest) -> None:
        self.requests.append(request)
        sent = request.variable("bytes_sent")
        assert sent is not None
        request.notes["sent"] = int(sent)
        self.told.append(f"< {request.target} {request.status} {request.seconds:g}")

    def phase_started(self, phase: ObservedPhase) -> None:
        self.told.append(f"+ {phase.name}")

    def phase_finished(self, phase: ObservedPhase) -> None:
        self.told.append(f"- {phase.name} {phase.outcome} {phase.seconds:g} {phase.error}".strip())

    def operation_started(self, operation: ObservedOperation) -> None:
        self.told.append(f"  {operation.name}")

    def operation_finished(self, operation: ObservedOperation) -> None:
        of = "nobody" if operation.request is None else operation.request.target
        self.told.append(f"  {operation.name} {of} {operation.seconds:g}")

    def log(self, level: str, message: str, connection: int) -> None:
        if level != "debug":
            self.told.append(f"! {level} {message.partition(' while ')[0]}")


async def told(target: str, lua_clock: LuaClock) -> list[str]:
    """What is told of a request, twice the same: the second one of a location is on its short way."""
    recorder = Recorder()
    async with open_server(config=CONF, clock=lua_clock, observers=[recorder]) as server:
        await server.get(target)
        first = list(recorder.told)
        recorder.told.clear()
        await server.get(target)
        assert [line.partition(", client")[0] for line in recorder.told] == [
            line.partition(", client")[0] for line in first
        ]
    return first


async def test_a_request(lua_clock: LuaClock) -> None:
    assert await told("/plain?x=1", lua_clock) == [
        "> GET /plain?x=1",
        "+ content",
        "- content done 0",
        "< /plain?x=1 200 0",
    ]


async def test_phases_and_their_times(lua_clock: LuaClock) -> None:
    lines = await told("/phases", lua_clock)
    assert [line for line in lines if line[0] != "!"] == [
        "> GET /phases",
        "+ rewrite",
        "- rewrite done 0",
        "+ access",
        "- access done 2",
        "+ content",
        "- content done 3",
        "+ log",
        "- log done 0",
        "< /phases 200 5",
    ]
    assert any("logged" in line for line in lines)


async def test_how_phases_end(lua_clock: LuaClock) -> None:
    assert await told("/denied", lua_clock) == [
        "> GET /denied",
        "+ access",
        "- access exit 0",
        "< /denied 403 0",
    ]
    assert (await told("/exec", lua_clock))[1:] == [
        "+ content",
        "- content exec 0",
        "+ content",
        "- content done 0",
        "< /exec 200 0",
    ]
    lines = await told("/throws", lua_clock)
    [failed] = [line for line in lines if line[0] == "-"]
    assert re.fullmatch(r"- content failed 0 content_by_lua\(nginx.conf:\d+\):1: oops", failed)
    assert lines[-1] == "< /throws 500 0"
    assert await told("/text", lua_clock) == ["> GET /text", "< /text 200 0"]


async def test_subrequests_and_operations(lua_clock: LuaClock) -> None:
    assert await told("/capture", lua_clock) == [
        "> GET /capture",
        "+ content",
        "  capture",
        "> GET /plain?a=b of /capture",
        "+ content",
        "- content done 0",
        "< /plain?a=b 200 0",
        "  capture /capture 0",
        "- content done 0",
        "< /capture 200 0",
    ]


async def test_a_client_that_leaves(lua_clock: LuaClock) -> None:
    recorder = Recorder()
    async with open_server(config=CONF, clock=lua_clock, observers=[recorder]) as server:
        with trio.move_on_after(5):
            await server.get("/for_ever")
        server.abort()
        await trio.testing.wait_all_tasks_blocked()
    assert recorder.told == [
        "> GET /for_ever",
        "+ content",
        "- content cancelled 5",
        "< /for_ever 0 5",
    ]


async def test_what_is_no_request(make_lua_server: Any) -> None:
    recorder = Recorder()
    server: LuaServer = await make_lua_server(config=CONF, observers=[recorder])
    await server.client.raw("nonsense\r\n\r\n")
    assert recorder.told[-1] == "<  400 0"


async def test_facts_of_a_request(make_lua_server: Any) -> None:
    recorder = Recorder()
    server: LuaServer = await make_lua_server(config=CONF, observers=[recorder])
    await server.client_from("10.0.0.7").get("/plain", headers={"Host": "A.test:80"})
    [request] = recorder.requests
    assert (request.number, request.host, request.client) == (1, "a.test", "10.0.0.7")
    assert request.notes["sent"] > 100


class Broken(Observer):
    def request_started(self, request: ObservedRequest) -> None:
        raise ValueError("no")


async def test_an_observer_that_fails(make_lua_server: Any, lua_log: Any) -> None:
    lua_log.allow("is not called again")
    recorder = Recorder()
    server: LuaServer = await make_lua_server(config=CONF, observers=[Broken(), recorder])
    for _ in range(2):
        assert (await server.get("/plain")).status == 200
    assert len(lua_log.at("alert")) == 1
    assert len(recorder.requests) == 2
