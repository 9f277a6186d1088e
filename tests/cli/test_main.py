from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from click.testing import CliRunner

from trio_lua import __version__
from trio_lua.cli import check, script, serve
from trio_lua.cli.main import cli, main
from trio_lua.cli.serve import ServeOptions
from trio_lua.errors import ConfigError, LuaError, TrioLuaError

COMMANDS = ["check", "run", "serve", "version"]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[ServeOptions]:
    seen: list[ServeOptions] = []

    def stub(options: ServeOptions) -> int:
        seen.append(options)
        return 0

    monkeypatch.setattr(serve, "serve", stub)
    return seen


def test_help_lists_the_commands() -> None:
    text = CliRunner().invoke(cli, ["--help"]).output
    for command in COMMANDS:
        assert f"\n  {command} " in text
        assert CliRunner().invoke(cli, [command, "-h"]).exit_code == 0


def test_version() -> None:
    assert CliRunner().invoke(cli, ["--version"]).output == f"trio-lua, version {__version__}\n"
    lines = CliRunner().invoke(cli, ["version"]).output.splitlines()
    assert [line.split()[0] for line in lines] == [
        "trio_lua",
        "Python",
        "trio",
        "lupa",
        "h11",
        "crossplane",
    ]


def test_serve_options(served: list[ServeOptions]) -> None:
    line = (
        "serve -b :80 --bind unix:/x -p /p -g worker_processes --log-level info --access-log -"
        " --error-log e.log --reload -q nginx.conf"
    )
    assert main(line.split()) == 0
    assert served == [
        ServeOptions(
            target="nginx.conf",
            binds=(":80", "unix:/x"),
            prefix="/p",
            directives="worker_processes",
            log_level="info",
            error_log="e.log",
            access_log="-",
            reload=True,
            quiet=True,
        )
    ]


def test_serve_targets(served: list[ServeOptions]) -> None:
    assert main(["serve", "-e", "ngx.say(1)"]) == 0
    assert main(["serve", "-c", "x.conf"]) == 0
    assert main(["serve", "app.lua"]) == 0
    assert [(options.target, options.code) for options in served] == [
        (None, "ngx.say(1)"),
        ("x.conf", None),
        ("app.lua", None),
    ]
    assert [options.is_conf for options in served] == [False, True, False]
    assert served[0].title == "code of the command line"


def test_serve_options_from_the_environment(
    served: list[ServeOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "BIND": ":80 :81",
        "PREFIX": "/p",
        "LOG_LEVEL": "debug",
        "ACCESS_LOG": "off",
        "ERROR_LOG": "e.log",
        "RELOAD": "1",
    }.items():
        monkeypatch.setenv(f"TRIO_LUA_{name}", value)
    assert main(["serve", "app.lua", "-p", "/q"]) == 0
    assert served == [
        ServeOptions(
            target="app.lua",
            binds=(":80", ":81"),
            prefix="/q",
            log_level="debug",
            error_log="e.log",
            access_log="off",
            reload=True,
        )
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("serve", "nothing to serve"),
        ("serve a.conf -e x", "give only one of"),
        ("serve a.conf -c b.conf", "give only one of"),
        ("serve a.conf --log-level loud", "loud"),
        ("serve a.conf --nope", "--nope"),
        ("serve -b nowhere app.lua", "no port in"),
        ("check", "CONF"),
        ("nope", "nope"),
    ],
)
def test_usage_errors(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


def test_check(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[ServeOptions] = []

    def stub(options: ServeOptions) -> int:
        seen.append(options)
        return 78

    monkeypatch.setattr(check, "check_target", stub)
    assert main(["check", "-p", "/p", "-g", "x;", "nginx.conf", "-q"]) == 78
    assert main(["serve", "-t", "app.lua"]) == 78
    assert seen == [
        ServeOptions("nginx.conf", prefix="/p", directives="x;", quiet=True),
        ServeOptions("app.lua"),
    ]


def test_run(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def run(script: script.Script, *, log_level: str) -> int:
        seen.append((script, log_level))
        return 3

    monkeypatch.setattr(script, "run", run)
    line = ["run", "-e", "x=1", "-I", "lib", "-l", "cjson", "--log-level", "debug", "-", "-z", "b"]
    with open("/dev/null") as null:
        monkeypatch.setattr(sys, "stdin", null)
        assert main(line) == 3
    [(parsed, level)] = seen
    assert level == "debug"
    assert parsed.arguments == ("-z", "b")
    assert parsed.libraries == ("cjson",)
    assert parsed.package_path.startswith("lib/?.lua;")


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (
            ConfigError('unknown directive "x"', "nginx.conf", 3, hint='did you mean "y"?'),
            78,
            'nginx.conf:3: unknown directive "x" (did you mean "y"?)',
        ),
        (ConfigError("no file", "nginx.conf"), 78, "nginx.conf: no file"),
        (ConfigError("bad"), 78, "bad"),
        (LuaError("x.lua:1: no"), 1, "x.lua:1: no"),
        (TrioLuaError("no"), 1, "no"),
        (FileNotFoundError(2, "No such file or directory", "x"), 1, "x: No such file or directory"),
        (
            ZeroDivisionError("division by zero"),
            1,
            "internal error: ZeroDivisionError: division by zero (set TRIO_LUA_DEBUG=1 for details)",
        ),
    ],
)
def test_failures_take_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    status: int,
    line: str,
) -> None:
    def fail(_options: ServeOptions) -> int:
        raise error

    monkeypatch.delenv("TRIO_LUA_DEBUG", raising=False)
    monkeypatch.setattr(serve, "serve", fail)
    assert main(["serve", "x.conf"]) == status
    assert capsys.readouterr().err == f"trio-lua: {line}\n"


def test_developers_see_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_options: ServeOptions) -> int:
        raise ZeroDivisionError

    monkeypatch.setenv("TRIO_LUA_DEBUG", "1")
    monkeypatch.setattr(serve, "serve", fail)
    with pytest.raises(ZeroDivisionError):
        main(["serve", "x.conf"])


def test_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_options: ServeOptions) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(serve, "serve", stop)
    assert main(["serve", "x.conf"]) in (1, 130)


def test_help_needs_no_server() -> None:
    code = (
        "import sys; from trio_lua.cli.main import main; main(['serve', '--help']);"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20
    )
    assert not set(done.stdout.split()) & {"trio", "lupa", "crossplane", "h11"}


def test_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trio_lua", "--version"],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    assert done.stdout == f"trio-lua, version {__version__}\n"
