"""What a failing test shows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from trio_lua.testing import Leak, open_server


async def test_long_names_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lua_clock: Any
) -> None:
    """Lua keeps the end of a path only; the report finds the file, and names it as seen from the working folder."""
    prefix = tmp_path / ("long" * 20)
    (prefix / "lua" / "deep").mkdir(parents=True)
    (prefix / "lua" / "deep" / "module.lua").write_text(
        "return { f = function()\n    ngx.timer.at(60, print)\n    error('oops')\nend }\n"
    )
    monkeypatch.chdir(tmp_path)
    short = os.path.join("long" * 20, "lua", "deep", "module.lua")
    async with open_server(
        "require('deep.module').f()",
        prefix=prefix,
        package_path="$prefix/lua/?.lua",
        clock=lua_clock,
        allow_leaks=["timers"],
    ) as server:
        await server.get("/")
        with pytest.raises(Leak) as caught:
            server.check_leaks()
    shown = str(server.report)
    assert f"runtime error: {short}:3: oops\n           3 | error('oops')" in shown
    assert f"\t{short}:3: in function 'f'\n           3 | error" in shown
    message = str(caught.value)
    assert f"made at {short}:2 < content_by_lua(" in message
    assert "   2 | ngx.timer.at(60, print)" in message
