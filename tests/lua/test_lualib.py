"""The modules of lua-resty-core that answer with our own functions."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import trio_lua.api
from trio_lua.lua.vm import VM
from trio_lua.request.phase import Phase

if TYPE_CHECKING:
    from conftest import Lua

MakeLua = Callable[..., "Lua"]


def test_resty_core_is_there_from_the_start(lua: Lua) -> None:
    assert lua.eval(
        """
        local loaded = package.loaded["resty.core"]
        local core = require "resty.core"
        out(loaded == core, core.version, type(package.loaded["resty.core.base"]))
        """
    ) == ["true", "0.1.25", "table"]


PARTS = {
    "base": "version", "uri": "version", "hash": "version", "base64": "version",
    "regex": "version", "exit": "version", "shdict": "version", "var": "version",
    "ctx": "_VERSION", "misc": "_VERSION", "request": "version", "response": "version",
    "phase": "version", "worker": "_VERSION", "time": "version", "utils": "version",
    "ndk": "version", "param": "version", "coroutine": "version",
}  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
def test_parts_of_resty_core(lua: Lua, part: str) -> None:
    assert lua.eval(f'out(require("resty.core.{part}").{PARTS[part]})') == ["0.1.25"]


@pytest.mark.parametrize("name", ["errlog", "process", "req", "resp", "re", "base64"])
def test_ngx_modules_have_the_version(lua: Lua, name: str) -> None:
    assert lua.eval(f'out(require("ngx.{name}").version)') == ["0.1.25"]


def test_a_copy_of_the_original_in_the_path_is_not_used(lua: Lua) -> None:
    lua.file("resty/core.lua", 'return { version = "original" }')
    lua.file("resty/core/base.lua", 'error("original")')
    lua.file("ngx/errlog.lua", 'error("original")')
    assert lua.eval(
        """
        package.loaded["resty.core.base"], package.loaded["resty.core"] = nil, nil
        out(require("resty.core").version, type(require("ngx.errlog").raw_log))
        """
    ) == ["0.1.25", "function"]


@pytest.mark.parametrize("name", ["ngx.balancer", "resty.core.nothing"])
def test_originals_that_cannot_work_are_not_found(lua: Lua, name: str) -> None:
    lua.file(name.replace(".", "/") + ".lua", 'error("original")')
    ok, err = lua.eval(f'out(pcall(require, "{name}"))')
    assert ok == "false"
    assert f"\n\tno module '{name}' in trio_lua\n" in err


# ------------------------------------------------------------------------------ resty.core.base

BASE = 'local base = require "resty.core.base"; '


def test_get_request_is_a_pointer_per_request(lua: Lua) -> None:
    code = BASE + "local r = base.get_request() out(type(r), r == base.get_request(), tostring(r))"
    first, second = lua.eval(code), lua.eval(code)
    assert first[:2] == second[:2] == ["cdata", "true"]
    assert first[2] != second[2]


def test_get_request_outside_of_requests(lua: Lua) -> None:
    lua.init(BASE + "out(base.get_request())")
    lua.init(BASE + "local r = base.get_request() out(type(r), r ~= nil)", Phase.INIT_WORKER)
    assert lua.take() == [["nil"], ["cdata", "true"]]


def test_constants(lua: Lua) -> None:
    names = [
        "OK",
        "ERROR",
        "AGAIN",
        "BUSY",
        "DONE",
        "DECLINED",
        "ABORT",
        "NO_REQ_CTX",
        "BAD_CONTEXT",
    ]
    values = ", ".join(f"base.FFI_{name}" for name in names)
    assert lua.eval(BASE + f"out({values})") == [
        "0",
        "-1",
        "-2",
        "-3",
        "-4",
        "-5",
        "-6",
        "-100",
        "-101",
    ]


def test_string_buffers(lua: Lua) -> None:
    assert lua.eval(
        BASE
        + """
        local ffi = require "ffi"
        local shared = base.get_string_buf(10)
        local again, own, large = base.get_string_buf(4096), base.get_string_buf(10, true), base.get_string_buf(4097)
        out(base.get_string_buf_size(), shared == again, shared == own, ffi.sizeof(own), ffi.sizeof(large))
        base.set_string_buf_size(0)
        local unchanged = base.get_string_buf_size()
        base.set_string_buf_size(99.5)
        shared = base.get_string_buf(1)
        local size, sizeof = base.get_string_buf_size(), ffi.sizeof(shared)
        base.set_string_buf_size(4096)
        rawset(package.loaded, "result", { unchanged, size, sizeof })
        """
    ) == ["4096", "true", "false", "10", "4097"]
    assert lua.eval("out(unpack(package.loaded.result))") == ["4096", "100", "100"]


def test_pointers_are_shared(lua: Lua) -> None:
    assert lua.eval(
        BASE
        + """
        local size, err = base.get_size_ptr(), base.get_errmsg_ptr()
        size[0] = 7
        out(tonumber(base.get_size_ptr()[0]), err[0] == nil, base.get_errmsg_ptr() == err)
        """
    ) == ["7", "true", "true"]


def test_ref_in_table_reuses_free_places(lua: Lua) -> None:
    assert lua.eval(
        BASE
        + """
        local t = {}
        local ref = base.ref_in_table
        local a, b = ref(t, "a"), ref(t, "b")
        -- freed as luaL_unref does
        t[a], t[0] = t[0], a
        out(a, b, ref(t, "c"), t[a], ref(t, "d"), ref(t, nil))
        """
    ) == ["1", "2", "1", "c", "3", "-1"]


def test_table_helpers_and_subsystem(lua: Lua) -> None:
    assert lua.eval(
        BASE
        + """
        local t = base.new_tab(4, 4)
        t[1], t.x = 1, 2
        base.clear_tab(t)
        base.allows_subsystem("stream", "http")
        out(next(t), pcall(base.allows_subsystem, "stream"))
        """
    ) == ["nil", "false", "unsupported subsystem: http"]


def test_the_types_that_cdefs_of_libraries_name(lua: Lua) -> None:
    assert lua.eval(
        """
        local ffi = require "ffi"
        ffi.cdef[[
            int some_function_of_nginx(ngx_http_request_t *r, const u_char *p, ngx_http_lua_ffi_str_t *s);
        ]]
        local s = ffi.new("ngx_str_t")
        s.data, s.len = "abc", 3
        out(ffi.string(s.data, s.len))
        """
    ) == ["abc"]


# ------------------------------------------------------------------------- other parts of resty.core


def test_ctx_table_can_be_brought(lua: Lua) -> None:
    assert (
        lua.eval(
            """
        local get_ctx_table = require("resty.core.ctx").get_ctx_table
        local mine = { x = 1 }
        local ctx = get_ctx_table(mine)
        out(ctx == mine, ngx.ctx == mine, get_ctx_table({}) == mine, get_ctx_table() == mine)
        """
        )
        == ["true"] * 4
    )


def test_ctx_table_without_a_request(lua: Lua) -> None:
    lua.init('out(pcall(require("resty.core.ctx").get_ctx_table, {}))')
    (texts,) = lua.take()
    assert texts[0] == "false"
    assert texts[1].endswith("no request found")


def test_fields_of_ngx_can_be_registered(lua: Lua) -> None:
    assert lua.eval(
        """
        local misc = require "resty.core.misc"
        local value = 1
        misc.register_ngx_magic_key_getter("answer", function() return value end)
        misc.register_ngx_magic_key_setter("answer", function(v) value = v * 2 end)
        ngx.answer = 21
        ngx.status = 201
        ngx.plain = "p"
        out(ngx.answer, ngx.status, ngx.plain, rawget(ngx, "answer"), ngx.nothing)
        """
    ) == ["42", "201", "p", "nil", "nil"]


def test_utils(lua: Lua) -> None:
    assert lua.eval(
        """
        local replace = require("resty.core.utils").str_replace_char
        out(replace("a_b_c", "_", "-"), replace("abc", "x", "y"), replace("a.b.c", ".", "%"),
            replace("aab", "ab", "xy"), replace("100%", "%", "."))
        """
    ) == ["a-b-c", "abc", "a%b%c", "xxb", "100."]


def test_time(lua: Lua) -> None:
    assert lua.eval(
        """
        local time = require "resty.core.time"
        out(string.format("%d", time.monotonic_msec()), string.format("%.2f", time.monotonic_time()))
        """
    ) == ["1700000000250", "1700000000.25"]


def test_regex(lua: Lua) -> None:
    assert lua.eval(
        """
        local re = require "resty.core.regex"
        local empty = re.is_regex_cache_empty()
        local compiled, once, flags = re.re_match_compile("(a)(?<name>b)", "jo")
        out(empty, type(compiled), compiled.ncaptures, compiled.name_count, once, flags,
            re.is_regex_cache_empty(), (select(2, re.re_match_compile("a"))))
        """
    ) == ["true", "table", "2", "1", "true", "0", "false", "false"]
    assert lua.eval(
        """
        local re = require "resty.core.regex"
        local compiled, err = re.re_match_compile("a(b", "jo")
        out(compiled, err, pcall(re.re_match_compile, "a", "zz"))
        """
    ) == [
        "nil",
        'pcre_compile() failed: missing ) in "a(b"',
        "false",
        'unknown flag "z" (flags "zz")',
    ]


def test_growing_a_buffer(lua: Lua) -> None:
    assert lua.eval(
        """
        local ffi = require "ffi"
        local re = require "resty.core.regex"
        local buffer = ffi.new("char[?]", 4)
        ffi.copy(buffer, "abcd", 4)
        local same, size = re.check_buf_size(buffer, 4, buffer + 4, 4, 4, true)
        re.set_buf_grow_ratio(3)
        local larger, grown, place, need = re.check_buf_size(buffer, 4, buffer + 4, 4, 5, true)
        out(same == buffer, size, grown, ffi.string(larger, 4), place - larger, need,
            (select(2, re.check_buf_size(buffer, 4, buffer, 0, 50, true))))
        """
    ) == ["true", "4", "12", "abcd", "4", "5", "50"]


# --------------------------------------------------------------------------- ngx.req and ngx.resp


def test_adding_request_headers(lua: Lua) -> None:
    assert lua.eval(
        """
        local req = require "ngx.req"
        req.add_header("X-A", "1")
        req.add_header("x-a", { 2, true })
        req.add_header(5, "five")
        require("resty.core.request").set_req_header("X-B", "b", true)
        local h = ngx.req.get_headers()
        out(table.concat(h["x-a"], ","), h["5"], h["x-b"])
        """
    ) == ["1,2,true", "five", "b"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("nil, 1", "bad 'name' argument: string expected, got nil"),
        ("'a'", "bad 'value' argument: string or table expected, got nil"),
        ("'a', {}", "bad 'value' argument: non-empty table expected"),
    ],
)
def test_bad_request_headers(lua: Lua, arguments: str, error: str) -> None:
    assert lua.eval(f'out(pcall(require("ngx.req").add_header, {arguments}))') == ["false", error]


def test_errors_of_the_modules_name_the_callers_line(lua: Lua) -> None:
    code = """
        out(select(2, pcall(function()
            local ok = require("ngx.req").add_header("a")
        end)), select(2, pcall(function()
            local ok = require("ngx.resp").add_header("a")
        end)), select(2, pcall(function()
            require("ngx.errlog").raw_log(99, "")
        end)))
        """
    assert lua.eval(code) == [
        "content_by_lua(nginx.conf:1):3: bad 'value' argument: string or table expected, got nil",
        "content_by_lua(nginx.conf:1):5: invalid header value",
        "content_by_lua(nginx.conf:1):7: bad log level",
    ]


def test_adding_response_headers(lua: Lua) -> None:
    assert lua.eval(
        """
        local resp = require "ngx.resp"
        resp.add_header("X-A", "1")
        resp.add_header("X-A", { 2, true })
        resp.add_header("X-A", {})
        resp.add_header("Server", "first")
        resp.add_header("Server", "second")
        require("resty.core.response").set_resp_header(nil, "X-B", "b")
        out(table.concat(ngx.header["X-A"], ","), ngx.header.server, ngx.header.x_b,
            pcall(resp.add_header, "a"))
        """
    ) == ["1,2,true", "second", "b", "false", "invalid header value"]


def test_headers_need_a_request(lua: Lua) -> None:
    lua.init('out(pcall(require("ngx.req").add_header, "a", "b"))')
    lua.init('out(pcall(require("ngx.resp").add_header, "a", "b"))')
    lua.init('out(pcall(require("ngx.resp").set_status, 200))')
    for ok, err in lua.take():
        assert ok == "false"
        assert err.endswith("no request found")


def test_status_with_a_reason(lua: Lua) -> None:
    id = lua.request()
    code = 'require("ngx.resp").set_status({}) out(ngx.status)'
    lua.begin(code.format("209, 'So so\\r\\nX: y'"), id=id)
    assert lua.take() == [["209"]]
    assert lua.rt.get(id, b"status_line") == b"209 So so%0D%0AX: y"
    lua.begin(code.format("'404'"), id=id)
    assert lua.take() == [["404"]]
    assert lua.rt.get(id, b"status_line") is None


def test_status_that_is_none(lua: Lua) -> None:
    assert lua.eval('out(pcall(require("ngx.resp").set_status, "x"))') == [
        "false",
        "number expected, got string",
    ]


def test_bypassing_conditions(lua: Lua) -> None:
    id = lua.request()
    lua.begin('require("ngx.resp").bypass_if_checks()', id=id)
    assert lua.rt.get(id, b"conditional_done") is True


# ------------------------------------------------------------------------------------- ngx.errlog


def test_raw_log(lua: Lua) -> None:
    lua.begin('require("ngx.errlog").raw_log(ngx.WARN, "as it is")')
    ((level, line),) = lua.log.lines
    assert level == 5
    assert line.startswith(b"as it is, client: ")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("'a', 'x'", "bad argument #1 to 'raw_log' (must be a number)"),
        ("4, 5", "bad argument #2 to 'raw_log' (must be a string)"),
        ("9, 'x'", "bad log level"),
        ("-1, 'x'", "bad log level"),
    ],
)
def test_raw_log_errors(lua: Lua, arguments: str, error: str) -> None:
    assert lua.eval(f'out(pcall(require("ngx.errlog").raw_log, {arguments}))') == ["false", error]


def test_errlog_levels_and_capture(lua: Lua) -> None:
    missing = 'directive "lua_capture_error_log" is not set'
    assert lua.eval('out(require("ngx.errlog").get_sys_filter_level())') == ["8"]
    assert lua.eval('out(require("ngx.errlog").set_filter_level())') == [
        "nil",
        'missing "level" argument',
    ]
    assert lua.eval('out(require("ngx.errlog").set_filter_level(4))') == ["nil", missing]
    assert lua.eval('out(require("ngx.errlog").get_logs())') == ["nil", missing]
    lua.init('out(require("ngx.errlog").get_sys_filter_level())')
    assert lua.take() == [["8"]]


# ----------------------------------------------------------------------- ngx.process and ngx.worker


@pytest.fixture
def process() -> tuple[VM, list[tuple[bytes, ...]]]:
    """A VM with nothing but ngx.worker."""
    got: list[tuple[bytes, ...]] = []
    vm = VM(
        calls={"out": lambda *texts: got.append(texts)},
        files=[Path(trio_lua.api.__file__).parent / "worker.lua"],
    )
    return vm, got


def test_one_process(process: tuple[VM, list[tuple[bytes, ...]]]) -> None:
    vm, got = process
    vm.run(
        b"""
        local rt = ...
        local w = ngx.worker
        rt.py.out(tostring(w.id()), tostring(w.count()), tostring(w.pid()), tostring(w.exiting()))
        rt.py.out(tostring(w.pids()), select(2, w.pids()))
        rt.S.r = { phase = 0x100 }
        rt.py.out(tostring(w.pids()), select(2, w.pids()))
        rt.S.r = { phase = 8 }
        rt.py.out(tostring(#w.pids()), tostring(w.pids()[1]))
        """,
        "=test",
    )
    pid = str(os.getpid()).encode()
    disabled = (b"nil", b"API disabled in the current context")
    assert got == [(b"0", b"1", pid, b"false"), disabled, disabled, (b"1", pid)]


def test_a_worker_among_others(process: tuple[VM, list[tuple[bytes, ...]]]) -> None:
    vm, got = process
    vm.export("set_worker")(None, 4)
    vm.export("set_exiting")()
    vm.run(
        b"""
        local w = ngx.worker
        (...).py.out(tostring(w.id()), tostring(w.count()), tostring(w.exiting()))
        """.replace(b"\n        (", b" ;("),
        "=test",
    )
    assert got == [(b"nil", b"4", b"true")]


def test_process(process: tuple[VM, list[tuple[bytes, ...]]]) -> None:
    vm, got = process
    vm.run(
        b"""
        local rt = ...
        local phase = "init"
        function ngx.get_phase() return phase end
        local process = require "ngx.process"
        local function agent(n)
            local ok, err = process.enable_privileged_agent(n)
            rt.py.out(tostring(ok), err)
        end
        rt.py.out(process.type(), tostring(process.get_master_pid() == ngx.worker.pid()))
        agent() agent(-1) agent("x")
        phase = "content"
        agent()
        rt.py.out(select(2, pcall(process.signal_graceful_exit)))
        rt.process = { type = "worker", master_pid = 17 }
        rt.py.graceful_exit = function() rt.py.out("quit") end
        process.signal_graceful_exit()
        rt.py.out(process.type(), tostring(process.get_master_pid()))
        """,
        "=test",
    )
    bad = (b"nil", b"bad 'connections' argument: number expected and greater than 0")
    assert got == [
        (b"single", b"true"),
        (b"nil", b"a privileged agent needs a master process"),
        bad,
        bad,
        (b"nil", b"API disabled in the current context"),
        (b"this process cannot be told to exit",),
        (b"quit",),
        (b"worker", b"17"),
    ]
