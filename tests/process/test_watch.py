from __future__ import annotations

import os
from pathlib import Path

import trio
import trio.testing

from trio_lua.config.model import Config, Http
from trio_lua.process.watch import FileWatch, sources, watch


def touch(path: Path, when: int = 1) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    os.utime(path, ns=(when, when))
    return str(path)


def test_sources(tmp_path: Path) -> None:
    wanted = {
        touch(tmp_path / "prefix" / "app.lua"),
        touch(tmp_path / "prefix" / "lib" / "deep" / "a.lua"),
        touch(tmp_path / "prefix" / "conf" / "nginx.conf"),
        touch(tmp_path / "elsewhere" / "b.lua"),
        touch(tmp_path / "etc" / "site.config"),
    }
    touch(tmp_path / "prefix" / "readme.txt")
    touch(tmp_path / "prefix" / ".git" / "a.lua")
    touch(tmp_path / "prefix" / "node_modules" / "a.lua")
    config = Config(
        prefix=f"{tmp_path}/prefix/",
        file=f"{tmp_path}/etc/site.config",
        http=Http(lua_package_path=f"{tmp_path}/elsewhere/?.lua;lib/?.lua;;"),
    )
    assert set(sources(config)) >= wanted
    assert len(sources(config)) == len({os.path.realpath(p) for p in sources(config)}) == 5


def test_changes_are_named_once(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    touch(one)
    state = FileWatch(lambda: [str(one), str(two)])
    assert state.changed() == []
    touch(one, 2)
    touch(two)
    assert state.changed() == [str(one), str(two)]
    assert state.changed() == []
    one.unlink()
    assert state.changed() == [str(one)]


async def test_watch(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, inline_threads: None
) -> None:
    path = tmp_path / "a.lua"
    touch(path)
    seen: list[list[str]] = []
    looks = 0

    def files() -> list[str]:
        nonlocal looks
        looks += 1
        if looks == 3:
            touch(path, 2)
        return [str(path)]

    with trio.move_on_after(60) as scope:

        def changed(names: list[str]) -> None:
            seen.append(names)
            scope.cancel()

        await watch(FileWatch(files), changed)
    assert seen == [[str(path)]]
    assert looks == 3
