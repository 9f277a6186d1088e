"""The same configuration and the same bytes for nginx and for trio_lua: the same answers and log lines.

``against_nginx.conf`` holds the locations; each case here is what a client sends on one connection. Responses are
compared byte for byte but for dates and version numbers, error logs but for times, process ids and the numbers of
connections.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

LIMIT = 15.0
MODULES = Path("/usr/lib/nginx/modules")
NEEDED = ("ndk_http_module.so", "ngx_http_lua_module.so")
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")

pytestmark = pytest.mark.skipif(
    NGINX is None or not all((MODULES / name).exists() for name in NEEDED),
    reason="nginx with lua-nginx-module is not installed",
)


def get(
    target: str, *headers: str, method: str = "GET", body: str = "", version: str = "1.1"
) -> bytes:
    """One request; the connection ends behind it."""
    lines = [f"{method} {target} HTTP/{version}", "Host: main", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    if version == "1.1":
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def raw(*lines: str) -> bytes:
    """Lines as they are, and the empty line."""
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1")


def words(text: str) -> list[str]:
    return text.split()


SIMPLE = words("""
/hello /text /nothing /values /flush /eof /first_flush /long /length /length_first /sleep /unchunked
/status/200 /status/201 /status/204 /status/304 /status/404 /status/500 /status/599 /status/999 /status/302
/status_empty/200 /status_empty/204 /status_empty/304 /status_empty/404 /status_empty/503
/status_values /headers /resp_headers /no_type /no_default /charset /last_modified
/add_header?s=200&a=1 /add_header?s=404&a=1 /add_header?s=204 /expires
/exit_pcall /exit_thread /exit_coroutine /say_rewrite /say_access /say_rewrite_exit /returns
/order /ctx /ctx_exec /filter_drop /filter_end /filter_table /filter_error /filter_throw /filter_page
/set_error /set_args?a=x /log_error /log_bytes
/throw_string /throw_level0 /throw_table /throw_nil /throw_number /throw_boolean /throw_tostring /throw_index
/throw_nested /throw_late /throw_flushed /throw_rewrite /throw_access /throw_coroutine /throw_wrap /throw_thread
/syntax /syntax_rewrite /syntax_file /missing_file /missing_rewrite /file /throw_file /require /require_missing
/disabled /logging /logging_long /global
/args?a=1&b=2&a=3&c&d=&=x&%61b=%20+ /args /args? /args?a=%zz&a=%4
/uri /uri/a%20b /uri//a/./b/../c /uri/%2e%2e/hello /uri/a%2Fb /uri/%00 /uri/../../x /uri/?x=%41 /uri/a;b /uri/%E4
/uri/a%5Cb /uri/a#frag /uri?a#b
/request /set_header /body /body_unread /body_needed /body_socket /vars
/redirect /redirect?s=301 /redirect?s=303 /redirect?s=307 /redirect?s=308 /redirect?to=http://x/ /redirect?s=200
/redirect?to=rel /redirect_bad /redirect_access
/exec /exec_named /exec_no_name /exec_late /exec_loop /set_uri_jump /set_uri /set_uri_loop /internal /to_internal
/rw/last/a /rw/last/a?old=2 /rw/noargs/a?old=2 /rw/break/x /rw/301 /rw/301?a=b /rw/302 /rw/302?a=b /rw/loop
/rw/z?x=1 /rw/z?y=5
/ret200 /ret204 /ret301 /ret302 /ret404 /ret418 /ret444 /ret_html
/ep/missing /ep/forbidden /ep/throws /ep/gone /ep/pay /ep/status /ep/status_only /ep/405 /rec/x /nonrec /nonrec_rec /ep_static
/ep_filter
/deny /any /any?ok=1 /any_401 /any_401?ok=1 /all /all?ok=1
/a.txt /a.html /dir /dir/ /dir/first.html /none /none/ /index/ /index /files/ /files/a.txt /files/../a.txt /empty.txt
/unreadable.txt /noext /a.json /a.txt/ /index
/try /try_last /try_named /try_status /try_lua /no_range/a.txt /etag_off/a.txt /static_lua/a.txt
/threads /misc /shared_dict
""")

EXITS = (
    0,
    -5,
    -1,
    200,
    201,
    204,
    301,
    302,
    304,
    400,
    403,
    404,
    405,
    408,
    410,
    413,
    416,
    429,
    444,
    494,
    499,
)
EXITS += (500, 502, 503, 504, 507, 599, -2, -4)

CASES: dict[str, bytes] = {path: get(path) for path in SIMPLE}
CASES |= {
    f"exit {phase} {code}": get(f"/exit_{phase}/{code}")
    for phase in ("rewrite", "access", "content", "late", "flushed", "filter")
    for code in EXITS
    # declining content leaves the request hanging until the client goes
    if code != -5 or phase in ("rewrite", "access")
    if phase != "filter" or code in (0, 200, 204, 302, 404, 500, 503)
}
CASES |= {
    f"exit {kind} {status} {code}": get(f"/exit_{kind}/{status}/{code}")
    for kind in ("status", "status_late")
    for status, code in ((404, 200), (404, 404), (201, 0), (500, 204), (404, 503), (302, 302))
}
CASES |= {
    f"HEAD {path}": get(path, method="HEAD")
    for path in words("""/hello /long /eof /flush /nothing /a.txt /none /ret200 /ret404 /ret204 /redirect /throw_string /length
    /status/404 /dir /exit_content/404 /exit_content/200 /log_bytes /ep/missing /filter_table""")
}
CASES |= {
    f"1.0 {path}": get(path, version="1.0")
    for path in words("""/hello /long /eof /flush /nothing /a.txt /none /ret200 /ret404 /throw_string /throw_late /throw_flushed
    /length /unbuffered10 /sleep /exit_late/404 /exit_late/200 /filter_table /filter_end /status/404 /redirect
    /exit_status_late/404/200 /log_bytes /headers /first_flush /say_rewrite /say_access /say_rewrite_exit /exec_late""")
}
CASES |= {
    # ---- methods
    **{
        f"{method} {path}": get(path, method=method)
        for method in (
            "POST",
            "PUT",
            "DELETE",
            "OPTIONS",
            "PATCH",
            "FOO",
            "foo",
            "PROPFIND",
            "TRACE",
            "CONNECT",
        )
        for path in ("/request", "/a.txt", "/ep/missing", "/ret200")
    },
    "rewrite PUT": get("/rw/q", method="PUT"),
    # ---- proxying
    **{
        f"proxied {method} {path}": get(path, method=method)
        for method in ("GET", "HEAD")
        for path in words(
            "/proxied/hello /proxied/ret404 /proxied/ret204 /proxied/redirect /proxied/long /proxied?a=b"
        )
    },
    # ---- conditional requests and ranges
    "since": get("/a.txt", "If-Modified-Since: Wed, 18 Nov 2020 10:00:00 GMT"),
    "since other": get("/a.txt", "If-Modified-Since: Wed, 18 Nov 2020 10:00:01 GMT"),
    "since nonsense": get("/a.txt", "If-Modified-Since: yesterday"),
    "since before": get("/etag_off/a.txt", "If-Modified-Since: Wed, 18 Nov 2020 10:00:01 GMT"),
    "since lua": get("/last_modified", "If-Modified-Since: Sun, 09 Sep 2001 01:46:40 GMT"),
    "since lua other": get("/last_modified", "If-Modified-Since: Sun, 09 Sep 2001 01:46:41 GMT"),
    "unmodified": get("/a.txt", "If-Unmodified-Since: Wed, 18 Nov 2020 09:00:00 GMT"),
    "etag": get("/a.txt", 'If-None-Match: "5fb4f0a0-1a"'),
    "etag weak": get("/a.txt", 'If-None-Match: W/"5fb4f0a0-1a", "x"'),
    "etag other": get("/a.txt", 'If-None-Match: "x"'),
    "etag any": get("/a.txt", "If-None-Match: *"),
    "match": get("/a.txt", 'If-Match: "x"'),
    **{
        f"range {value}": get("/a.txt", f"Range: {value}")
        for value in (
            "bytes=0-3",
            "bytes=5-",
            "bytes=-4",
            "bytes=0-0,2-3",
            "bytes=99-",
            "bytes=3-1",
            "bytes=a-b",
            "chars=0-1",
            "bytes=0-99",
            "bytes=-0",
            "bytes=-99",
            "bytes=",
            "bytes=0-1,",
            "bytes= 0-1",
            "bytes=0-1, 99-",
        )
    },
    "range head": get("/a.txt", "Range: bytes=0-3", method="HEAD"),
    "range off": get("/no_range/a.txt", "Range: bytes=0-3"),
    "range lua": get("/hello", "Range: bytes=0-3"),
    "range lua body": get("/static_lua/a.txt", "Range: bytes=0-3"),
    "range if": get("/a.txt", "Range: bytes=0-3", 'If-Range: "5fb4f0a0-1a"'),
    "range if other": get("/a.txt", "Range: bytes=0-3", 'If-Range: "x"'),
    # ---- request headers
    "headers": get(
        "/request",
        "X-A: 1",
        "X-A: 2",
        "x_under: u",
        "Cookie: a=1; b=2",
        "Cookie: c=3",
        "X-Empty:",
        "X-S:  v",
    ),
    "header cases": get(
        "/request", "x-a: lower", "X-FORWARDED-FOR: a", "X-Forwarded-For: b", "Accept: */*"
    ),
    "set headers": get("/set_header", "X-A: 1", "User-Agent: z"),
    "header bytes": get("/request", "X-A: \u00e9", "X!b: 1", "X.c: 2"),
    # ---- bodies
    "body": get("/body", method="POST", body="a=1&b=%20&c"),
    "body put": get("/body", method="PUT", body="x"),
    "body get": get("/body", body="x=y"),
    "body too large": get("/body", method="POST", body="x" * 101),
    "body unread": get("/body_unread", method="POST", body="x=y"),
    "body in file": get("/body_file", method="POST", body="0123456789" * 200),
    "body in memory": get("/body_file", method="POST", body="01234"),
    "body needed": get("/body_needed", method="POST", body="abc"),
    "body needed rewrite": get("/body_needed_rewrite", method="POST", body="abc"),
    "body needed access": get("/body_needed_access", method="POST", body="abc"),
    "body socket": get("/body_socket", method="POST", body="abcdef"),
    "body static": get("/a.txt", method="POST", body="abc"),
    "chunked": raw(
        "POST /body HTTP/1.1", "Host: main", "Connection: close", "Transfer-Encoding: chunked"
    )
    + b"3\r\na=1\r\n4;x=y\r\n&b=2\r\n0\r\nT: v\r\n\r\n",
    "chunked too large": raw("POST /body HTTP/1.1", "Host: main", "Transfer-Encoding: chunked")
    + b"65\r\n"
    + b"x" * 101
    + b"\r\n0\r\n\r\n",
    "chunked broken": raw("POST /body HTTP/1.1", "Host: main", "Transfer-Encoding: chunked")
    + b"3\r\nabcd\r\n0\r\n\r\n",
    "chunked size": raw("POST /body HTTP/1.1", "Host: main", "Transfer-Encoding: chunked")
    + b"zz\r\nabcd\r\n0\r\n\r\n",
    "chunked socket": raw(
        "POST /body_socket HTTP/1.1",
        "Host: main",
        "Connection: close",
        "Transfer-Encoding: chunked",
    )
    + b"3\r\nabc\r\n0\r\n\r\n",
    "expect": get("/body", "Expect: 100-continue", method="POST", body="x=1"),
    "expect unread": get("/hello", "Expect: 100-continue", method="POST", body="x=1"),
    "expect other": get("/body", "Expect: 200-ok", method="POST", body="x=1"),
    # ---- several requests on a connection
    "keep-alive": raw("GET /hello HTTP/1.1", "Host: main") * 2 + get("/a.txt"),
    "pipelined slow": raw("GET /sleep HTTP/1.1", "Host: main")
    + raw("GET /hello HTTP/1.1", "Host: main")
    + get("/sleep"),
    "keep-alive page": raw("GET /none HTTP/1.1", "Host: main") + get("/hello"),
    "keep-alive error": raw("GET /throw_string HTTP/1.1", "Host: main") + get("/hello"),
    "keep-alive body": raw("POST /hello HTTP/1.1", "Host: main", "Content-Length: 3")
    + b"abc"
    + get("/hello"),
    "keep-alive body page": raw("POST /none HTTP/1.1", "Host: main", "Content-Length: 3")
    + b"abc"
    + get("/hello"),
    "keep-alive 1.0": raw("GET /hello HTTP/1.0", "Connection: keep-alive") + get("/hello"),
    "keep-alive 1.0 chunked": raw("GET /eof HTTP/1.0", "Connection: Keep-Alive") + get("/hello"),
    "keep-alive head": raw("HEAD /hello HTTP/1.1", "Host: main") + get("/hello"),
    "keep-alive 204": raw("GET /ret204 HTTP/1.1", "Host: main") + get("/hello"),
    "keep-alive late error": raw("GET /throw_flushed HTTP/1.1", "Host: main") + get("/hello"),
    "keep-alive unchunked": raw("GET /unchunked HTTP/1.1", "Host: main") + get("/hello"),
    "keep-alive 413": raw("POST /body HTTP/1.1", "Host: main", "Content-Length: 101")
    + b"x" * 101
    + get("/hello"),
    "empty lines": b"\r\n\n\r\n" + get("/hello"),
    "keepalive_requests": raw("GET / HTTP/1.1", "Host: small") * 3,
    # ---- servers
    **{
        f"host {host}": raw("GET / HTTP/1.1", f"Host: {host}", "Connection: close")
        for host in (
            "other",
            "OTHER",
            "other:99",
            "other.",
            "a.wild.test",
            "a.b.wild.test",
            "wild.test",
            "x.re.test",
            "X.RE.test",
            "x.y.re.test",
            "unknown",
            "",
            "a b",
            "a/b",
            "[::1]",
            "a..b",
            "other:x",
            "a_b",
            "..",
            "\u00e9",
            "a@b",
            "a,b",
        )
    },
    "host absent": raw("GET / HTTP/1.1", "Connection: close"),
    "host absent 1.0": raw("GET /request HTTP/1.0"),
    "host twice": raw("GET / HTTP/1.1", "Host: main", "Host: other", "Connection: close"),
    "host in target": raw("GET http://other/x?y HTTP/1.1", "Host: main", "Connection: close"),
    "host in target only": raw("GET http://other HTTP/1.1", "Connection: close"),
    "server rewrite": raw("GET /old HTTP/1.1", "Host: server_steps", "Connection: close"),
    "server if": raw("GET /old?stop=1 HTTP/1.1", "Host: server_steps", "Connection: close"),
    "server inherits": raw("GET /new HTTP/1.1", "Host: server_steps", "Connection: close"),
    "server overridden": raw("GET /x HTTP/1.1", "Host: server_steps", "Connection: close"),
    "server static": raw("GET /static/ HTTP/1.1", "Host: server_steps", "Connection: close"),
    "small": raw("GET / HTTP/1.1", "Host: small", "X_Under: yes", "Connection: close"),
    "small page": raw("GET /missing HTTP/1.1", "Host: small", "Connection: close"),
    # ---- what is wrong
    "long target": get("/" + "a" * 9000),
    "long header": get("/hello", "X: " + "a" * 9000),
    "many headers": get("/hello", *(f"X-{i}: " + "a" * 4000 for i in range(12))),
    "long target that fits": get("/ret404?" + "a" * 8000),
    "no version": b"GET /hello\r\n",
    "no version post": b"POST /hello\r\n\r\n",
    "version 2": raw("GET /hello HTTP/2.0", "Host: main"),
    "version 1.2": raw("GET /hello HTTP/1.2", "Host: main", "Connection: close"),
    "version 0.9": raw("GET /hello HTTP/0.9", "Host: main"),
    "version text": raw("GET /hello HTTP/x", "Host: main"),
    "lower-case method": raw("get /hello HTTP/1.1", "Host: main"),
    "no target": raw("GET  HTTP/1.1", "Host: main"),
    "relative target": raw("GET hello HTTP/1.1", "Host: main"),
    "star": raw("OPTIONS * HTTP/1.1", "Host: main"),
    "garbage": b"\x16\x03\x01\x00\xa5\x01\x00\x00",
    "garbage line": b"hello\r\n\r\n",
    "nul in target": b"GET /a\x00b HTTP/1.1\r\nHost: main\r\n\r\n",
    "nul in header": b"GET /hello HTTP/1.1\r\nHost: main\r\nX: a\x00b\r\n\r\n",
    "no colon": raw("GET /hello HTTP/1.1", "Host: main", "nonsense", "Connection: close"),
    "bare line feeds": b"GET /hello HTTP/1.1\nHost: main\nConnection: close\n\n",
    "length and chunked": raw(
        "POST /body HTTP/1.1", "Host: main", "Content-Length: 3", "Transfer-Encoding: chunked"
    )
    + b"0\r\n\r\n",
    "length twice": raw(
        "POST /body HTTP/1.1", "Host: main", "Content-Length: 3", "Content-Length: 3"
    )
    + b"abc",
    "length text": raw("POST /body HTTP/1.1", "Host: main", "Content-Length: x"),
    "length negative": raw("POST /body HTTP/1.1", "Host: main", "Content-Length: -1"),
    "length huge": raw(
        "POST /body HTTP/1.1", "Host: main", "Content-Length: 99999999999999999999999"
    ),
    "length list": raw("POST /body HTTP/1.1", "Host: main", "Content-Length: 5,5") + b"abcde",
    "chunked 1.0": raw("POST /body HTTP/1.0", "Host: main", "Transfer-Encoding: chunked")
    + b"0\r\n\r\n",
    "coding unknown": raw("POST /body HTTP/1.1", "Host: main", "Transfer-Encoding: gzip"),
    "coding twice": raw("POST /body HTTP/1.1", "Host: main", "Transfer-Encoding: gzip, chunked"),
}

#: Answers that differ on purpose, and why.
DIFFERENT = {
    **dict.fromkeys(
        ("/length", "/length_first", "HEAD /length", "1.0 /length"),
        "Content-Length has one place and one spelling, whoever sets it",
    ),
    **dict.fromkeys(
        ("/static_lua/a.txt", "range lua body"), "ranges are cut before Lua's filters see the body"
    ),
    "1.0 /filter_end": "no Content-Length when a body filter may change the length",
    "chunked too large": "nginx goes on with the rest of the body as if it were a request",
    **dict.fromkeys(
        ("expect", "expect unread"), "no 100 Continue when the body is here or nobody wants it"
    ),
    **dict.fromkeys(
        ("host other:x", "host \u00e9", "host a@b"), "bytes that cannot stand in a host are refused"
    ),
    "host absent 1.0": "nginx's raw_header(true) gives a blank for an empty head",
    "version 1.2": "versions of HTTP that nobody has defined are refused",
    "no colon": "a header line without a colon is refused",
}

#: Equal answers whose log lines differ, and why.
OTHER_LOG = {
    "/filter_end": "nginx keeps the filter's context after an eof that it sets",
    "/filter_throw": "nginx runs the filter again after its error",
    "/global": "handlers have globals of their own unless lua_shared_globals is on",
    **{
        f"exit {phase} {code}": "a traceback of resty.core's files, which is C's here"
        for phase in ("rewrite", "access", "content", "late", "flushed")
        for code in (-2, -4)
    },
    **dict.fromkeys(
        ("headers", "header bytes"), "header lines that are left out are not logged one by one"
    ),
    **dict.fromkeys(
        ("chunked broken", "chunked size"),
        "nginx goes on with the rest of the body as if it were a request",
    ),
    "host in target only": "the server is the default one until the head is complete",
    "many headers": "nginx shows as much of the line as one of its buffers happens to hold",
}


class Server:
    """A running server and its error log."""

    def __init__(self, folder: Path, conf: str, command: list[str]) -> None:
        self.folder = folder
        self.sock = f"{folder}/s.sock"
        for name in ("conf", "logs", "temp"):
            (folder / name).mkdir(parents=True)
        (folder / "conf" / "nginx.conf").write_text(conf)
        log = folder / "logs" / "error.log"
        self.popen = subprocess.Popen(
            [*command, "-e", str(log), "-p", f"{folder}/", "-c", f"{folder}/conf/nginx.conf"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + LIMIT
        while not self._answers():
            assert self.popen.poll() is None, self.popen.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        self.log = log.open(encoding="utf-8", errors="replace")
        self.log.read()

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(LIMIT)
            try:
                sock.connect(self.sock)
                # a whole request: its end is not a line of the log that comes later
                sock.sendall(b"GET /hello HTTP/1.0\r\n\r\n")
                while sock.recv(65536):
                    pass
            except OSError:
                return False
            return True

    def ask(self, data: bytes) -> bytes:
        """Send all of it, and return all that comes up to the end of the connection."""
        received = b""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(LIMIT)
            sock.connect(self.sock)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                sock.sendall(data)
            with contextlib.suppress(ConnectionResetError):
                while chunk := sock.recv(65536):
                    received += chunk
        return received

    def stop(self) -> None:
        self.popen.terminate()
        self.popen.communicate(timeout=LIMIT)
        self.log.close()


Pair = tuple[Server, Server]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """nginx and trio_lua with the same configuration."""
    shared = tmp_path_factory.mktemp("shared")
    html = shared / "html"
    (html / "dir").mkdir(parents=True)
    (html / "a.txt").write_text("abcdefghijklmnopqrstuvwxyz")
    (html / "a.html").write_text("<p>html</p>")
    (html / "a.json").write_text("{}")
    (html / "noext").write_text("no extension")
    (html / "empty.txt").write_text("")
    (html / "dir" / "first.html").write_text("first")
    for path in html.rglob("*"):
        os.utime(path, (1605693600, 1605693600))
    (shared / "good.lua").write_text("ngx.say('from a file')\n")
    (shared / "broken.lua").write_text("\nlocal x = = 1\n")
    (shared / "throws.lua").write_text("local function f()\n    error('thrown')\nend\nf()\n")
    (shared / "module.lua").write_text("return { name = 'a module' }\n")
    template = Path(__file__).with_name("against_nginx.conf").read_text()
    assert NGINX is not None
    servers = []
    for name, command, load in (
        ("a", [NGINX], " ".join(f"load_module {MODULES}/{name};" for name in NEEDED)),
        ("b", [sys.executable, "-m", "trio_lua.cli.nginx"], "# nothing to load"),
    ):
        folder = shared / name
        conf = template.replace("@load@", load)
        conf = conf.replace("@prefix@", str(folder)).replace("@shared@", str(shared))
        servers.append(Server(folder, conf, command))
    yield servers[0], servers[1]
    for server in servers:
        server.stop()


def plain(server: Server, data: bytes) -> str:
    """A response without what is different at each time."""
    text = data.decode("latin-1")
    text = re.sub(r"(?m)^(?:Date|Expires): .*\r\n", "", text)
    text = re.sub(r"(?m)^(Server: \w+)/[\d.]+", r"\1", text)
    text = re.sub(r"<center>(\w+)/[\d.]+</center>", r"<center>\1</center>", text)
    return text.replace(f"{server.folder}/", "PREFIX/")


def own_records(text: str, sent: str) -> str:
    """Log records but those of other requests, which a server may have written late."""
    records = re.split(r"(?m)^(?=\d{4}/\d\d/\d\d \d\d:\d\d:\d\d )", text)
    return "".join(
        record
        for record in records
        if (about := re.search(r'request: "([^"]*)"', record)) is None or about[1] in sent
    )


def plain_log(server: Server, text: str) -> str:
    """Log lines without time, process and connection."""
    text = re.sub(r"(?m)^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d (\[\w*\]) \d+#\d+: (\*\d+ )?", r"\1 ", text)
    text = re.sub(r"(temporary file )\S+/\w+,", r"\1NAME,", text)
    return text.replace(f"{server.folder}/", "PREFIX/")


@pytest.mark.parametrize("name", CASES)
def test_same_answer_and_log(pair: Pair, name: str, request: pytest.FixtureRequest) -> None:
    if name in DIFFERENT:
        request.applymarker(pytest.mark.xfail(reason=DIFFERENT[name]))
    for server in pair:
        server.log.read()
    expected, found = (plain(server, server.ask(CASES[name])) for server in pair)
    assert [server.popen.poll() for server in pair] == [None, None]
    assert found == expected
    if name in OTHER_LOG:
        return
    logs = ["", ""]
    # a server may write its lines when the client has gone
    deadline = time.monotonic() + 2
    while True:
        for i, server in enumerate(pair):
            logs[i] += server.log.read()
        expected_log, found_log = (
            plain_log(server, own_records(text, CASES[name].decode("latin-1")))
            for server, text in zip(pair, logs, strict=True)
        )
        if expected_log == found_log or time.monotonic() > deadline:
            break
        time.sleep(0.01)
    assert found_log == expected_log
