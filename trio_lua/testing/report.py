"""What a failing test shows: requests and responses, error.log, and what Lua threads were doing, with source lines."""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Iterator
from pathlib import Path

from trio_lua.api.runtime import Runtime
from trio_lua.debug import threads
from trio_lua.lua.paths import lua_path
from trio_lua.testing.client import Client
from trio_lua.testing.log import LogRecords
from trio_lua.testing.vm import Lua, shorter

__all__ = ["Report", "running_threads"]

#: A place in Lua code, as tracebacks have it, and what was left behind.
_FRAME = re.compile(r"(?:^\s+|^.* runtime error: )([^\n]*?):(\d+):")
_PLACE = re.compile(r"(?:\bat|<) ([^<>\n]*?):(\d+)(?= <|$|, )")

#: LuaJIT keeps that many characters of a chunk's name.
_NAME_SIZE = 59

#: What a chunk's name begins with when that is not all of it.
_CUT = "..."

#: Requests that are shown, the last ones.
_SHOWN = 10

#: Those of servers that run.
_REPORTS: weakref.WeakSet[Report] = weakref.WeakSet()


class Report:
    """What there is to say about a server, also after its end.

    Args:
        runtime: Its VM.
        lua: What has been run in that by hand.
        log: Its error.log.
        client: Its client.
    """

    def __init__(self, runtime: Runtime, lua: Lua, log: LogRecords, client: Client | None) -> None:
        self._runtime = runtime
        self._lua = lua
        self._log = log
        self._client = client
        self._files: dict[str, list[str]] = {}
        self._threads: str | None = None
        _REPORTS.add(self)

    def finish(self) -> None:
        """The server is about to end: note what its threads do."""
        _REPORTS.discard(self)
        if self._threads is None:
            self.note()

    def note(self) -> None:
        """Note what its threads do now: soon they will be cancelled."""
        self._threads = self._thread_text()

    def sections(self) -> Iterator[tuple[str, str]]:
        """Titles and texts."""
        if self._client is not None and self._client.exchanges:
            yield "requests", "\n\n".join(map(str, self._client.exchanges[-_SHOWN:]))
        if len(self._log):
            yield "error.log", self.annotated(str(self._log))
        if self.threads:
            yield "Lua threads", self.threads

    def __str__(self) -> str:
        return "\n\n".join(f"--- {title} ---\n{text}" for title, text in self.sections())

    @property
    def threads(self) -> str:
        """What its threads do, or did when it was noted."""
        return self._thread_text() if self._threads is None else self._threads

    def _thread_text(self) -> str:
        return "\n".join(
            f"{thread}\n{self.annotated(thread.traceback)}" for thread in threads(self._runtime)
        )

    def annotated(self, text: str) -> str:
        """A text with the source line under each line of a traceback."""

        lines = []
        for line in text.split("\n"):
            lines.append(line)
            match = _FRAME.match(line)
            if match is not None:
                if match[1].startswith(_CUT) and (path := self._uncut(match[1])):
                    lines[-1] = line.replace(match[1], shorter(path))
                if under := self._under(match[1], int(match[2])):
                    lines.append(under)
        return "\n".join(lines)

    def explained(self, text: str) -> str:
        """A line that names places in Lua code, with the source lines under it."""
        lines = [self._under(match[1], int(match[2])) for match in _PLACE.finditer(text)]
        return "\n".join([text, *(line for line in lines if line)])

    def _under(self, chunk: str, number: int) -> str:
        lines = self._source(chunk)
        if not 0 < number <= len(lines):
            return ""
        return f"        {number:>4} | {lines[number - 1].strip()}"

    def _source(self, chunk: str) -> list[str]:
        """The lines of a chunk; none when they cannot be found."""
        known = self._files.get(chunk)
        if known is None:
            known = self._files[chunk] = self._find(chunk).split("\n")
        return known

    def _find(self, chunk: str) -> str:
        inline = {name: code.code or "" for name, code in self._runtime.inline_code().items()}
        for name, text in {**inline, **self._lua.sources}.items():
            if name[:_NAME_SIZE] == chunk:
                return text
        if chunk.startswith(_CUT):
            chunk = self._uncut(chunk) or chunk
        for folder in ("", self._runtime.config.prefix):
            try:
                return Path(os.path.join(folder, chunk)).read_text("utf-8", "replace")
            except OSError:
                continue
        return ""

    def _uncut(self, chunk: str) -> str | None:
        """The path of a file of whose name Lua has kept the end only."""
        end = chunk.removeprefix(_CUT)
        prefix = self._runtime.config.prefix
        package_path = self._runtime.config.http.lua_package_path or ""
        for template in [*lua_path(package_path, prefix).split(";"), prefix]:
            head = template.partition("?")[0]
            # where the folder ends within what is there of the path
            for cut in range(len(end), 0, -1):
                if head.endswith(end[:cut]) and os.path.isfile(head + end[cut:]):
                    return head + end[cut:]
        return None


def running_threads() -> str:
    """What the threads of all servers do. Their reports will show it, whatever becomes of the threads."""
    found = []
    for report in list(_REPORTS):
        report.note()
        found.append(report.threads)
    return "\n".join(filter(None, found))
