"""Cosockets: every method's values and errors, on both drivers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import Running, nginx
from thoroughness import examples
from upstream import echo, say, silent, upstream

import trio_lua.api
from trio_lua.lua.ops import OpTable
from trio_lua.lua.vm import VM
from trio_lua.net.network import SystemNetwork

Serve = Callable[..., Any]

API = Path(trio_lua.api.__file__).parent


def page(code: str, *, more: str = "", settings: str = "") -> Any:
    return nginx(f"{more} location /t {{ {settings} content_by_lua_block {{ {code} }} }}")


async def body(running: Running, path: str = "/t") -> list[str]:
    client = await running.connect()
    status, _, data = await client.get(path)
    assert status == 200, running.log.text()
    return data.decode().splitlines()


async def run(
    serve: Serve, code: str, handler: Any = echo, *, settings: str = ""
) -> tuple[list[str], str]:
    """The lines a handler says that has ``sock``, connected to a peer, and the error log."""
    async with upstream(handler) as peer:
        start = f"""
            local sock = ngx.socket.tcp()
            local port = {peer.port}
            assert(sock:connect("127.0.0.1", port))
        """
        async with serve(page(start + code, settings=settings)) as running:
            lines = await body(running)
            await trio.testing.wait_all_tasks_blocked()
            assert running.worker.runtime.sockets.open == 0
            await trio.testing.wait_all_tasks_blocked()
            assert peer.open == running.worker.runtime.sockets.pools.idle
            return lines, running.log.text(4)


class TestReceive:
    async def test_lines_sizes_and_all(self, serve: Serve) -> None:
        code = """
            ngx.say(sock:receive())
            ngx.say(sock:receive("*l"))
            ngx.say(sock:receive(3), ",", sock:receive("2"), ",", sock:receive(0), ".")
            ngx.say(sock:receive("*a"))
            ngx.say("again:", sock:receive("*a"))
            ngx.say(sock:receive())
            ngx.say(sock:receive())
        """
        lines, log = await run(serve, code, say(b"one\r", b"\ntw", b"o\nabc", b"de12", b"345"))
        assert lines == ["one", "two", "abc,de,.", "12345", "again:", "nilclosed", "nilclosed"]
        assert log.startswith("attempt to receive data on a closed socket: u:")

    async def test_partial_data_comes_with_each_error(
        self, serve: Serve, autojump_clock: Any
    ) -> None:
        code = """
            sock:settimeout(5)
            local _, err, partial = sock:receive(100)
            ngx.say(err, ":", partial)
            ngx.say(select("#", sock:receive()))
            sock:send("more")
            local data, err, partial = sock:receive()
            ngx.say(err, ":", partial)
        """
        lines, log = await run(serve, "sock:send('some')" + code)
        assert lines == ["timeout:some", "3", "timeout:more"]
        assert log.count("lua tcp socket read timed out") == 3
        lines, _ = await run(serve, "local _, e, p = sock:receive(9) ngx.say(e, p)", say(b"abc"))
        assert lines == ["closedabc"]
        lines, _ = await run(serve, "local _, e, p = sock:receive() ngx.say(e, p)", say(b"a\rbc"))
        assert lines == ["closedabc"]

    async def test_large_data(self, serve: Serve) -> None:
        code = """
            local data = string.rep("0123456789", 100000)
            ngx.thread = nil
            local n = 0
            for i = 1, 10 do
                assert(sock:send(data) == #data)
                assert(sock:receive(#data) == data)
            end
            ngx.say("same")
        """

        async def patient(stream: trio.SocketStream) -> None:
            kept = b""
            async for data in stream:
                kept += data
                if len(kept) == 1000000:
                    await stream.send_all(kept)
                    kept = b""

        assert (await run(serve, code, patient))[0] == ["same"]

    async def test_any(self, serve: Serve) -> None:
        code = """
            ngx.say(sock:receiveany(2))
            ngx.say(sock:receiveany(100))
            ngx.say(sock:receiveany(100))
            for _, bad in ipairs { 0, -1, "x", {} } do
                ngx.say(select(2, pcall(sock.receiveany, sock, bad)))
            end
        """
        lines, _ = await run(serve, code, say(b"abcdef"))
        assert lines[:3] == ["ab", "cdef", "nilclosed"]
        assert set(lines[3:]) == {"nilclosed"}

    async def test_bad_arguments(self, serve: Serve) -> None:
        code = """
            local function try(...)
                local _, err = pcall(...)
                ngx.say(err)
            end
            try(sock.receive, sock, "*x")
            try(sock.receive, sock, "line")
            try(sock.receive, sock, nil)
            try(sock.receive, sock, -1)
            try(sock.receive, "sock")
            try(function() sock:receive(true) end)
            try(sock.receiveany, sock, 0)
            try(sock.settimeout, sock, -1)
            try(sock.settimeouts, sock, 1, 2)
            try(sock.connect, sock)
            try(sock.connect, sock, "127.0.0.1", port, { pool_size = 0 })
            try(sock.connect, sock, "127.0.0.1", port, { pool = {} })
            try(sock.send, sock)
            try(function() sock:send({ true }) end)
            try(function() sock:send({ a = 1 }) end)
            try(function() sock:send(print) end)
        """
        lines, _ = await run(serve, code)
        assert [line[line.index("bad ") if "bad " in line else 0 :] for line in lines] == [
            "bad argument #2 to '?' (bad pattern argument)",
            "bad argument #2 to '?' (bad pattern argument: line)",
            "bad argument #2 to '?' (bad pattern argument)",
            "bad argument #2 to '?' (bad pattern argument)",
            "bad argument #1 to '?' (table expected, got string)",
            "bad argument #1 to 'receive' (bad pattern argument)",
            "bad argument #2 to '?' (bad max argument)",
            "bad timeout value",
            "ngx.socket settimeout: expecting 4 arguments (including the object) but seen 3",
            "ngx.socket connect: expecting 2, 3, or 4 arguments (including the object), but seen 1",
            "bad argument #4 to '?' (bad \"pool_size\" option value: 0)",
            "bad argument #4 to '?' (bad \"pool\" option type: table)",
            "expecting 2 arguments (including the object), but got 1",
            "bad argument #1 to 'send' (bad data type boolean found)",
            "bad argument #1 to 'send' (non-array table found)",
            "bad argument #1 to 'send' (string, number, boolean, nil, or array table expected, got function)",
        ]


class TestReceiveUntil:
    async def test_with_and_without_the_pattern(self, serve: Serve) -> None:
        code = """
            local it = sock:receiveuntil("--")
            ngx.say(it(), it(), it())
            it = sock:receiveuntil("-=", { inclusive = true })
            ngx.say(it())
            ngx.say(it())
        """
        lines, _ = await run(serve, code, say(b"one-", b"-two---", b"-x-", b"=y-"))
        assert lines == ["onetwo", "x-=", "nilclosedy"] or lines == ["onetwo-", "x-=", "nilclosedy"]

    async def test_chunks(self, serve: Serve) -> None:
        code = """
            local it = sock:receiveuntil("--abcde")
            for i = 1, 6 do
                local data, err, partial = it(4)
                ngx.say(data, " ", err, " ", partial)
            end
        """
        lines, _ = await run(serve, code, say(b"hello, wor", b"ld -", b"-ab", b"cdexyz"))
        assert lines == [
            "hell nil nil",
            "o, w nil nil",
            "orld nil nil",
            "  nil nil",
            "nil nil nil",
            "nil closed xyz",
        ]

    async def test_reading_goes_on_behind_a_timeout(
        self, serve: Serve, autojump_clock: Any
    ) -> None:
        code = """
            sock:settimeout(5)
            local it = sock:receiveuntil("ab")
            sock:send("xya")
            ngx.say(it())
            sock:send("b12ab")
            ngx.say(it(), it())
        """
        assert (await run(serve, code))[0] == ["niltimeoutxy", "12"]

    async def test_arguments(self, serve: Serve) -> None:
        code = """
            ngx.say(sock:receiveuntil(""))
            ngx.say(select(2, pcall(sock.receiveuntil, sock, "x", { inclusive = "yes" })))
            ngx.say(select(2, pcall(sock.receiveuntil, sock, "x", 1)))
            sock:close()
            ngx.say(sock:receiveuntil("x")())
        """
        lines, _ = await run(serve, code)
        assert lines == [
            "nilpattern is empty",
            'bad "inclusive" option value type: string',
            "bad argument #3 to '?' (table expected, got number)",
            "nilclosed",
        ]


def reference_until(data: bytes, pattern: bytes) -> list[bytes]:
    """What lies in front of the first pattern."""
    return list(data.partition(pattern))


@pytest.fixture(scope="module")
def reader() -> Any:
    """``reader(pieces, pattern, size, inclusive)``: what an iterator returns up to the end, as text."""
    vm = VM(
        calls=OpTable().calls,
        values={"allowed": {"ngx.socket": 1}, "ops": {}},
        files=[],
    )
    vm.run(b"local rt = ... rt.raw_log = function() end", "=test")
    vm.set(
        "main_location", {"socket": {"connect_timeout": 1, "send_timeout": 1, "read_timeout": 1}}
    )
    vm.load_file(API / "socket.lua")
    vm.load_file(API / "socket_receive.lua")
    code = b"""
        local rt = ...
        function rt.export.read(pattern, size, inclusive, ...)
            local pieces, n = { ... }, 0
            local r = { phase = 1, loc = {} }
            rt.S.r = r
            local sock = setmetatable({}, rt.tcp_methods)
            sock[1] = {
                r = r, id = 1, buf = "", pos = 1, buffer_size = 1, write_closed = false,
                fill = function()
                    n = n + 1
                    return pieces[n] or ""
                end,
                finalize = function() end,
            }
            local it = sock:receiveuntil(pattern, { inclusive = inclusive })
            local out = {}
            while true do
                local data, err, partial = it(size)
                if err then
                    out[#out + 1] = "E" .. partial
                    return table.concat(out, "|")
                end
                out[#out + 1] = data and "D" .. data or "B"
            end
        end
    """
    vm.run(code, "=test")
    return vm.export("read")


words = st.text("ab-", max_size=30).map(str.encode)


class TestAgainstAModel:
    @given(words, st.text("ab-", min_size=1, max_size=5).map(str.encode), st.data())
    def test_without_a_size(
        self, reader: Any, text: bytes, pattern: bytes, data: st.DataObject
    ) -> None:
        pieces = cut(text, data)
        expected = text.split(pattern)
        found = reader(pattern, 0, False, *pieces).split(b"|")
        assert [piece[1:] for piece in found[:-1]] == expected[:-1]
        # the beginning of a pattern at the very end belongs to nobody
        assert expected[-1].startswith(found[-1][1:])
        assert pattern.startswith(expected[-1][len(found[-1]) - 1 :])

    @settings(max_examples=examples(300))
    @given(
        words,
        st.text("ab-", min_size=1, max_size=5).map(str.encode),
        st.integers(1, 8),
        st.booleans(),
        st.data(),
    )
    def test_with_a_size(
        self,
        reader: Any,
        text: bytes,
        pattern: bytes,
        size: int,
        inclusive: bool,
        data: st.DataObject,
    ) -> None:
        found = reader(pattern, size, inclusive, *cut(text, data)).split(b"|")
        # cutting the stream differently changes nothing
        assert found == reader(pattern, size, inclusive, text or b"").split(b"|") or not text
        rounds = b"|".join(found[:-1]).split(b"|B") if len(found) > 1 else [b""]
        joined = [b"".join(piece[1:] for piece in part.split(b"|") if piece) for part in rounds]
        expected = text.split(pattern)
        if inclusive:
            expected = [part + pattern for part in expected[:-1]] + expected[-1:]
        joined[-1] += found[-1][1:]
        assert joined[:-1] == expected[:-1]
        assert expected[-1].startswith(joined[-1])
        for piece in found[:-1]:
            if piece.startswith(b"D"):
                assert len(piece) - 1 < size + 2 * len(pattern)

    def test_what_is_too_long(self, reader: Any) -> None:
        pieces = [b"x" * 2**22] * 17
        found = reader(b"y", 0, False, *pieces)
        assert len(found) == 1 + 17 * 2**22


def cut(text: bytes, data: st.DataObject) -> list[bytes]:
    places = sorted(data.draw(st.sets(st.integers(1, max(1, len(text) - 1)), max_size=4)))
    edges = [0, *[place for place in places if place < len(text)], len(text)]
    return [text[a:b] for a, b in itertools.pairwise(edges) if a < b]


class TestSend:
    async def test_kinds_of_values(self, serve: Serve) -> None:
        code = """
            ngx.say(sock:send("abc"), sock:send(12), sock:send(1.5), sock:send(true), sock:send(nil))
            ngx.say(sock:send({ "x", { "y", 3 }, {} }), sock:send(""), sock:send({}))
            ngx.say(sock:receive(18))
        """
        assert (await run(serve, code))[0] == ["32343", "300", "abc121.5truenilxy3"]

    async def test_timeout_closes_the_writing_side_only(
        self, serve: Serve, autojump_clock: Any
    ) -> None:
        code = """
            sock:settimeouts(100, 5, 100)
            ngx.say(sock:send(string.rep("x", 16 * 1024 * 1024)))
            ngx.say(sock:send("y"))
            ngx.say(sock:receive(3))
            ngx.say(sock:close())
        """

        async def deaf(stream: trio.SocketStream) -> None:
            await stream.send_all(b"abc")
            await trio.sleep_forever()

        async with upstream(deaf) as peer:
            start = f"local sock = ngx.socket.connect('127.0.0.1', {peer.port})"
            async with serve(page(start + code)) as running:
                assert await body(running) == ["niltimeout", "nilclosed", "abc", "1"]
                log = running.log.text(4)
        assert "lua tcp socket write timed out" in log
        assert "attempt to send data on a closed socket" in log

    async def test_to_a_peer_that_is_gone(self, serve: Serve) -> None:
        code = """
            ngx.say(sock:receive("*a"))
            for i = 1, 100 do
                local ok, err = sock:send(string.rep("x", 100000))
                if not ok then ngx.say(err) break end
            end
            ngx.say(sock:send("x"))
        """
        lines, _ = await run(serve, code, say())
        assert lines[1] in ("broken pipe", "connection reset by peer")
        assert lines[2] == "nilclosed"


class TestConnect:
    async def test_arguments(self, serve: Serve) -> None:
        code = """
            local sock = ngx.socket.tcp()
            ngx.say(sock:connect("127.0.0.1"))
            ngx.say(sock:connect("127.0.0.1", 65536))
            ngx.say(sock:connect("127.0.0.1", -1))
            ngx.say(sock:connect("127.0.0.1", "x"))
            ngx.say(sock:connect("", 80))
            ngx.say(sock:connect("[::x]", 80))
            ngx.say(sock:connect("unix:"))
            ngx.say(sock:connect("unix:/nonexistent/socket"))
            ngx.say(sock:send("x"))
            ngx.say(sock:receive())
            ngx.say(sock:close())
            ngx.say(sock:getreusedtimes())
            ngx.say(sock:setkeepalive())
        """
        async with serve(page(code)) as running:
            assert await body(running) == [
                "nilmissing the port number",
                "nilbad port number: 65536",
                "nilbad port number: -1",
                "nilmissing the port number",
                'nilfailed to parse host name "": no host',
                'nilfailed to parse host name "[::x]": invalid IPv6 address',
                'nilfailed to parse host name "unix:": no path in the unix domain socket',
                "nilno such file or directory",
                *["nilclosed"] * 5,
            ]
            log = running.log.text(4)
        text = "connect() to unix:/nonexistent/socket failed (2: No such file or directory)"
        assert text in log

    async def test_refused(self, serve: Serve) -> None:
        async with upstream(echo) as peer:
            port = peer.port
        code = f"ngx.say(ngx.socket.connect('127.0.0.1', {port}))"
        async with serve(page(code)) as running:
            assert await body(running) == ["nilconnection refused"]
            assert "connect() failed (111: Connection refused)" in running.log.text(4)
        async with serve(page(code, settings="lua_socket_log_errors off;")) as running:
            assert await body(running) == ["nilconnection refused"]
            assert running.log.text(4) == ""

    async def test_unix_sockets(self, serve: Serve, tmp_path: Path) -> None:
        path = tmp_path / "s"
        sock = trio.socket.socket(trio.socket.AF_UNIX)
        await sock.bind(str(path))
        sock.listen()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, echo, [trio.SocketListener(sock)])
            code = f"""
                local sock = ngx.socket.tcp()
                ngx.say(sock:connect("unix:{path}"))
                sock:send("hello\\n")
                ngx.say(sock:receive())
                ngx.say(sock:setkeepalive())
                ngx.say(sock:connect("unix:{path}"), sock:getreusedtimes())
            """
            async with serve(page(code)) as running:
                assert await body(running) == ["1", "hello", "1", "11"]
            nursery.cancel_scope.cancel()

    async def test_bind(self, serve: Serve) -> None:
        async def who(stream: trio.SocketStream) -> None:
            await stream.send_all(stream.socket.getpeername()[0].encode())

        async with upstream(who) as peer:
            code = f"""
                local sock = ngx.socket.tcp()
                ngx.say(sock:bind("nowhere"), sock:bind(1))
                ngx.say(sock:bind("127.0.0.9"))
                sock:connect("127.0.0.1", {peer.port})
                ngx.say(sock:receive("*a"))
                ngx.say(sock:bind("::1"))
                ngx.say(sock:connect("127.0.0.1", {peer.port}))
            """
            async with serve(page(code)) as running:
                assert await body(running) == [
                    "nilnilbad address",
                    "true",
                    "127.0.0.9",
                    "true",
                    "niladdress family not supported by protocol",
                ]

    async def test_connecting_again_closes_the_first(self, serve: Serve) -> None:
        code = """
            ngx.say(sock:connect("127.0.0.1", port), sock:getreusedtimes())
            sock:send("x\\n")
            ngx.say(sock:receive())
        """
        assert (await run(serve, code))[0] == ["10", "x"]

    async def test_options(self, serve: Serve) -> None:
        code = """
            ngx.say(sock:setoption("keepalive", true), sock:getoption("keepalive"))
            ngx.say(sock:setoption("tcp-nodelay", 0), sock:getoption("tcp-nodelay"))
            ngx.say(sock:setoption("sndbuf", 10240), sock:getoption("sndbuf") >= 10240)
            ngx.say(sock:setoption("other", 1))
            ngx.say(sock:setoption())
            ngx.say(sock:setoption("keepalive"))
            ngx.say(pcall(sock.setoption, sock, "keepalive", "1"))
            ngx.say(select(2, pcall(ngx.socket.tcp().setoption, ngx.socket.tcp(), "keepalive", 1)))
        """
        assert (await run(serve, code))[0] == [
            "true1",
            "true0",
            "truetrue",
            "nilunsupported option other",
            'nilmissing the "option" argument',
            'nilmissing the "value" argument',
            "falsebad argument #3 to '?' (number expected, got string)",
            "socket is never created nor connected",
        ]


class TestPool:
    async def test_reuse(self, serve: Serve) -> None:
        code = """
            ngx.say(sock:getreusedtimes())
            ngx.say(sock:setkeepalive())
            ngx.say(sock:close())
            ngx.say(sock:send("x"))
            for i = 1, 2 do
                sock:connect("127.0.0.1", port)
                sock:send("x\\n")
                ngx.say(sock:getreusedtimes(), sock:receive())
                sock:setkeepalive()
            end
            sock:connect("127.0.0.1", port, { pool = "other" })
            ngx.say(sock:getreusedtimes())
        """
        lines, _ = await run(serve, code)
        assert lines == ["0", "1", "nilclosed", "nilclosed", "1x", "2x", "0"]

    async def test_refuses_what_is_not_clean(self, serve: Serve) -> None:
        code = """
            ngx.say(sock:receive(1))
            ngx.say(sock:setkeepalive())
            ngx.say(sock:receive(2))
            ngx.sleep(0)
            ngx.say(sock:setkeepalive())
            ngx.say(sock:receive(2))
        """

        async def two(stream: trio.SocketStream) -> None:
            await stream.send_all(b"abc")
            await trio.testing.wait_all_tasks_blocked()
            await stream.send_all(b"unasked")
            await stream.receive_some()

        async with upstream(two) as peer:
            start = f"local sock = ngx.socket.connect('127.0.0.1', {peer.port})"
            wait = "sock:settimeout(1) sock:receive(0)"
            async with serve(page(start + code.replace("ngx.sleep(0)", wait))) as running:
                lines = await body(running)
        assert lines[:3] == ["a", "nilunread data in buffer", "bc"]
        assert lines[3:] in (
            ["nilconnection in dubious state", "nilclosed"],
            ["1", "nilclosed"],  # the peer's second message had not come yet
        )

    async def test_idle_time_ends(self, serve: Serve, autojump_clock: Any) -> None:
        async with upstream(echo) as peer:
            code = f"""
                local sock = ngx.socket.connect("127.0.0.1", {peer.port})
                ngx.say(sock:getreusedtimes(), sock:setkeepalive(ngx.var.arg_ms))
            """
            async with serve(page(code)) as running:
                pools = running.worker.runtime.sockets.pools
                assert await body(running, "/t?ms=1000") == ["01"]
                await trio.sleep(0.9)
                assert await body(running, "/t?ms=1000") == ["11"]
                await trio.sleep(0.9)
                assert pools.idle == 1
                await trio.sleep(0.2)
                assert pools.idle == peer.open == 0

    async def test_the_peers_close_ends_the_rest(self, serve: Serve) -> None:
        leave = trio.Event()

        async def leaving(stream: trio.SocketStream) -> None:
            await leave.wait()

        async with upstream(leaving) as peer:
            code = f"ngx.say(ngx.socket.connect('127.0.0.1', {peer.port}):setkeepalive())"
            async with serve(page(code)) as running:
                pools = running.worker.runtime.sockets.pools
                assert await body(running) == ["1"]
                assert pools.idle == 1
                leave.set()
                await trio.testing.wait_all_tasks_blocked()
                assert pools.idle == 0
                assert pools.get(b"127.0.0.1:%d" % peer.port) is None

    async def test_size_and_order(self, serve: Serve) -> None:
        async with upstream(echo) as peer:
            code = f"""
                local socks = {{}}
                for i = 1, 3 do
                    socks[i] = ngx.socket.connect("127.0.0.1", {peer.port})
                end
                for i = 1, 3 do
                    ngx.say(socks[i]:setkeepalive(0, 2))
                end
            """
            async with serve(page(code)) as running:
                assert await body(running) == ["1", "1", "1"]
                await trio.testing.wait_all_tasks_blocked()
                assert running.worker.runtime.sockets.pools.idle == peer.open == 2

    async def test_backlog(self, serve: Serve, autojump_clock: Any) -> None:
        async with upstream(echo) as peer:
            code = f"""
                local sock = ngx.socket.tcp()
                sock:settimeouts(500, 1000, 1000)
                local ok, err = sock:connect("127.0.0.1", {peer.port}, {{ pool_size = 1, backlog = 1 }})
                if ok then
                    ngx.sleep(tonumber(ngx.var.arg_s))
                    ngx.say("ok ", sock:getreusedtimes())
                    if ngx.var.arg_keep then sock:setkeepalive() end
                else
                    ngx.say(err)
                end
            """
            async with serve(page(code)) as running:
                answers: dict[str, list[str]] = {}

                async def ask(name: str, query: str) -> None:
                    answers[name] = await body(running, f"/t?{query}")

                async with trio.open_nursery() as nursery:
                    for name, query in (("a", "s=0.1&keep=1"), ("b", "s=1"), ("c", "s=0")):
                        nursery.start_soon(ask, name, query)
                        await trio.testing.wait_all_tasks_blocked(0.01)
                assert answers == {
                    "a": ["ok 0"],
                    "b": ["ok 1"],
                    "c": ["too many waiting connect operations"],
                }
                async with trio.open_nursery() as nursery:
                    for name, query in (("a", "s=1"), ("b", "s=0")):
                        nursery.start_soon(ask, name, query)
                        await trio.testing.wait_all_tasks_blocked(0.01)
                assert answers["a"] == ["ok 0"]
                assert answers["b"] == ["timeout"]
                assert "lua tcp socket queued connect timed out" in running.log.text(4)
                assert peer.accepted == 2

    @pytest.mark.parametrize("begun", [False, True])
    async def test_a_place_in_the_pool_is_given_back(self, serve: Serve, begun: bool) -> None:
        """By a thread that is killed while it connects, even before that has begun."""

        class Silent(SystemNetwork):
            def resolver(self, words: Any) -> Any:
                return self

            async def resolve(self, name: str) -> Any:
                await trio.sleep_forever()

        async with upstream(echo) as peer:
            code = f"""
                local options = {{ pool = "p", pool_size = 1, backlog = 1 }}
                local th = ngx.thread.spawn(function() ngx.socket.connect("silent.test", 80, options) end)
                {"ngx.sleep(0)" if begun else ""}
                ngx.say(ngx.thread.kill(th))
                ngx.say((ngx.socket.connect("127.0.0.1", {peer.port}, options)) ~= nil)
            """
            config = page(code, settings="resolver 127.0.0.1;")
            async with serve(config, network=Silent()) as running:
                assert await body(running) == ["1", "true"]
                assert running.worker.runtime.sockets.open == 0


class TestThreads:
    async def test_one_reader_and_one_writer(self, serve: Serve) -> None:
        code = """
            local reader = ngx.thread.spawn(function() return sock:receive() end)
            ngx.say(sock:receive())
            ngx.say(sock:receiveany(1))
            ngx.say(sock:receiveuntil("x")())
            ngx.say(sock:connect("127.0.0.1", port))
            ngx.say(sock:setkeepalive())
            ngx.say(sock:close())
            ngx.say(sock:send("line\\n"))
            ngx.say(select(2, ngx.thread.wait(reader)))
            local writer = ngx.thread.spawn(function()
                return sock:send(string.rep("x", 32 * 1024 * 1024))
            end)
            ngx.say(sock:send("y"))
            ngx.say(sock:close())
            ngx.thread.kill(writer)
            ngx.say(sock:close())
        """

        async def one_line(stream: trio.SocketStream) -> None:
            await stream.send_all(await stream.receive_some())
            await trio.sleep_forever()

        async with upstream(one_line) as peer:
            start = f"local port = {peer.port} local sock = ngx.socket.connect('127.0.0.1', port)"
            async with serve(page(start + code)) as running:
                assert await body(running) == [
                    *["nilsocket busy reading"] * 6,
                    "5",
                    "line",
                    *["nilsocket busy writing"] * 2,
                    "nilclosed",
                ]

    async def test_a_killed_reader_closes(self, serve: Serve) -> None:
        code = """
            local reader = ngx.thread.spawn(function() sock:receive() end)
            ngx.thread.kill(reader)
            ngx.sleep(0.001)
            ngx.say(sock:send("x"))
        """
        assert (await run(serve, code, silent))[0] == ["nilclosed"]


class TestLifetime:
    async def test_nothing_survives_its_request(self, serve: Serve) -> None:
        async with upstream(echo) as peer:
            code = f"""
                local mod = package.loaded
                if not mod.kept then
                    mod.kept = ngx.socket.tcp()
                    ngx.say(mod.kept:connect("127.0.0.1", {peer.port}))
                else
                    ngx.say(mod.kept:send("x"))
                    ngx.say(mod.kept:receive())
                    ngx.say(mod.kept:close())
                    ngx.say(mod.kept:connect("127.0.0.1", {peer.port}))
                end
            """
            async with serve(page(code)) as running:
                assert await body(running) == ["1"]
                await trio.testing.wait_all_tasks_blocked()
                assert peer.open == 0
                assert await body(running) == ["nilclosed", "nilclosed", "nilclosed", "1"]

    async def test_a_live_socket_of_another_request(self, serve: Serve) -> None:
        async with upstream(silent) as peer:
            code = f"""
                local mod = package.loaded
                if not mod.kept then
                    mod.kept = ngx.socket.tcp()
                    mod.kept:connect("127.0.0.1", {peer.port})
                    mod.kept:receive()
                end
                for _, name in ipairs {{ "send", "receive", "close", "setkeepalive" }} do
                    local arg = name == "send" and "x" or nil
                    local ok, err
                    if arg then
                        ok, err = pcall(mod.kept[name], mod.kept, arg)
                    else
                        ok, err = pcall(mod.kept[name], mod.kept)
                    end
                    ngx.say(err)
                end
                ngx.say(select(2, pcall(mod.kept.connect, mod.kept, "127.0.0.1", 1)))
            """
            async with serve(page(code)) as running:
                first = await running.connect()
                await first.send(b"GET /t HTTP/1.1\r\nHost: a\r\n\r\n")
                await trio.testing.wait_all_tasks_blocked()
                assert await body(running) == ["bad request"] * 5
                conn = next(conn for conn in running.worker.connections.values() if conn.request)
                conn.request.cancel_scope.cancel()
                await trio.testing.wait_all_tasks_blocked()
                assert running.worker.runtime.sockets.open == peer.open == 0

    async def test_in_a_timer(self, serve: Serve, autojump_clock: Any) -> None:
        async with upstream(echo) as peer:
            code = f"""
                ngx.timer.at(0, function()
                    local sock = ngx.socket.connect("127.0.0.1", {peer.port})
                    sock:send("x\\n")
                    ngx.log(ngx.WARN, "timer: ", sock:receive())
                    sock:settimeout(100)
                    sock:receive()
                end)
            """
            conf = nginx(
                "location /t { return 200 ok; }",
                f"lua_socket_log_errors off; init_worker_by_lua_block {{ {code} }}",
            )
            async with serve(conf) as running:
                await trio.sleep(1)
                assert "timer: x" in running.log.text(5)
                assert "timed out" not in running.log.text()
                assert running.worker.runtime.sockets.open == peer.open == 0

    async def test_not_in_other_phases(self, serve: Serve) -> None:
        conf = nginx(
            "location /t { log_by_lua_block { ngx.socket.tcp() } return 200 ok; }",
            "init_worker_by_lua_block { ngx.socket.tcp() }",
        )
        async with serve(conf) as running:
            assert await body(running) == ["ok"]
            log = running.log.text(4)
        assert "API disabled in the context of log_by_lua*" in log
        assert "API disabled in the context of init_worker_by_lua*" in log

    async def test_a_busy_thread_lets_others_run(self, serve: Serve) -> None:
        async with upstream(echo) as peer:
            code = f"""
                local sock = ngx.socket.connect("127.0.0.1", {peer.port})
                local n = 0
                while not package.loaded.stop do
                    sock:send("")
                    sock:send("x")
                    n = n + 1
                end
                ngx.say("stopped")
            """
            conf = nginx(
                f"location /t {{ content_by_lua_block {{ {code} }} }}"
                "location /stop { content_by_lua_block { package.loaded.stop = true } }"
            )
            async with serve(conf) as running:
                busy = await running.connect()
                await busy.send(b"GET /t HTTP/1.1\r\nHost: a\r\n\r\n")
                other = await running.connect()
                await other.get("/stop")
                assert (await busy.response())[2] == b"stopped\n"


async def test_a_new_pool_is_a_debug_line(serve: Serve) -> None:
    async with upstream(echo) as peer:
        code = f"""
            for i = 1, 2 do
                local sock = ngx.socket.tcp()
                assert(sock:connect("127.0.0.1", {peer.port}, {{ pool = "mine" }}))
                assert(sock:setkeepalive())
            end
        """
        async with serve(page(code)) as running:
            await body(running)
            line = 'lua tcp socket keepalive create connection pool for key "mine"'
            assert running.log.text().count(line) == 1
