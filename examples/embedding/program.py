"""A Trio program whose routing rules are Lua scripts, which may be edited while it runs.

The rules decide which function of the program answers a request. Each version of them is a server of its own, in a VM
of its own: a new version that does not compile, or that fails its trial, never gets a request, and
what the old one has begun it finishes.
"""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import trio

import trio_lua

FOLDER = Path(__file__).parent

#: Answers a request: gets what the rule says, and returns what becomes JSON.
Endpoint = Callable[[Mapping[str, Any]], Awaitable[Any]]

#: Seconds between two looks at the rules.
INTERVAL = 0.5


class Metrics(trio_lua.Observer):
    """Counts requests by status, and knows how long each phase takes."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def request_finished(self, request: trio_lua.ObservedRequest) -> None:
        self.statuses[request.status] += 1

    def phase_finished(self, phase: trio_lua.ObservedPhase) -> None:
        self.seconds[phase.name] += phase.seconds


class Router:
    """Serves requests by the newest rules that work.

    Args:
        rules: The folder of the scripts; they are asked in the order of their names.
        endpoints: The functions that answer.
        report: Is told what becomes of a new version.
    """

    def __init__(
        self,
        rules: Path,
        endpoints: Mapping[str, Endpoint],
        report: Callable[[str], None] = print,
    ) -> None:
        self.metrics = Metrics()
        self.server: trio_lua.Server
        self._rules = rules
        self._endpoints = endpoints
        self._report = report

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve, and look after the rules, until cancelled."""
        async with trio.open_nursery() as nursery:
            seen = self._state()
            self.server = await nursery.start(self._serve)
            task_status.started()
            while True:
                await trio.sleep(INTERVAL)
                state = self._state()
                if state != seen:
                    seen = state
                    await self._replace(nursery)

    async def _replace(self, nursery: trio.Nursery) -> None:
        try:
            server: trio_lua.Server = await nursery.start(self._serve)
        except (trio_lua.TrioLuaError, OSError) as error:
            self._report(f"the old rules stay: {error}")
            return
        old, self.server = self.server, server
        old.quit()
        self._report("new rules")

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """Serve one connection."""
        await self.server.serve_stream(stream)

    async def _serve(self, *, task_status: trio.TaskStatus[trio_lua.Server]) -> None:
        await trio_lua.serve(
            self._config(), listeners=[], observers=[self.metrics], task_status=task_status
        )

    def _config(self) -> trio_lua.Config:
        app = trio_lua.ConfigBuilder(prefix=f"{FOLDER}/", error_log=("stderr", "error"))
        for name, function in self._endpoints.items():
            app.expose(f"endpoints.{name}", function)
        files = ", ".join(f"[[{path}]]" for path in sorted(self._rules.glob("*.lua")))
        app.http(
            lua_package_path=f"{FOLDER}/lua/?.lua;;",
            init_by_lua=f"require('router').load {{ {files} }}",
        )
        app.server(listen="127.0.0.1:8000").location(
            "/", content_by_lua="require('router').handle()"
        )
        return app.build()

    def _state(self) -> dict[Path, tuple[int, int]]:
        found = {path: path.stat() for path in self._rules.glob("*.lua")}
        return {path: (stat.st_mtime_ns, stat.st_size) for path, stat in found.items()}


# --------------------------------------------------------------- what the rules choose from


async def order(arguments: Mapping[str, Any]) -> Any:
    """An order by its number."""
    await trio.sleep(0.01)  # a database would take that long
    return {"order": arguments["id"], "state": "shipped"}


async def search(arguments: Mapping[str, Any]) -> Any:
    """Orders by text."""
    return {"found": [7, 8], "text": arguments["text"]}


async def main() -> None:
    router = Router(FOLDER / "rules", {"order": order, "search": search})
    async with trio.open_nursery() as nursery:
        await nursery.start(router.run)
        await nursery.start(partial(trio.serve_tcp, router.serve_stream, 8000, host="127.0.0.1"))
        print("on http://127.0.0.1:8000; edit the files in rules/ (Ctrl-C stops it)")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        trio.run(main)
