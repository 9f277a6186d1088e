"""``sslhandshake`` against servers with certificates of the test's own."""

from __future__ import annotations

import contextlib
import datetime
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trustme
from serving import nginx

from trio_lua.errors import ConfigError

Serve = Callable[..., Any]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def trusted(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def server_context(issuer: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issuer.issue_cert(*(names or ("test.local",))).configure_cert(context)
    return context


@contextlib.asynccontextmanager
async def tls_server(context: ssl.SSLContext, seen: list[Any] | None = None) -> AsyncIterator[int]:
    """An echo server; its port. ``seen`` gets an entry for each handshake."""

    async def serve(stream: trio.SocketStream) -> None:
        tls = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async with tls:
                await tls.do_handshake()
                if seen is not None:
                    inner: Any = tls._ssl_object
                    seen.append((inner.session_reused, inner.version(), inner.getpeercert()))
                async for data in tls:
                    await tls.send_all(data)

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, serve, listeners)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def run(serve: Serve, port: int, code: str, settings: str = "") -> tuple[list[str], str]:
    start = f"""
        local port = {port}
        local sock = ngx.socket.tcp()
        assert(sock:connect("127.0.0.1", port))
    """
    conf = nginx(f"location /t {{ {settings} content_by_lua_block {{ {start} {code} }} }}")
    async with serve(conf) as running:
        client = await running.connect()
        status, _, data = await client.get("/t")
        assert status == 200, running.log.text()
        assert running.worker.runtime.sockets.open == 0
        return data.decode().splitlines(), running.log.text(4)


async def test_unverified(serve: Serve, authority: trustme.CA) -> None:
    async with tls_server(server_context(authority)) as port:
        code = """
            ngx.say(type(sock:sslhandshake()))
            ngx.say(sock:send("hello\\n"), sock:receive())
            local large = string.rep("0123456789", 30000)
            for i = 1, 3 do
                sock:send(large)
                ngx.say(sock:receive(#large) == large)
            end
            ngx.say(sock:close())
            ngx.say(sock:sslhandshake())
            sock:connect("127.0.0.1", port)
            ngx.say(sock:sslhandshake(false))
            ngx.say(type(sock:sslhandshake(nil, nil, nil, true)))
        """
        lines, log = await run(serve, port, code)
    assert lines == [
        "cdata",
        "6hello",
        *["true"] * 3,
        "1",
        "nilclosed",
        "true",
        "cdata",
    ]
    assert log == ""


@pytest.mark.parametrize(
    ("name", "answer"), [("test.local", "true"), ("other.local", "nilcertificate host mismatch")]
)
async def test_verified(
    serve: Serve, authority: trustme.CA, trusted: Path, name: str, answer: str
) -> None:
    async with tls_server(server_context(authority)) as port:
        code = f"""
            ngx.say(sock:sslhandshake(false, "{name}", true))
            ngx.say((sock:send("x")))
        """
        settings = f"lua_ssl_trusted_certificate {trusted};"
        lines, log = await run(serve, port, code, settings)
    assert lines[0] == answer
    if name == "other.local":
        assert lines[1] == "nil"
        assert 'lua ssl certificate does not match host "other.local"' in log


async def test_who_is_not_trusted(serve: Serve, authority: trustme.CA, trusted: Path) -> None:
    async with tls_server(server_context(trustme.CA())) as port:
        code = "ngx.say(sock:sslhandshake(nil, 'test.local', true))"
        lines, log = await run(serve, port, code)
        assert lines == ["nil20: unable to get local issuer certificate"]
        assert "lua ssl certificate verify error: (20: unable to get" in log
        lines, _ = await run(serve, port, code, f"lua_ssl_trusted_certificate {trusted};")
        assert lines == ["nil20: unable to get local issuer certificate"]
        lines, log = await run(serve, port, code, "lua_socket_log_errors off;")
        assert log == ""


async def test_depth(serve: Serve, authority: trustme.CA, trusted: Path) -> None:
    middle = authority.create_child_ca().create_child_ca()
    async with tls_server(server_context(middle)) as port:
        code = "ngx.say(sock:sslhandshake(false, 'test.local', true))"
        settings = f"lua_ssl_trusted_certificate {trusted};"
        lines, _ = await run(serve, port, code, settings)
        assert lines == ["nil22: certificate chain too long"]
        lines, _ = await run(serve, port, code, settings + "lua_ssl_verify_depth 2;")
        assert lines == ["true"]


async def test_sessions(serve: Serve, authority: trustme.CA) -> None:
    seen: list[Any] = []
    async with tls_server(server_context(authority), seen) as port:
        code = """
            local session = sock:sslhandshake()
            sock:close()
            for i = 1, 2 do
                sock:connect("127.0.0.1", port)
                ngx.say(sock:sslhandshake(session) ~= nil)
                collectgarbage()
                sock:send("x")
                ngx.say(sock:receive(1))
                sock:setkeepalive()
                sock:connect("127.0.0.1", port)
                ngx.say(sock:getreusedtimes(), sock:sslhandshake(session) == session)
                ngx.say(sock:sslhandshake(false), type(sock:sslhandshake()))
                sock:close()
            end
        """
        lines, _ = await run(serve, port, code, "lua_ssl_protocols TLSv1.2;")
    assert lines == ["true", "x", "1true", "truecdata"] * 2
    assert [entry[:2] for entry in seen] == [
        (False, "TLSv1.2"),
        (True, "TLSv1.2"),
        (True, "TLSv1.2"),
    ]


async def test_versions(serve: Serve, authority: trustme.CA) -> None:
    context = server_context(authority)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    async with tls_server(context) as port:
        code = "ngx.say(sock:sslhandshake(false))"
        lines, log = await run(serve, port, code, "lua_ssl_protocols TLSv1.2;")
        assert lines == ["nilhandshake failed"]
        assert "peer closed connection in SSL handshake" in log
        assert (await run(serve, port, code))[0] == ["true"]
        lines, _ = await run(serve, port, code, "lua_ssl_ciphers nonsense;")
        assert lines == ["nilfailed to create ssl connection"]


async def test_client_certificates(serve: Serve, authority: trustme.CA, tmp_path: Path) -> None:
    context = server_context(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    own = authority.issue_cert("client.local", common_name="client.local")
    chain = b"".join(pem.bytes() for pem in own.cert_chain_pems)
    key = own.private_key_pem.bytes()
    (tmp_path / "cert").write_bytes(chain)
    (tmp_path / "key").write_bytes(key)
    seen: list[Any] = []
    async with tls_server(context, seen) as port:
        code = f"""
            local ssl = require "ngx.ssl"
            local cert = ssl.parse_pem_cert([[{chain.decode()}]])
            local key = ssl.parse_pem_priv_key([[{key.decode()}]])
            ngx.say(sock:setclientcert(1, 2))
            ngx.say(sock:setclientcert(cert))
            ngx.say(sock:setclientcert(cert, key))
            ngx.say(sock:sslhandshake(false))
            sock:send("x")
            ngx.say(sock:receive(1))
            ngx.say(ssl.parse_pem_cert("x"))
        """
        lines, _ = await run(serve, port, code)
        assert lines == [
            "nilbad cert arg: cdata expected, got number",
            "nilclient certificate must be supplied with corresponding private key",
            "true",
            "true",
            "x",
            "nilPEM_read_bio_X509_AUX() failed",
        ]
        settings = f"lua_ssl_certificate {tmp_path}/cert; lua_ssl_certificate_key {tmp_path}/key;"
        code = "ngx.say(sock:sslhandshake(false), sock:send('x'), sock:receive(1))"
        lines, _ = await run(serve, port, code, settings)
        assert lines == ["true1x"]
    assert len(seen) == 2
    assert all(entry[2]["subject"] for entry in seen)


async def test_a_client_certificate_without_its_key(serve: Serve, authority: trustme.CA) -> None:
    own, other = authority.issue_cert("client.local"), authority.issue_cert("other.local")
    chain = own.cert_chain_pems[0].bytes().decode()
    code = f"""
        local ssl = require "ngx.ssl"
        sock:setclientcert(ssl.parse_pem_cert([[{chain}]]),
            ssl.parse_pem_priv_key([[{other.private_key_pem.bytes().decode()}]]))
        ngx.say(sock:sslhandshake(false))
    """
    async with tls_server(server_context(authority)) as port:
        lines, _ = await run(serve, port, code)
    assert lines == ["nilssl set client private key failed"]


async def test_a_silent_peer(serve: Serve, autojump_clock: Any) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def wait(stream: trio.SocketStream) -> None:
        async with stream:
            await trio.sleep(10)

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, wait, listeners)
        port = listeners[0].socket.getsockname()[1]
        code = "sock:settimeout(100) ngx.say(sock:sslhandshake()) ngx.say(sock:send('x'))"
        lines, _ = await run(serve, port, code)
        assert lines == ["niltimeout", "nilclosed"]
        nursery.cancel_scope.cancel()


async def test_sessions_of_tls_1_3(serve: Serve, authority: trustme.CA) -> None:
    """What makes a session resumable comes after the handshake."""
    seen: list[Any] = []
    async with tls_server(server_context(authority), seen) as port:
        code = """
            ngx.say(pcall(ngx.socket.tcp().getsslsession, ngx.socket.tcp()))
            ngx.say(sock:getsslsession())
            ngx.say(type(sock:sslhandshake()), sock:getsslsession())
            sock:send("x")
            ngx.say(sock:receive(1))
            local session = sock:getsslsession()
            ngx.say(type(session))
            sock:close()
            ngx.say(sock:getsslsession())
            sock:connect("127.0.0.1", port)
            ngx.say(sock:sslhandshake(session) ~= nil)
            sock:close()
        """
        lines, _ = await run(serve, port, code, "lua_ssl_protocols TLSv1.3;")
    assert lines == [
        "falsesocket is never created nor connected",
        "nilno ssl connection",
        "cdatanilnot resumable",
        "x",
        "cdata",
        "nilclosed",
        "true",
    ]
    assert [entry[:2] for entry in seen] == [(False, "TLSv1.3"), (True, "TLSv1.3")]


async def test_a_session_of_another_kind(
    serve: Serve, authority: trustme.CA, trusted: Path
) -> None:
    """One that began without verification is not resumed where there is some."""
    seen: list[Any] = []
    async with tls_server(server_context(authority), seen) as port:
        code = """
            local session = sock:sslhandshake(nil, "test.local", false)
            sock:close()
            sock:connect("127.0.0.1", port)
            ngx.say(sock:sslhandshake(session, "test.local", true) ~= nil)
            sock:close()
        """
        settings = f"lua_ssl_protocols TLSv1.2; lua_ssl_trusted_certificate {trusted};"
        lines, _ = await run(serve, port, code, settings)
    assert lines == ["true"]
    assert [entry[0] for entry in seen] == [False, False]


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        ("sock:sslhandshake(nil, '')", "nilSSL_set_tlsext_host_name failed"),
        ("pcall(sock.sslhandshake, sock, nil, 12)", "falsecannot convert 'number' to"),
        ("pcall(sock.sslhandshake, sock, nil, {})", "falsecannot convert 'table' to"),
        (
            "pcall(sock.sslhandshake, sock, 1, 2, 3, 4, 5)",
            "falsengx.socket sslhandshake: expecting 1 ~ 5 arguments",
        ),
        ("pcall(sock.sslhandshake, ngx.socket.tcp())", "falsesocket is never created"),
        ("sock:sslhandshake('no session', 'test.local', false) ~= nil", "true"),
    ],
)
async def test_wrong_arguments(serve: Serve, authority: trustme.CA, code: str, answer: str) -> None:
    async with tls_server(server_context(authority)) as port:
        lines, _ = await run(serve, port, f"ngx.say({code})")
    assert lines[0].startswith(answer)


