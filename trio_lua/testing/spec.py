"""Specs of Lua code in the style of busted: ``*_spec.lua`` files, each ``it`` a test with a VM of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from trio_lua.errors import TrioLuaError
from trio_lua.testing.clock import LuaClock
from trio_lua.testing.log import LogRecords
from trio_lua.testing.network import LuaNetwork
from trio_lua.testing.report import Report
from trio_lua.testing.run import run
from trio_lua.testing.server import configuration
from trio_lua.testing.vm import Lua, open_lua

__all__ = ["PACKAGE_PATH", "Spec", "SpecFailure"]

#: Where specs find the modules that they are about.
PACKAGE_PATH = "./?.lua;./?/init.lua;./lib/?.lua;./lib/?/init.lua;./src/?.lua;./src/?/init.lua;;"

_LUA = Path(__file__).with_name("spec.lua")
_NAME = "spec"


class SpecFailure(AssertionError):
    """A spec failed."""


class Spec:
    """A file of specs.

    Args:
        path: The file.
        package_path: See ``lua_package_path``.
    """

    def __init__(self, path: Path, package_path: str = PACKAGE_PATH) -> None:
        # Lua keeps the end of a long path only
        short = os.path.relpath(path)
        self._path = path if short.startswith("..") else Path(short)
        self._config = configuration(package_path=package_path)

    def list(self) -> list[tuple[str, int]]:
        """Names and lines of the specs.

        Raises:
            LuaError: The file could not be run.
        """

        async def listed() -> list[tuple[str, int]]:
            log = LogRecords()
            async with open_lua(self._config, log=log, epoch=0) as lua:
                found = await self._call(lua, f"list({_quoted(self._path)})")
            return [(name, int(line)) for name, line in found or []]

        return run(listed)

    async def run(self, number: int, clock: LuaClock) -> str | None:
        """Run a spec on the run's clock. Sockets reach the real network.

        Args:
            number: Which one, from 1.
            clock: The run's clock.

        Returns:
            Why it is pending; None when it has run.

        Raises:
            SpecFailure: It failed.
        """
        log, network = LogRecords(), LuaNetwork(clock)
        network.pass_through()
        async with open_lua(self._config, log=log, epoch=clock.epoch, network=network) as lua:
            report = Report(lua.runtime, lua, log, None)
            try:
                result = await self._call(lua, f"run({_quoted(self._path)}, {number})")
            except TrioLuaError as error:
                result = (False, str(error), getattr(error, "traceback", ""))
            if not isinstance(result, tuple):
                return None if result is None else str(result)
            _, message, trace = result
            parts = [message, "stack traceback:" + report.annotated(trace)]
            if len(log):
                parts += ["error.log:", str(log)]
            raise SpecFailure("\n".join(parts))

    async def _call(self, lua: Lua, call: str) -> Any:
        lua.runtime.vm.load_file(_LUA)
        return await lua.run(f'return require("trio_lua.spec").{call}', _NAME)


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
