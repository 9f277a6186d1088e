"""A worker's Lua side without a server: handlers are run as requests, and what they hand out is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_lua.api.runtime import Runtime
from trio_lua.config.model import Config, Http, LuaCode, Source
from trio_lua.request.phase import Phase

HEAD = b"GET /t HTTP/1.1\r\nHost: h\r\n\r\n"


class RecordingLog:
    """An error log that keeps (level, message)."""

    def __init__(self) -> None:
        self.level = 8
        self.lines: list[tuple[int, bytes]] = []

    def log(self, level: int, message: bytes, connection: int = 0) -> None:
        self.lines.append((level, message))

    def reopen(self) -> None:
        pass

    def close(self) -> None:
        pass


class Connection:
    """As much of a connection as log lines ask for."""

    id = 1
    requests = 1
    tls = False

    def addresses(self) -> tuple[bytes, bytes, bytes, bytes]:
        return b"127.0.0.1", b"40000", b"127.0.0.1", b"80"


class Owner:
    """What threads belong to: nothing runs inline in these tests."""

    inline = False
    nursery: trio.Nursery | None = None


class Lua:
    """A runtime; ``out`` holds the lists of texts that Lua code passed to ``out(...)``."""

    def __init__(self, tmp_path: Path, **http: Any) -> None:
        self.out: list[list[str]] = []
        self.log = RecordingLog()
        self.path = tmp_path
        paths = {"lua_package_path": f"{tmp_path}/?.lua", "lua_package_cpath": f"{tmp_path}/?.so"}
        self.rt = Runtime(
            Config(http=replace(Http(), **{**paths, **http}), prefix=f"{tmp_path}/"),
            clock=lambda: 1_700_000_000.25,
            sinks=[self.log],
            product="test",
        )
        self.rt.connections[1] = Connection()  # type: ignore[assignment]
        self.rt.vm.set_call("out", lambda *texts: self.out.append([t.decode() for t in texts]))
        self.rt.vm.run(
            b"""
            local rt = ...
            local py, tostring, unpack, select = rt.py, tostring, unpack, select
            function rt.out(...)
                local texts = { ... }
                for i = 1, select("#", ...) do texts[i] = tostring(texts[i]) end
                py.out(unpack(texts, 1, select("#", ...)))
            end
            function rt.pause() return rt.suspend(0) end
            """,
            "=ngx/out",
        )
        self._clock: trio.lowlevel.TrioToken | None = None
        self._locations: dict[bool, int] = {}

    def file(self, name: str, text: str | bytes) -> Path:
        """Write a file below the folder that package.path names."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def handler(self, code: str, directive: str = "content_by_lua") -> LuaCode:
        """Inline code in which ``out`` and ``pause`` are known; its lines count from 1.

        ``pause()`` waits for the first of the operations, which :meth:`begin` leaves waiting.
        """
        return LuaCode(
            directive,
            Source("nginx.conf", 1),
            f"{directive}(nginx.conf:1)",
            code='local rt = require("trio_lua.rt") local out, pause = rt.out, rt.pause; ' + code,
        )

    def location(self, *, code_cache: bool = True) -> int:
        """The number of a location."""
        number = self._locations.get(code_cache)
        if number is None:
            number = self._locations[code_cache] = len(self._locations) + 1
            values = {"code_cache": code_cache, "log": 0, "log_level": 8}
            self.rt.define_location(number, self.rt.vm.to_lua(values))
        return number

    def request(self, *, code_cache: bool = True) -> int:
        """A new request in its location."""
        id = self.rt.begin(1, b"GET", b"/t", b"/t", None, b"h", 1, True, HEAD, 0, 1_700_000_000.0)
        self.rt.vm.export("enter")(id, self.location(code_cache=code_cache))
        return id  # type: ignore[no-any-return]

    def begin(
        self,
        code: str | LuaCode,
        *,
        phase: Phase = Phase.CONTENT,
        id: int | None = None,
        path: str | None = None,
        code_cache: bool = True,
    ) -> Any:
        """Run a handler to its first suspension; what ``rt.export.run`` returned."""
        if isinstance(code, str):
            code = self.handler(code)
        if id is None:
            id = self.request(code_cache=code_cache)
        number = self.rt.handler(code)
        return self.rt.run(id, number, int(phase), None if path is None else path.encode())

    async def run(self, code: str | LuaCode, **options: Any) -> Any:
        """Run a handler to its end: None when it simply ended, else its outcome, texts decoded."""
        self.start_clock()
        return await self.finish(self.begin(code, **options))

    def start_clock(self) -> None:
        """From now on what waits for a time or an event is woken, as in a worker."""
        token = trio.lowlevel.current_trio_token()
        if self._clock is not token:
            self._clock = token
            trio.lowlevel.spawn_system_task(self.rt.driver.serve, lambda id, result: None)

    async def finish(self, result: Any) -> Any:
        """Run a handler on from what :meth:`begin` returned."""
        return decoded(await self.rt.driver.finish(Owner(), result))

    def run_sync(self, code: str, phase: Phase, *, id: int | None = None) -> Any:
        """Run a handler of a phase that may not suspend."""
        if id is None:
            id = self.request()
        handler = self.handler(code, f"{phase.name.lower()}_by_lua")  # type: ignore[union-attr]
        return decoded(self.rt.run_sync(id, self.rt.handler(handler), int(phase), None))

    def init(self, code: str, phase: Phase = Phase.INIT) -> None:
        """Run ``init_by_lua`` or ``init_worker_by_lua``."""
        name = "init_by_lua" if phase is Phase.INIT else "init_worker_by_lua"
        self.rt.run_init(self.handler(code, name), phase)

    def take(self) -> list[list[str]]:
        """What was handed out since the last call."""
        out, self.out = self.out, []
        return out

    def eval(self, code: str) -> list[str]:
        """Run a content handler that does not suspend and calls ``out`` once."""
        result = decoded(self.begin(code))
        assert result is None, result
        (texts,) = self.take()
        return texts


def decoded(result: Any) -> Any:
    """Texts in the place of bytes; None for the outcome 0."""
    if isinstance(result, tuple):
        return tuple(decoded(item) if isinstance(item, bytes) else item for item in result)
    if isinstance(result, bytes):
        return result.decode()
    return None if result == 0 and result is not False else result


@pytest.fixture
def make_lua(tmp_path: Path) -> Callable[..., Lua]:
    """Make a :class:`Lua` with settings of the ``http`` block."""
    return lambda **http: Lua(tmp_path, **http)


@pytest.fixture
def lua(tmp_path: Path) -> Lua:
    """A :class:`Lua` with the default settings."""
    return Lua(tmp_path)
