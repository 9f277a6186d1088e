"""Listening sockets with ``ssl``, over sockets and over memory streams."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from serving import Client, Running

from trio_lua.config.model import Config, Listen
from trio_lua.config.nginx import loads

Serve = Callable[..., Any]

LISTEN = Listen("127.0.0.1", 443)


class Files:
    """An authority, and certificates of it in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        for name in ("a.test", "b.test", "client"):
            host = f"{name}@x.test" if name == "client" else name
            certificate = self.authority.issue_cert(host)
            chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
            (folder / f"{name}.pem").write_bytes(chain)
            certificate.private_key_pem.write_to_path(str(folder / f"{name}.key"))

    def certificate(self, name: str) -> str:
        return (
            f"ssl_certificate {self.folder}/{name}.pem; "
            f"ssl_certificate_key {self.folder}/{name}.key;"
        )

    def context(self, *, certificate: bool = False, **attributes: Any) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        if certificate:
            context.load_cert_chain(self.folder / "client.pem", self.folder / "client.key")
        for name, value in attributes.items():
            setattr(context, name, value)
        return context


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("tls"))


def conf(files: Files, locations: str, more: str = "", servers: str = "") -> Config:
    return loads(
        f"""events {{}} http {{
            access_log off;
            server {{
                listen 127.0.0.1:443 ssl; server_name a.test;
                {files.certificate("a.test")} {more}
                {locations}
            }}
            {servers}
        }}"""
    )


async def connect(
    running: Running, context: ssl.SSLContext, name: str = "a.test", **options: Any
) -> Client:
    """A client behind its handshake."""
    plain = await running.connect(LISTEN, **options)
    stream = trio.SSLStream(plain.stream, context, server_hostname=name, https_compatible=True)
    await stream.do_handshake()
    plain.stream = stream  # type: ignore[assignment]
    return plain


def say(code: str) -> str:
    return f"location / {{ content_by_lua_block {{ {code} }} }}"