async def upstream_of(handler: Any, nursery: trio.Nursery) -> int:
    """The port of a server without TLS."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, handler, listeners)
    return int(listeners[0].socket.getsockname()[1])


async def test_peers_that_leave_or_speak_something_else(serve: Serve) -> None:
    async def leave(stream: trio.SocketStream) -> None:
        await stream.receive_some(10000)
        await stream.aclose()

    async def reset(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)
        await stream.aclose()

    async def greet(stream: trio.SocketStream) -> None:
        await stream.send_all(b"220 ready\r\n")
        await trio.sleep_forever()

    lines = []
    async with trio.open_nursery() as nursery:
        for handler in (leave, reset, greet):
            port = await upstream_of(handler, nursery)
            said, log = await run(serve, port, "ngx.say(sock:sslhandshake())")
            assert said == ["nilhandshake failed"]
            lines.append(log.splitlines()[0].partition(", client")[0])
        nursery.cancel_scope.cancel()
    assert lines == [
        "peer closed connection in SSL handshake",
        "peer closed connection in SSL handshake (104: Connection reset by peer)",
        "SSL_do_handshake() failed (SSL: wrong version number)",
    ]


async def test_tls_after_plain_words(serve: Serve, authority: trustme.CA, trusted: Path) -> None:
    """As SMTP and its kin begin it; what was received in front of it is no obstacle."""
    context = server_context(authority)

    async def start(stream: trio.SocketStream) -> None:
        assert await stream.receive_some(100) == b"STARTTLS\n"
        await stream.send_all(b"ready\n")
        tls = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        async for data in tls:
            await tls.send_all(data)

    async with trio.open_nursery() as nursery:
        port = await upstream_of(start, nursery)
        code = """
            sock:send("STARTTLS\\n")
            ngx.say(sock:receive())
            ngx.say(type(sock:sslhandshake(nil, "test.local", true)))
            sock:send("hello\\n")
            ngx.say(sock:receive())
            sock:close()
        """
        lines, log = await run(serve, port, code, f"lua_ssl_trusted_certificate {trusted};")
        nursery.cancel_scope.cancel()
    assert (lines, log) == (["ready", "cdata", "hello"], "")


async def test_dates_of_certificates(serve: Serve, authority: trustme.CA, trusted: Path) -> None:
    day, now = datetime.timedelta(days=1), datetime.datetime.now(datetime.timezone.utc)
    said = []
    for since, until in ((-3, -2), (2, 3)):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        leaf = authority.issue_cert(
            "test.local", not_before=now + since * day, not_after=now + until * day
        )
        leaf.configure_cert(context)
        async with tls_server(context) as port:
            code = "ngx.say(sock:sslhandshake(nil, 'test.local', true))"
            said += (await run(serve, port, code, f"lua_ssl_trusted_certificate {trusted};"))[0]
    assert said == ["nil10: certificate has expired", "nil9: certificate is not yet valid"]


async def test_key_log(serve: Serve, authority: trustme.CA, tmp_path: Path) -> None:
    async with tls_server(server_context(authority)) as port:
        lines, _ = await run(
            serve, port, "ngx.say(sock:sslhandshake(false))", f"lua_ssl_key_log {tmp_path}/keys;"
        )
    assert lines == ["true"]
    assert "CLIENT_TRAFFIC_SECRET_0" in (tmp_path / "keys").read_text()
    with pytest.raises(ConfigError, match=r"open.*failed"):
        nginx(f"lua_ssl_key_log {tmp_path}/none/keys;")
