from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import trio

from trio_lua.cli.script import Script, run
from trio_lua.errors import LuaError, TrioLuaError


def test_script_with_arguments(tmp_path: Path) -> None:
    path = tmp_path / "hello.lua"
    path.write_bytes(b"#!/usr/bin/env trio-lua\nreturn 1\n")
    script = Script.from_command_line([str(path), "a", "-b"], (), ["lib", "/x"], ["cjson"])
    assert script == Script(
        chunks=((b"--#!/usr/bin/env trio-lua\nreturn 1\n", f"@{path}"),),
        name=str(path),
        arguments=("a", "-b"),
        package_path="lib/?.lua;lib/?/init.lua;/x/?.lua;/x/?/init.lua;",
        libraries=("cjson",),
    )


def test_code_runs_before_the_script(tmp_path: Path) -> None:
    path = tmp_path / "hello.lua"
    path.write_bytes(b"x")
    script = Script.from_command_line([str(path)], ["a=1", "b=2"])
    assert [name for _, name in script.chunks] == ["=(command line -e)"] * 2 + [f"@{path}"]
    alone = Script.from_command_line([], ["a=1"])
    assert alone.chunks == ((b"a=1", "=(command line -e)"),)
    assert alone.name == "trio-lua"


class Stdin:
    def __init__(self, data: bytes, tty: bool = False) -> None:
        self.buffer = io.BytesIO(data)
        self._tty = tty

    def isatty(self) -> bool:
        return self._tty


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Stdin(b"x=1"))
    assert Script.from_command_line([]).chunks == ((b"x=1", "=stdin"),)
    monkeypatch.setattr(sys, "stdin", Stdin(b"x=1"))
    script = Script.from_command_line(["-", "a"])
    assert (script.name, script.arguments) == ("-", ("a",))
    monkeypatch.setattr(sys, "stdin", Stdin(b"", tty=True))
    with pytest.raises(click.UsageError, match="nothing to run"):
        Script.from_command_line([])


def test_missing_script() -> None:
    with pytest.raises(FileNotFoundError):
        Script.from_command_line(["/no/such.lua"])


def test_run_passes_everything_on(capfd: pytest.CaptureFixture[str]) -> None:
    script = Script(((b"x", "=x"),), "name", ("a",), "lib/?.lua;", ("l",))
    seen: list[Any] = []

    async def runner(chunks: Any, *, write: Any, error_log: Any, **rest: Any) -> int:
        await trio.lowlevel.checkpoint()
        seen.extend([chunks, rest])
        write(b"said\n")
        error_log.log(4, b"logged")
        error_log.log(8, b"not logged")
        return 7

    assert run(script, run_script=runner) == 7
    assert seen == [
        script.chunks,
        {"name": "name", "arguments": ("a",), "package_path": "lib/?.lua;", "libraries": ("l",)},
    ]
    out, err = capfd.readouterr()
    assert out == "said\n"
    assert err.endswith(": logged\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize("grouped", [False, True])
def test_lua_errors_are_shown_without_python(
    capsys: pytest.CaptureFixture[str], grouped: bool
) -> None:
    async def runner(*_args: Any, **_options: Any) -> int:
        await trio.lowlevel.checkpoint()
        error = LuaError("x.lua:1: oops", "\nstack traceback:\n\tx.lua:1: in main chunk")
        if not grouped:
            raise error
        async with trio.open_nursery():
            raise error

    assert run(Script(()), run_script=runner) == 1
    assert capsys.readouterr().err == (
        "trio-lua: x.lua:1: oops\nstack traceback:\n\tx.lua:1: in main chunk\n"
    )


def test_other_errors_pass(capsys: pytest.CaptureFixture[str]) -> None:
    async def runner(*_args: Any, **_options: Any) -> int:
        await trio.lowlevel.checkpoint()
        raise TrioLuaError("no VM")

    with pytest.raises(TrioLuaError, match="no VM"):
        run(Script(()), run_script=runner)


@pytest.mark.parametrize("grouped", [False, True])
def test_interrupt(capsys: pytest.CaptureFixture[str], grouped: bool) -> None:
    async def runner(*_args: Any, **_options: Any) -> int:
        await trio.lowlevel.checkpoint()
        if not grouped:
            raise KeyboardInterrupt
        async with trio.open_nursery():
            raise KeyboardInterrupt

    assert run(Script(()), run_script=runner) == 130
    assert capsys.readouterr().err == ""