async def test_requests(serve: Serve, files: Files) -> None:
    locations = say(
        """ngx.req.read_body()
        ngx.say(ngx.var.scheme, ngx.var.https, ngx.req.get_body_data())"""
    )
    async with serve(conf(files, locations)) as running:
        client = await connect(running, files.context())
        for _ in range(3):
            status, _, body = await client.get("/")
            assert (status, body) == (200, b"httpsonnil\n")
        await client.send(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhe")
        await client.send(b"llo")
        assert (await client.response())[2] == b"httpsonhello\n"
        await client.send(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
        assert (await client.response())[0] == 200
        # the end is said, not only there
        assert await client.rest() == b""


async def test_large_responses_and_pipelining(serve: Serve, files: Files) -> None:
    locations = say("local s = string.rep('0123456789', 100000) ngx.print(s) ngx.print(s)")
    async with serve(conf(files, locations)) as running:
        client = await connect(running, files.context())
        request = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
        await client.send(request * 3)
        for _ in range(3):
            assert (await client.response())[2] == b"0123456789" * 200000


async def test_suspended(serve: Serve, files: Files, autojump_clock: object) -> None:
    locations = say("ngx.sleep(5) ngx.say('slept')")
    async with serve(conf(files, locations)) as running:
        client = await connect(running, files.context())
        assert (await client.get("/"))[2] == b"slept\n"
        assert (await client.get("/"))[2] == b"slept\n"


async def test_server_by_name(serve: Serve, files: Files) -> None:
    servers = f"""server {{
        listen 127.0.0.1:443; server_name b.test; {files.certificate("b.test")}
        {say("ngx.say('b ', ngx.var.ssl_server_name)")}
    }}
    server {{ listen 127.0.0.1:443; server_name c.test; {say("ngx.say('c')")} }}"""
    async with serve(conf(files, say("ngx.say('a')"), servers=servers)) as running:
        context = files.context()
        assert (await (await connect(running, context)).get("/", "X: y"))[2] == b"a\n"
        client = await connect(running, context, "b.test")
        await client.send(b"GET / HTTP/1.1\r\nHost: b.test\r\n\r\n")
        assert (await client.response())[2] == b"b b.test\n"
        # any name gets a certificate, and the Host header chooses among the servers all the same
        with pytest.raises(trio.BrokenResourceError) as caught:
            await connect(running, context, "c.test")
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
        await client.send(b"GET / HTTP/1.1\r\nHost: c.test\r\n\r\n")
        assert (await client.response())[2] == b"c\n"


async def test_variables(serve: Serve, files: Files) -> None:
    names = """protocol cipher server_name session_reused client_verify client_s_dn client_i_dn_legacy
        client_serial client_v_remain early_data alpn_protocol"""
    code = f"""for name in ([[{names}]]):gmatch("%S+") do
            ngx.say(name, "=", ngx.var["ssl_" .. name])
        end
        for name in ("ciphers curves session_id client_cert client_escaped_cert client_fingerprint client_raw_cert"):gmatch("%S+") do
            ngx.say(name, "#", #(ngx.var["ssl_" .. name] or ""))
        end
        ngx.say(ngx.var.ssl_client_cert, "!")"""
    more = f"ssl_verify_client optional; ssl_client_certificate {files.folder}/ca.pem;"
    async with serve(conf(files, say(code), more)) as running:
        context = files.context(certificate=True, maximum_version=ssl.TLSVersion.TLSv1_2)
        context.set_alpn_protocols(["h2", "http/1.1"])
        client = await connect(running, context)
        _, _, body = await client.get("/")
        lines = body.decode().splitlines()
        found = dict(line.split("=", 1) for line in lines if "=" in line[:20])
        assert found["protocol"] == "TLSv1.2"
        assert found["cipher"].startswith("ECDHE-")
        assert found["server_name"] == "a.test"
        assert found["session_reused"] == "."
        assert found["client_verify"] == "SUCCESS"
        assert found["client_s_dn"].startswith("OU=Testing cert #")
        assert found["client_s_dn"].split(",")[1].startswith("O=trustme")
        assert found["client_i_dn_legacy"].startswith("/O=trustme")
        assert int(found["client_serial"], 16) > 0
        assert int(found["client_v_remain"]) > 300
        assert found["early_data"] == "nil"
        assert found["alpn_protocol"] == "http/1.1"
        lengths = dict(line.split("#", 1) for line in lines if "#" in line[:20])
        assert int(lengths["client_fingerprint"]) == 40
        assert int(lengths["session_id"]) in (0, 64)
        assert int(lengths["ciphers"]) > 20
        assert lines[-1] == "\t-----END CERTIFICATE-----!"

        client = await connect(running, files.context())
        _, _, body = await client.get("/")
        assert b"client_verify=NONE\nclient_s_dn=nil\n" in body


async def test_no_variables_without_tls(serve: Serve, files: Files) -> None:
    text = f"events {{}} http {{ access_log off; server {{ listen 127.0.0.1:80; {say('ngx.say(ngx.var.ssl_protocol, ngx.var.https)')} }} }}"
    async with serve(loads(text)) as running:
        client = await running.connect()
        assert (await client.get("/"))[2] == b"nil\n"


async def test_sessions_are_resumed(serve: Serve, files: Files) -> None:
    async with serve(conf(files, say("ngx.say(ngx.var.ssl_session_reused)"))) as running:
        context = files.context(maximum_version=ssl.TLSVersion.TLSv1_2)
        for tickets in (True, False):
            if not tickets:
                context.options |= ssl.OP_NO_TICKET
            answers = []
            session = None
            for _ in range(2):
                plain = await running.connect(LISTEN)
                incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
                tls = context.wrap_bio(
                    incoming, outgoing, server_hostname="a.test", session=session
                )
                request = b"GET / HTTP/1.0\r\nHost: a.test\r\n\r\n"
                steps: list[Callable[[], Any]] = [
                    tls.do_handshake,
                    partial(tls.write, request),
                    partial(_append_end, tls, answers),
                ]
                while steps:
                    with contextlib.suppress(ssl.SSLWantReadError):
                        steps[0]()
                        steps.pop(0)
                        continue
                    if output := outgoing.read():
                        await plain.send(output)
                    incoming.write(await plain.stream.receive_some())
                session = tls.session
            assert answers == [b".\n", b"r\n"]


def _append_end(tls: ssl.SSLObject, answers: list[bytes]) -> None:
    answers.append(tls.read()[-2:])


async def test_plain_http(serve: Serve, files: Files) -> None:
    more = "error_page 497 =302 https://a.test$request_uri;"
    async with serve(conf(files, "")) as running:
        client = await running.connect(LISTEN)
        status, headers, body = await client.get("/x")
        assert (status, headers["connection"]) == (400, "close")
        assert b"The plain HTTP request was sent to HTTPS port" in body
        assert await client.rest() == b""
        assert (
            "client sent plain HTTP request to HTTPS port while reading client request headers, client: "
            in running.log.text()
        )
    async with serve(conf(files, "", more)) as running:
        client = await running.connect(LISTEN)
        status, headers, _ = await client.get("/x")
        assert (status, headers["location"]) == (302, "https://a.test/x")


async def test_client_certificates(serve: Serve, files: Files) -> None:
    servers = f"""server {{
        listen 127.0.0.1:443 ssl; server_name b.test; {files.certificate("b.test")}
        ssl_verify_client on; ssl_client_certificate {files.folder}/ca.pem;
        {say("ngx.say('b ', ngx.var.ssl_client_verify)")}
    }}"""
    async with serve(conf(files, say("ngx.say('a')"), servers=servers)) as running:
        request = b"GET / HTTP/1.1\r\nHost: b.test\r\n\r\n"
        client = await connect(running, files.context(certificate=True), "b.test")
        for _ in range(3):
            await client.send(request)
            assert (await client.response())[2] == b"b SUCCESS\n"

        client = await connect(running, files.context(), "b.test")
        await client.send(request)
        status, _, body = await client.response()
        assert status == 400
        assert b"No required SSL certificate was sent" in body

        # not through the door of another server
        client = await connect(running, files.context(certificate=True), "a.test")
        await client.send(request.replace(b"b.test", b"a.test"))
        assert (await client.response())[2] == b"a\n"
        await client.send(request)
        assert (await client.response())[0] == 421
        assert "server name different from the one that was negotiated" in running.log.text()

        # one of somebody else ends the handshake
        stranger = files.context()
        trustme.CA().issue_cert("x.test").configure_cert(stranger)
        with contextlib.suppress(trio.BrokenResourceError):
            client = await connect(running, stranger, "b.test")
            await client.send(request)
            with pytest.raises(trio.BrokenResourceError):
                await client.stream.receive_some()
        assert "certificate verify failed" in running.log.text(7)


async def test_chains_that_are_too_long(serve: Serve, files: Files) -> None:
    client_authority = files.authority.create_child_ca().create_child_ca()
    context = files.context()
    client_authority.issue_cert("y@x.test").configure_cert(context)
    more = f"ssl_verify_client on; ssl_client_certificate {files.folder}/ca.pem;"
    locations = say("ngx.say(ngx.var.ssl_client_verify)")
    for depth, expected in ((1, 400), (2, 200)):
        config = conf(files, locations, f"{more} ssl_verify_depth {depth};")
        async with serve(config) as running:
            client = await connect(running, context)
            status, _, body = await client.get("/")
            assert status == expected
            assert (b"The SSL certificate error" in body) == (status == 400)


@pytest.mark.parametrize(
    ("more", "attributes", "reason"),
    [
        (
            "ssl_protocols TLSv1.3;",
            {"maximum_version": ssl.TLSVersion.TLSv1_2},
            "unsupported protocol",
        ),
        ("ssl_reject_handshake on;", {}, "ssl_reject_handshake is on"),
    ],
)
async def test_handshakes_that_fail(
    serve: Serve, files: Files, more: str, attributes: dict[str, Any], reason: str
) -> None:
    async with serve(conf(files, "", more)) as running:
        with pytest.raises(trio.BrokenResourceError):
            await connect(running, files.context(**attributes))
        await trio.testing.wait_all_tasks_blocked()
        log = running.log.text(7)
        assert f"SSL_do_handshake() failed (SSL: {reason}) while SSL handshaking, client: " in log
        assert log.endswith(", server: 127.0.0.1:443")
        assert not running.log.text(6)


async def test_garbage_and_silence(serve: Serve, files: Files, autojump_clock: object) -> None:
    async with serve(conf(files, "", "client_header_timeout 7s;")) as running:
        client = await running.connect(LISTEN)
        await client.send(b"\x16\x03\x01\x00\x04\x02\x00\x00\x00")
        assert (await client.rest())[0] == 21  # an alert
        assert "SSL_do_handshake() failed (SSL: " in running.log.text(7)

        client = await running.connect(LISTEN)
        await client.send(b"\x16\x03\x01")
        await client.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert "peer closed connection in SSL handshake while SSL" in running.log.text(7)

        client = await running.connect(LISTEN)
        start = trio.current_time()
        await client.send(b"\x16\x03")
        assert await client.rest() == b""
        assert trio.current_time() - start == pytest.approx(7, abs=1)
        assert "client timed out (110: Connection timed out) while SSL" in running.log.text(7)


async def test_hello_one_byte_at_a_time(serve: Serve, files: Files) -> None:
    async with serve(conf(files, say("ngx.say('slow')"))) as running:
        plain = await running.connect(LISTEN, slow=True)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = files.context().wrap_bio(incoming, outgoing, server_hostname="a.test")
        done = False
        while not done:
            try:
                tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                pass
            for byte in outgoing.read():
                await plain.send(bytes((byte,)))
            if not done:
                incoming.write(await plain.stream.receive_some())


async def test_clients_that_leave(serve: Serve, files: Files, autojump_clock: object) -> None:
    locations = "lua_check_client_abort on;" + say(
        "ngx.on_abort(function() ngx.log(ngx.WARN, 'left') ngx.exit(499) end) ngx.sleep(1000)"
    )
    async with serve(conf(files, locations)) as running:
        client = await connect(running, files.context())
        await client.send(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        await client.stream.aclose()
        while running.worker.connections:
            await trio.testing.wait_all_tasks_blocked()
        assert trio.current_time() < 500
        assert "left" in running.log.text(5)


async def test_raw_socket(serve: Serve, files: Files) -> None:
    locations = say(
        """local sock = ngx.req.socket(true)
        sock:send("hi\\n")
        sock:send("you said " .. sock:receive() .. "\\n")"""
    )
    async with serve(conf(files, locations)) as running:
        client = await connect(running, files.context())
        await client.send(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        await client.send(b"nothing\n")
        assert await client.rest() == b"hi\nyou said nothing\n"


async def test_stream_that_is_encrypted_already(files: Files) -> None:
    from serving import MemoryLog

    from trio_lua.server.worker import Worker

    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(files.folder / "a.test.pem", files.folder / "a.test.key")
    locations = say("ngx.say(ngx.var.scheme, ngx.var.ssl_protocol)")
    for config in (
        conf(files, locations),
        loads(
            f"events {{}} http {{ access_log off; server {{ listen 127.0.0.1:443; {locations} }} }}"
        ),
    ):
        worker = Worker(config, error_log=MemoryLog())
        async with trio.open_nursery() as nursery:
            await nursery.start(worker.run, [])
            ours, theirs = trio.testing.memory_stream_pair()
            encrypted = trio.SSLStream(theirs, server_context, server_side=True)
            nursery.start_soon(worker.serve_stream, encrypted, LISTEN)
            stream = trio.SSLStream(ours, files.context(), server_hostname="a.test")
            client = Client(stream)  # type: ignore[arg-type]
            assert (await client.get("/"))[2] == b"httpsTLSv1.3\n"
            nursery.cancel_scope.cancel()


def certificate_code(files: Files, name: str, *, der: bool) -> str:
    """Lua code that answers with a certificate."""
    chain = (files.folder / f"{name}.pem").read_text()
    key = (files.folder / f"{name}.key").read_text()
    if der:
        return f"""local ssl = require "ngx.ssl"
            assert(ssl.clear_certs())
            assert(ssl.set_der_cert(assert(ssl.cert_pem_to_der([[{chain}]]))))
            assert(ssl.set_der_priv_key(assert(ssl.priv_key_pem_to_der([[{key}]]))))"""
    return f"""local ssl = require "ngx.ssl"
        assert(ssl.clear_certs())
        assert(ssl.set_cert(assert(ssl.parse_pem_cert([[{chain}]]))))
        assert(ssl.set_priv_key(assert(ssl.parse_pem_priv_key([[{key}]]))))"""


@pytest.mark.parametrize("der", [True, False])
async def test_certificate_by_lua(
    serve: Serve, files: Files, der: bool, autojump_clock: object
) -> None:
    code = f"""
        local ssl = require "ngx.ssl"
        ngx.log(ngx.WARN, ngx.get_phase(), " ", ssl.server_name(), " ", ssl.get_tls1_version_str())
        ngx.sleep(1)
        if ssl.server_name() == "b.test" then
            {certificate_code(files, "b.test", der=der)}
        end
    """
    more = f"ssl_certificate_by_lua_block {{ {code} }}"
    locations = say("ngx.say(require('ngx.ssl').server_name(), ngx.var.ssl_session_reused)")
    async with serve(conf(files, locations, more)) as running:
        for name in ("a.test", "b.test", "b.test"):
            client = await connect(running, files.context(), name)
            assert (await client.get("/"))[2] == f"{name}.\n".encode()
        log = running.log.text(5)
        assert "ssl_cert b.test TLSv1.3, context: ssl_certificate_by_lua*, client: " in log


async def test_client_hello_by_lua(serve: Serve, files: Files, autojump_clock: object) -> None:
    code = """
        local hello = require "ngx.ssl.clienthello"
        ngx.sleep(1)
        local name = hello.get_client_hello_server_name()
        assert(#hello.get_client_hello_ext(0) == #name + 5)
        assert(hello.get_client_hello_ext(12345) == nil)
        assert(#hello.get_client_hello_ext_present() > 3)
        assert(#hello.get_client_hello_ciphers() > 3)
        ngx.log(ngx.WARN, table.concat(hello.get_supported_versions(), " "))
        if name == "a.test" then
            hello.set_protocols({ "TLSv1.2" })
        else
            ngx.exit(ngx.ERROR)
        end
    """
    more = f"ssl_client_hello_by_lua_block {{ {code} }}"
    locations = say("ngx.say(ngx.var.ssl_protocol)")
    async with serve(conf(files, locations, more)) as running:
        # some systems' Pythons offer older versions by themselves
        context = files.context(minimum_version=ssl.TLSVersion.TLSv1_2)
        client = await connect(running, context)
        assert (await client.get("/"))[2] == b"TLSv1.2\n"
        assert "TLSv1.3 TLSv1.2, context: ssl_client_hello_by_lua*" in running.log.text(5)
        with pytest.raises(trio.BrokenResourceError):
            await connect(running, files.context(), "b.test")
        await trio.testing.wait_all_tasks_blocked()
        assert "SSL_do_handshake() failed (SSL: callback failed)" in running.log.text(7)


@pytest.mark.parametrize(
    ("code", "level", "message"),
    [
        ("ngx.exit(ngx.ERROR)", 7, "SSL_do_handshake() failed (SSL: cert cb error) while SSL"),
        ("error('no')", 4, "aborted: runtime error: ssl_certificate_by_lua("),
        ("not lua", 4, "failed to load inlined Lua code: "),
        ("ngx.say('x')", 4, "API disabled in the context of ssl_certificate_by_lua*"),
        ("return ngx.var.uri", 4, "API disabled in the current context"),
        ("require('ngx.ssl').clear_certs()", 7, "SSL_do_handshake() failed (SSL: no "),
        (
            """local ssl = require "ngx.ssl"
            ssl.clear_certs()
            assert(not ssl.set_der_cert("garbage"))
            assert(not ssl.set_der_priv_key("garbage"))
            ssl.set_cert(ssl.parse_pem_cert("-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----"))
            ssl.set_priv_key(ssl.parse_pem_priv_key("-----BEGIN PRIVATE KEY-----\\nAAAA\\n-----END PRIVATE KEY-----"))
            """,
            7,
            "SSL_do_handshake() failed (SSL: ",
        ),
    ],
)
async def test_certificates_that_lua_does_not_give(
    serve: Serve, files: Files, code: str, level: int, message: str
) -> None:
    async with serve(conf(files, "", f"ssl_certificate_by_lua_block {{ {code} }}")) as running:
        with pytest.raises(trio.BrokenResourceError):
            await connect(running, files.context())
        await trio.testing.wait_all_tasks_blocked()
        assert message in running.log.text(level)


async def test_server_without_a_certificate_handler(serve: Serve, files: Files) -> None:
    servers = r"server { listen 127.0.0.1:443 ssl; server_name ~other\.test; }"
    more = "ssl_certificate_by_lua_block { }"
    async with serve(conf(files, "", more, servers)) as running:
        with pytest.raises(trio.BrokenResourceError):
            await connect(running, files.context(), "other.test")
        await trio.testing.wait_all_tasks_blocked()
        assert r"no ssl_certificate_by_lua* defined in server ~other\.test" in running.log.text(2)


async def test_client_certificates_by_lua(serve: Serve, files: Files) -> None:
    authority = (files.folder / "ca.pem").read_text()
    code = f"""local ssl = require "ngx.ssl"
        assert(ssl.verify_client(assert(ssl.parse_pem_cert([[{authority}]])), 1))"""
    more = f"ssl_certificate_by_lua_block {{ {code} }}"
    locations = say("ngx.say(ngx.var.ssl_client_verify)")
    async with serve(conf(files, locations, more)) as running:
        client = await connect(running, files.context(certificate=True))
        assert (await client.get("/"))[2] == b"SUCCESS\n"
        client = await connect(running, files.context())
        assert (await client.get("/"))[2] == b"NONE\n"


async def test_client_that_leaves_a_handler(
    serve: Serve, files: Files, autojump_clock: object
) -> None:
    more = """client_header_timeout 5s;
        ssl_certificate_by_lua_block { ngx.thread.spawn(ngx.sleep, 1000) ngx.sleep(1000) }"""
    async with serve(conf(files, "", more)) as running:
        with pytest.raises(trio.BrokenResourceError):
            await connect(running, files.context())
        assert "client timed out (110: Connection timed out) while SSL" in running.log.text(7)


async def test_sessions_by_lua(serve: Serve, files: Files) -> None:
    http = """
        ssl_session_fetch_by_lua_block {
            local session = require "ngx.ssl.session"
            ngx.sleep(0)
            ngx.log(ngx.WARN, ngx.get_phase(), " ", #session.get_session_id())
            ngx.log(ngx.WARN, session.set_serialized_session("x"))
        }
        ssl_session_store_by_lua_block {
            local session = require "ngx.ssl.session"
            ngx.log(ngx.WARN, ngx.get_phase(), " ", #session.get_session_id(), session.get_serialized_session())
            error("stored")
        }"""
    text = f"""events {{}} http {{ access_log off; {http} server {{
        listen 127.0.0.1:443 ssl; server_name a.test; {files.certificate("a.test")} ssl_session_tickets off;
    }} }}"""
    async with serve(loads(text)) as running:
        context = files.context(maximum_version=ssl.TLSVersion.TLSv1_2)
        session = None
        for _ in range(2):
            plain = await running.connect(LISTEN)
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = context.wrap_bio(incoming, outgoing, server_hostname="a.test", session=session)
            done = False
            while not done:
                try:
                    tls.do_handshake()
                    done = True
                except ssl.SSLWantReadError:
                    await plain.send(outgoing.read())
                    incoming.write(await plain.stream.receive_some())
            session = tls.session
        lines = [
            line for line in running.log.text(5).splitlines() if "[lua]" in line or "failed" in line
        ]
        assert "ssl_session_store 64nilnot supported by Python's ssl module" in lines[0]
        assert "failed to run session_store_by_lua*: ssl_session_store_by_lua(" in lines[1]
        assert ": stored" in lines[1]
        assert "ssl_session_fetch 64, context: ssl_session_fetch_by_lua*" in lines[2]
        assert len(lines) == 4
