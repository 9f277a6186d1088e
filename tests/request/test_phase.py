"""What each phase may call: every name of the table in every phase of a request, in a running VM."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from serving import nginx

from trio_lua.request.phase import ALLOWED, CONTEXT_NAMES, Phase

Serve = Callable[..., Any]

#: A call for each name, with arguments that go no further than the check where it is allowed.
CALLS = {
    "ngx.say": "ngx.say({a = 1})",
    "ngx.print": "ngx.print({a = 1})",
    "ngx.flush": "ngx.flush(1)",
    "ngx.exec": "ngx.exec('')",
    "ngx.redirect": "ngx.redirect('/', 999)",
    "ngx.req.discard_body": "ngx.req.discard_body()",
    "ngx.req.get_post_args": "ngx.req.get_post_args(1, 2, 3)",
    "ngx.req.get_body_data": "ngx.req.get_body_data()",
    "ngx.req.get_body_file": "ngx.req.get_body_file()",
    "ngx.req.set_body_data": "ngx.req.set_body_data('x')",
    "ngx.req.set_body_file": "ngx.req.set_body_file('/none')",
    "ngx.req.init_body": "ngx.req.init_body()",
    "ngx.req.append_body": "ngx.req.append_body('x')",
    "ngx.req.finish_body": "ngx.req.finish_body()",
    "ngx.location.capture": "ngx.location.capture('/../x')",
    "ngx.location.capture_multi": "ngx.location.capture_multi({{'/../x'}})",
    "ngx.exit": "ngx.exit(-2)",
}

#: Where Lua can be run within one plain request, and by which directive.
PHASES = {
    Phase.SET: "set_by_lua_block $s",
    Phase.SERVER_REWRITE: "",
    Phase.REWRITE: "rewrite_by_lua_block",
    Phase.ACCESS: "access_by_lua_block",
    Phase.PRECONTENT: "precontent_by_lua_block",
    Phase.CONTENT: "content_by_lua_block",
    Phase.HEADER_FILTER: "header_filter_by_lua_block",
    Phase.BODY_FILTER: "body_filter_by_lua_block",
    Phase.LOG: "log_by_lua_block",
}


def attempts() -> str:
    lines = [
        f"local ok, err = pcall(function() {call} end) "
        f"ngx.log(ngx.NOTICE, 'RESULT {name} ', tostring(err))"
        for name, call in CALLS.items()
    ]
    return " ".join(f"do {line} end" for line in lines)


@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.name.lower())
async def test_disabled_calls(serve: Serve, phase: Phase) -> None:
    directive = PHASES[phase]
    server = "" if directive else f"server_rewrite_by_lua_block {{ {attempts()} }}"
    inner = f"{directive} {{ {attempts()} }}" if directive else ""
    body = "" if phase is Phase.CONTENT else "content_by_lua_block { ngx.say('x') }"
    async with serve(nginx(f"{server} location / {{ {inner} {body} }}")) as running:
        client = await running.connect()
        await client.get("/")
        found = dict(re.findall(r"RESULT (\S+) ([^\n]*)", running.log.text()))
    assert found.keys() == CALLS.keys()
    for name, error in found.items():
        disabled = f"API disabled in the context of {CONTEXT_NAMES[phase]}" in error
        assert disabled == (not phase & ALLOWED[name]), (name, error)
