"""One data block against a server in memory: requests as it says, and what does not agree."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import h11
import trio
import trio.testing

from trio_lua.about import NGINX_VERSION
from trio_lua.config.model import Listen
from trio_lua.errors import LuaError, TrioLuaError
from trio_lua.log.error_log import LEVELS
from trio_lua.testing.blocks.network import BlockNetwork
from trio_lua.testing.blocks.parse import Block, NeedsPerl, TestFile
from trio_lua.testing.blocks.perl import literal, pattern
from trio_lua.testing.blocks.response import parsed
from trio_lua.testing.clock import LuaClock
from trio_lua.testing.log import LogRecord, LogRecords
from trio_lua.testing.network import LuaNetwork
from trio_lua.testing.network.peers import silent
from trio_lua.testing.run import alone
from trio_lua.testing.server import LuaServer, open_server

__all__ = ["BlockFailure", "Skipped", "run_block"]

#: Where a block's server listens; nobody else can connect there.
_PORT = 1984

#: Seconds until a request is given up, unless the block has a ``timeout``.
_TIMEOUT = 3.0

_RECEIVE_SIZE = 65536

#: Servers that suites expect on this machine, and the variables with their ports.
_MEMCACHED = ("TEST_NGINX_MEMCACHED_PORT", 11211)
_REDIS = ("TEST_NGINX_REDIS_PORT", 6379)

#: An address whose packets the machines of OpenResty's suites drop.
_DROPPED = ("127.0.0.2", 12345)

#: What is of no importance here, or about tools that are not there.
_IGNORED = re.compile(
    r"stap\d*|stap_out\d*|stap_out_(un)?like|no_check_leak|no_check_error_log|ONLY|LAST"
)

_KNOWN = frozenset(
    [
        "config",
        "http_config",
        "main_config",
        "post_main_config",
        "user_files",
        "log_level",
        "request",
        "more_headers",
        "raw_request",
        "pipelined_requests",
        "timeout",
        "wait",
        "abort",
        "ignore_response",
        "ignore_response_body",
        "error_code",
        "error_code_like",
        "response_body",
        "response_body_like",
        "response_body_unlike",
        "response_headers",
        "response_headers_like",
        "raw_response_headers_like",
        "raw_response_headers_unlike",
        "error_log",
        "no_error_log",
        "grep_error_log",
        "grep_error_log_out",
        "must_die",
        "SKIP",
        "skip_nginx",
        "shutdown_error_log",
        "no_shutdown_error_log",
        "tcp_listen",
        "tcp_reply",
        "tcp_no_close",
        "udp_listen",
        "udp_reply",
        "server_name",
    ]
)


class BlockFailure(AssertionError):
    """A block did not do what it says."""


class Skipped(Exception):
    """A block does not want to run, or cannot."""


class _Run:
    """A block that runs."""

    def __init__(self, file: TestFile, block: Block, folder: Path, clock: LuaClock) -> None:
        self._block = block
        self._folder = folder
        self._clock = clock
        self._file = file
        self.failures: list[str] = []
        html = str(folder / "html")
        environment = {"TEST_NGINX_SERVER_PORT": str(_PORT), "TEST_NGINX_RESOLVER": "127.0.0.53"}
        expected = {name: str(port) for name, port in (_MEMCACHED, _REDIS)}
        self._environment = {**expected, **environment, **os.environ, "TEST_NGINX_HTML_DIR": html}
        self._variables = {**self._environment, "HtmlDir": html, "TEST_NGINX_HTML_DIR": html}
        self._assign(html)
        self.log = LogRecords(self._text("log_level") or file.log_level)

    def _assign(self, html: str) -> None:
        """Do what the program does in front of the blocks."""
        here = self._file.path.resolve().parent
        functions: dict[str, Callable[..., str]] = {
            "cwd": os.getcwd,
            "html_dir": lambda: html,
            "server_root": lambda: str(self._folder),
            "own_folder": lambda: str(here),
            # suites are run from the folder above their files
            "read_file": lambda name: (here.parent / name).read_bytes().decode("latin-1"),
        }
        for one in self._file.assignments:
            if one.environment and one.name in self._environment:
                continue
            try:
                value = one.value if one.plain else literal(one.value, self._variables, functions)
            except (NeedsPerl, OSError):
                # a block that uses it says so
                self._variables.pop(one.name, None)
                continue
            if isinstance(value, str):
                self._variables[one.name] = value
                if one.environment:
                    self._environment[one.name] = value

    # ----------------------------------------------------------------- sections

    def _value(self, name: str) -> Any:
        """A section's text, pattern or list, None without one."""
        section = self._block.sections.get(name)
        if section is None:
            return None
        value: Any = section.text
        for word in section.filters:
            if word == "eval":
                value = literal(value, self._variables)
            elif word in ("chomp", "chop"):
                value = value[:-1]
            else:
                raise Skipped(f"the filter {word} of {name}")
        return self._expanded(value)

    def _expanded(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._expanded(item) for item in value]
        if not isinstance(value, str):
            return value

        def known(match: re.Match[str]) -> str:
            if match[1] not in self._environment:
                raise Skipped(f"{match[0]} is not set in the environment")
            return self._environment[match[1]]

        return re.sub(r"\$(?:ENV\{)?(TEST_NGINX_\w+)\}?", known, value).replace(
            "$ServerPort", str(_PORT)
        )

    def _text(self, name: str) -> str:
        value = self._value(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise Skipped(f"{name} is no text")
        return value.strip() if name in ("log_level", "timeout", "wait") else value

    def _has(self, name: str) -> bool:
        return name in self._block.sections

    # ------------------------------------------------------------------ running

    async def run(self) -> None:
        self._check_wanted()
        if self._has("user_files"):
            self._write_files()
        (self._folder / "html").mkdir(exist_ok=True)
        index = self._folder / "html" / "index.html"
        if not index.exists():
            index.write_text(
                "<html><head><title>It works!</title></head><body>It works!</body></html>"
            )
            os.utime(index, (self._clock.epoch, self._clock.epoch))
        (self._folder / "logs").mkdir(exist_ok=True)
        network = BlockNetwork()
        conf = self._folder / "conf" / "nginx.conf"
        conf.parent.mkdir()
        conf.write_bytes(self._configuration().encode("latin-1"))
        try:
            async with open_server(
                conf,
                prefix=self._folder,
                log=self.log,
                clock=self._clock,
                network=network,
                product=f"nginx/{NGINX_VERSION}",
                allow_leaks=("threads", "timers", "sockets", "globals"),
                real_certificates=True,
            ) as server:
                if self._has("must_die"):
                    self.failures.append("the server has started")
                self._furnish(network, server)
                await self._talk(server)
                server.quit()
                server.abort()
        except Exception as error:
            cause = alone(error)
            if not self._has("must_die") or not isinstance(cause, TrioLuaError):
                raise
            self.log.log(4 if isinstance(cause, LuaError) else 1, str(cause).encode())
            self._check_log()
        self._check_patterns("shutdown_error_log", "no_shutdown_error_log")

    def _configuration(self) -> str:
        """What Test::Nginx would make of the sections, in the same lines: blocks know their numbers."""
        lines = [""] * 14
        lines += [self._text("main_config"), "", "http {", "access_log off;", ""]
        lines += ["", "default_type text/plain;", "keepalive_timeout 68;", "", ""]
        lines += [self._text("http_config"), f"server {{ listen {_PORT};", ""]
        lines += [f"server_name '{self._text('server_name') or 'localhost'}';", ""]
        lines += ["client_max_body_size 30M;", *[""] * 8, self._text("config")]
        if self._file.root_location:
            lines += ["", "location / { root html; index index.html index.htm; }"]
        lines += ["}", "}", self._text("post_main_config"), "events {}", ""]
        return "\n".join(lines)

    def _check_wanted(self) -> None:
        for name in self._block.sections:
            if name not in _KNOWN and not _IGNORED.fullmatch(name):
                raise Skipped(f"the section {name}")
        if self._has("SKIP"):
            raise Skipped("SKIP")
        condition = self._block.sections.get("skip_nginx")
        if condition is not None and _excludes(condition.text):
            raise Skipped(f"skip_nginx: {condition.text}")

    def _write_files(self) -> None:
        value = self._value("user_files")
        if isinstance(value, list):
            files = [tuple(item) for item in value]
        else:
            parts = re.split(r"^.*?>>> (\S+)[^\n]*\n", value, flags=re.MULTILINE)
            files = list(zip(parts[1::2], parts[2::2], strict=True))
        for name, content in files:
            # the file has bytes, here they are characters
            path = self._folder / "html" / os.fsdecode(name.encode("latin-1"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode("latin-1"))
            os.utime(path, (self._clock.epoch, self._clock.epoch))

    def _furnish(self, network: LuaNetwork, server: LuaServer) -> None:
        """The server itself, and the peers of the block, can be connected to."""

        def serving(listen: Listen) -> Callable[[trio.abc.Stream], Awaitable[None]]:
            return lambda stream: server.serve(stream, listen)

        for one in server.config.http.servers:
            for listen in one.listens:
                if listen.path is not None:
                    network.tcp(f"unix:{listen.path}", 0, serving(listen))
                    continue
                anywhere = listen.host in ("", "*", "0.0.0.0")
                for host in ("127.0.0.1", "localhost", "127.0.0.2") if anywhere else (listen.host,):
                    network.tcp(host, listen.port, serving(listen))
        network.dns("localhost", "127.0.0.1")
        memcached = network.memcached(port=self._port(_MEMCACHED))
        network.udp("127.0.0.1", self._port(_MEMCACHED), memcached.datagram)
        network.redis(port=self._port(_REDIS))
        network.timeout(*_DROPPED)
        network.udp(*_DROPPED, None)
        for warning in server.config.warnings:
            level, _, text = warning.removeprefix("[").partition("] ")
            self.log.log(LEVELS[level], text.encode())
        reply = self._value("tcp_reply") or ""

        async def answer(stream: trio.abc.Stream) -> None:
            await stream.receive_some(_RECEIVE_SIZE)
            for piece in reply if isinstance(reply, list) else [reply]:
                await stream.send_all(piece.encode("latin-1"))
            if self._has("tcp_no_close"):
                await silent(stream)

        if self._has("tcp_listen"):
            where = self._text("tcp_listen").strip()
            if where.isdigit():
                network.tcp("127.0.0.1", int(where), answer)
            else:
                network.tcp(f"unix:{where}", 0, answer)
        if self._has("udp_listen"):
            datagrams = self._value("udp_reply")
            items = datagrams if isinstance(datagrams, list) else [datagrams or ""]
            where = self._text("udp_listen").strip()
            host, port = ("127.0.0.1", int(where)) if where.isdigit() else (f"unix:{where}", 0)
            network.udp(host, port, lambda _data: [item.encode("latin-1") for item in items])

    def _port(self, server: tuple[str, int]) -> int:
        return int(self._environment[server[0]])

    async def _talk(self, server: LuaServer) -> None:
        requests = self._requests()
        for index, (data, methods) in enumerate(requests):
            await self._exchange(server, index, data, methods)
        if self._text("wait"):
            await trio.sleep(float(self._text("wait")))
        await trio.testing.wait_all_tasks_blocked()
        self._check_log()

    async def _exchange(
        self, server: LuaServer, index: int, data: bytes, methods: list[str]
    ) -> None:
        received, ended = bytearray(), False
        own = [
            listen
            for one in server.config.http.servers
            for listen in one.listens
            if listen.port == _PORT and listen.path is None
        ]
        with trio.move_on_after(float(self._text("timeout").rstrip("ms") or _TIMEOUT)):
            async with await server.connect(listen=own[0] if own else None) as stream:
                with contextlib.suppress(trio.BrokenResourceError):
                    await stream.send_all(data)
                    while part := await stream.receive_some(_RECEIVE_SIZE):
                        received += part
                ended = True
        if self._has("ignore_response"):
            return
        if not ended and not self._has("abort"):
            self.failures.append(
                f"request {index + 1}: the connection is still open: {bytes(received)!r}"
            )
            return
        if ended or received:
            self._check_responses(index, bytes(received), methods)

    # ----------------------------------------------------------------- requests

    def _requests(self) -> list[tuple[bytes, list[str]]]:
        """The bytes of each connection, and the methods of the requests in them."""
        raw = self._value("raw_request")
        if raw is not None:
            whole = "".join(raw) if isinstance(raw, list) else raw
            return [(whole.encode("latin-1"), [whole.split(" ", 1)[0] or "GET"])]
        headers = self._value("more_headers") or ""
        pipelined = self._value("pipelined_requests")
        if pipelined is not None:
            last = len(pipelined) - 1
            built = [
                self._built(text, _nth(headers, index), close=index == last)
                for index, text in enumerate(pipelined)
            ]
            return [(b"".join(data for data, _ in built), [method for _, method in built])]
        request = self._value("request")
        if request is None:
            return []
        texts = request if isinstance(request, list) else [request]
        pairs = [self._built(text, _nth(headers, index)) for index, text in enumerate(texts)]
        return [(data, [method]) for data, method in pairs]

    def _built(self, text: Any, headers: str, *, close: bool = True) -> tuple[bytes, str]:
        if isinstance(text, list):
            text = "".join(text)
        if not isinstance(text, str):
            raise Skipped("a request that is no text")
        text = re.sub(r"\A(?:\s*#[^\n]*\s+|\s+)+", "", text)
        line, _, body = text.partition("\n")
        words = line.split()
        method, target = words[0], words[1] if len(words) > 1 else "/"
        version = words[2] if len(words) > 2 else "HTTP/1.1"
        lines = [item for item in headers.split("\n") if item.strip() and item.strip()[0] != "#"]
        names = {item.split(":")[0].strip().lower() for item in lines}
        if not names & {"content-length", "transfer-encoding"}:
            body = body.strip()
        head = f"{method} {target} {version}\r\n"
        if "host" not in names:
            head += "Host: localhost\r\n"
        if "connection" not in names:
            head += f"Connection: {'close' if close else 'keep-alive'}\r\n"
        if body and "content-length" not in names and "transfer-encoding" not in names:
            head += f"Content-Length: {len(body)}\r\n"
        head += "".join(f"{item}\r\n" for item in lines)
        return f"{head}\r\n{body}".encode("latin-1"), method

    # ------------------------------------------------------------------- checks

    def _expect(self, what: str, actual: Any, expected: Any) -> None:
        if isinstance(expected, re.Pattern):
            if not expected.search(actual):
                self.failures.append(f"{what}: {actual!r} does not match {expected.pattern!r}")
        elif actual != expected:
            self.failures.append(f"{what}: {actual!r}, expected {expected!r}")

    def _check_responses(self, connection: int, data: bytes, methods: list[str]) -> None:
        pipelined = len(methods) > 1
        for number, method in enumerate(methods):
            try:
                response, data = parsed(data, method)
            except h11.RemoteProtocolError as error:
                if data or not self._may_be_silent():
                    self.failures.append(f"no response: {error}, {data!r}")
                return
            self._check_response(number if pipelined else connection, *response)

    def _may_be_silent(self) -> bool:
        """Whether the block expects that there may be no response at all."""
        if self._has("error_code_like"):
            return bool(_searched(_nth(self._value("error_code_like"), 0)).search(""))
        return self._has("error_code") and not self._text("error_code").strip()

    def _check_response(self, index: int, head: str, status: int, body: str) -> None:
        if self._has("error_code_like"):
            expected = _nth(self._value("error_code_like"), index)
            self._expect("status", str(status), _searched(expected))
        else:
            expected = self._value("error_code")
            wanted = "200" if expected is None else str(_nth(expected, index)).strip()
            if wanted:
                self._expect("status", str(status), wanted)
        self._check_headers(index, head)
        if self._has("ignore_response_body"):
            return
        if self._has("response_body"):
            expected = _nth(self._value("response_body"), index)
            if expected is not None:
                self._expect("body", body, expected)
        if self._has("response_body_like"):
            self._expect("body", body, _searched(_nth(self._value("response_body_like"), index)))
        if self._has("response_body_unlike"):
            unwanted = _searched(_nth(self._value("response_body_unlike"), index))
            if unwanted.search(body):
                self.failures.append(f"body: {body!r} matches {unwanted.pattern!r}")

    def _check_headers(self, index: int, head: str) -> None:
        found: dict[str, list[str]] = {}
        for line in head.split("\r\n")[1:]:
            name, _, value = line.partition(":")
            found.setdefault(name.strip().lower(), []).append(value.strip())
        for section in ("response_headers", "response_headers_like"):
            if not self._has(section):
                continue
            for line in _nth(self._value(section), index).split("\n"):
                name, colon, value = line.partition(":")
                name = name.strip()
                if name.startswith("!"):
                    if name[1:].strip().lower() in found:
                        self.failures.append(f"there is a header {name[1:]}")
                elif colon:
                    actual = ", ".join(found.get(name.lower(), []))
                    whole = f"^{value.strip()}$"
                    like = section == "response_headers_like"
                    self._expect(
                        f"header {name}", actual, pattern(whole) if like else value.strip()
                    )
        if self._has("raw_response_headers_like"):
            expected = _searched(_nth(self._value("raw_response_headers_like"), index))
            self._expect("headers", head + "\r\n", expected)
        if self._has("raw_response_headers_unlike"):
            unwanted = _searched(_nth(self._value("raw_response_headers_unlike"), index))
            if unwanted.search(head):
                self.failures.append(f"headers: {head!r} matches {unwanted.pattern!r}")

    def _lines(self) -> list[str]:
        # in the form that patterns are about
        text = "\n".join(
            f"[{record.level}] 1#0: {_connection(record)}{record.message}" for record in self.log
        )
        return [
            f"{line}\n" for line in text.encode("utf-8", "replace").decode("latin-1").split("\n")
        ]

    def _check_log(self) -> None:
        self._check_patterns("error_log", "no_error_log")
        wanted = self._value("grep_error_log")
        if wanted is None:
            return
        wanted = _nth(wanted, 0)
        found = ""
        for line in self._lines():
            if isinstance(wanted, str):
                found += f"{wanted}\n" if wanted.rstrip("\n") in line else ""
            elif (match := wanted.search(line)) is not None and "\n" not in match[0]:
                found += match[0] + "\n"
        expected = _nth(self._value("grep_error_log_out"), 0)
        self._expect("lines of error.log", found, expected or "")

    def _check_patterns(self, with_: str, without: str) -> None:
        lines = self._lines()
        for item in _items(self._value(with_)):
            if not any(_contains(line, item) for line in lines):
                self.failures.append(f"error.log has no {_shown(item)}")
        for item in _items(self._value(without)):
            for line in lines:
                if _contains(line, item):
                    self.failures.append(f"error.log has {_shown(item)}: {line.strip()}")
                    break


def _connection(record: LogRecord) -> str:
    return f"*{record.connection} " if record.connection else ""


def _nth(value: Any, index: int) -> Any:
    if not isinstance(value, list):
        return value
    return value[index] if index < len(value) else None


def _items(value: Any) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, str):
        return [line for line in value.split("\n") if line]
    return [item for item in (value if isinstance(value, list) else [value]) if item is not None]


def _contains(line: str, item: Any) -> bool:
    return item in line if isinstance(item, str) else item.search(line) is not None


def _shown(item: Any) -> str:
    return repr(item) if isinstance(item, str) else repr(item.pattern)


def _searched(value: Any) -> re.Pattern[str]:
    return value if isinstance(value, re.Pattern) else pattern(value, "s")


def _excludes(condition: str) -> bool:
    """Whether ``N: < 1.2.3 and ...`` holds for the version of nginx whose behaviour is served."""
    _, _, tests = condition.partition(":")
    own = tuple(map(int, NGINX_VERSION.split(".")))
    for test in re.split(r"\band\b", tests):
        match = re.fullmatch(r"\s*([<>=!]+)\s*([\d.]+)\s*", test)
        if match is None:
            raise Skipped(f"skip_nginx: {condition}")
        operator, version = match.groups()
        other = tuple(map(int, version.split(".")))
        holds = {
            "<": own < other,
            "<=": own <= other,
            ">": own > other,
            ">=": own >= other,
            "==": own == other,
            "!=": own != other,
        }
        if not holds[operator]:
            return False
    return True


async def run_block(file: TestFile, block: Block, folder: Path, clock: LuaClock) -> LogRecords:
    """Run a block.

    Args:
        file: Its file.
        block: The block.
        folder: An empty folder, which becomes the server's prefix.
        clock: The run's clock.

    Returns:
        error.log.

    Raises:
        BlockFailure: It did not do what it says.
        NeedsPerl: It has more than data.
        Skipped: It does not want to run, or cannot.
    """
    if file.needs_perl is not None:
        raise NeedsPerl(file.needs_perl)
    run = _Run(file, block, folder, clock)
    await run.run()
    if run.failures:
        raise BlockFailure("\n".join(run.failures))
    return run.log
