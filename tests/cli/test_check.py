from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from trio_lua.cli import check, loading
from trio_lua.cli.check import check_target, codes_of, lua_errors, syntax_checker
from trio_lua.cli.serve import ServeOptions
from trio_lua.config.model import (
    Condition,
    Config,
    Http,
    If,
    Location,
    LuaCode,
    MatchKind,
    Server,
    SetByLua,
    Settings,
    Source,
    Template,
    Var,
)
from trio_lua.errors import ConfigError


def inline(name: str, line: int, text: str) -> LuaCode:
    source = Source("/etc/nginx.conf", line)
    return LuaCode(name, source, f"{name}(nginx.conf:{line})", code=text)


def file(name: str, line: int, path: str) -> LuaCode:
    parts = (path,) if "$" not in path else (Var("dir"), "/no.lua")
    return LuaCode(name, Source("/etc/nginx.conf", line), path, path=Template(path, parts))


def config_with(*codes: LuaCode, **http: LuaCode) -> Config:
    here = Source("/etc/nginx.conf", 1)
    locations = tuple(Location(MatchKind.PREFIX, "/", Settings(), here, content=c) for c in codes)
    outer = Location(MatchKind.SERVER, "", Settings(), here, locations=locations)
    return Config(http=Http(servers=(Server((), (), outer, here),), **http), prefix="/p/")  # type: ignore[arg-type]


def shown(config: Config) -> list[str]:
    return [loading.one_line(error) for error in lua_errors(config, syntax_checker())]


def test_checker() -> None:
    check = syntax_checker()
    assert check(b"return 1") is None
    assert check(b"\n\nx = = 1") == (3, "unexpected symbol near '='")
    assert check(b"x = 'open") is not None


def test_lines_are_those_of_the_file() -> None:
    config = config_with(
        inline("content_by_lua_block", 10, "\n  local a\n  x = = 1\n"),
        inline("content_by_lua", 20, "\n x = = 2\n"),
        inline("content_by_lua_block", 30, "fine = 1"),
        inline("content_by_lua_block", 40, "for i = 1, 2 do\n\n"),
    )
    assert shown(config) == [
        "/etc/nginx.conf:12: content_by_lua_block: unexpected symbol near '='",
        "/etc/nginx.conf:19: content_by_lua: unexpected symbol near '='",
        "/etc/nginx.conf:42: content_by_lua_block: 'end' expected (to close 'for' at line 40) near '<eof>'",
    ]


def test_files(tmp_path: Path) -> None:
    (tmp_path / "bad.lua").write_text("#!/shebang\nx = = 1\n")
    (tmp_path / "good.lua").write_text("#!/shebang\nx = 1\n")
    config = config_with(
        file("content_by_lua_file", 3, f"{tmp_path}/bad.lua"),
        file("content_by_lua_file", 4, f"{tmp_path}/good.lua"),
        file("content_by_lua_file", 5, "no.lua"),
        file("content_by_lua_file", 6, "$dir/no.lua"),
    )
    assert shown(config) == [
        f"{tmp_path}/bad.lua:2: unexpected symbol near '='",
        '/etc/nginx.conf:5: content_by_lua_file: cannot open "/p/no.lua": No such file or directory',
    ]


def test_every_place_of_code_is_found_once() -> None:
    here = Source("/etc/nginx.conf", 1)
    inherited = Settings(access_by_lua=inline("access_by_lua_block", 3, ""))
    branch = Location(
        MatchKind.IF, "", inherited, here, content=inline("content_by_lua_block", 6, "")
    )
    outer = Location(
        MatchKind.SERVER,
        "",
        inherited,
        here,
        rewrite=(
            SetByLua("x", inline("set_by_lua_block", 5, ""), here),
            If(Condition("true", Template("", ())), branch, here),
        ),
        locations=(Location(MatchKind.PREFIX, "/", inherited, here),),
    )
    http = Http(
        servers=(Server((), (), outer, here),),
        settings=replace(inherited, log_by_lua=inline("log_by_lua_block", 4, "")),
        init_by_lua=inline("init_by_lua_block", 1, ""),
        init_worker_by_lua=inline("init_worker_by_lua_block", 2, ""),
    )
    assert [code.source.line for code in codes_of(Config(http=http))] == [1, 2, 3, 4, 5, 6]


def use(monkeypatch: pytest.MonkeyPatch, found: Config | ConfigError) -> None:
    def load(_options: ServeOptions) -> Config:
        if isinstance(found, ConfigError):
            raise found
        return found

    monkeypatch.setattr(check, "load", load)


def test_report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    use(
        monkeypatch,
        config_with(
            inline("content_by_lua_block", 1, "x = = 1"), inline("content_by_lua_block", 2, "(")
        ),
    )
    assert check_target(ServeOptions("nginx.conf")) == 78
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split(" ")[0] for line in err.splitlines()] == [
        "/etc/nginx.conf:1:",
        "/etc/nginx.conf:2:",
        "trio-lua:",
    ]
    assert err.endswith("trio-lua: nginx.conf: 2 errors\n")


def test_no_errors(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    use(monkeypatch, config_with(inline("content_by_lua_block", 1, "x = 1")))
    assert check_target(ServeOptions("nginx.conf")) == 0
    assert capsys.readouterr().out == "nginx.conf: no errors\n"
    assert check_target(ServeOptions("nginx.conf", quiet=True)) == 0
    assert capsys.readouterr().out == ""


def test_warnings_are_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, Config(warnings=("[warn] odd in nginx.conf:3",)))
    assert check_target(ServeOptions("nginx.conf")) == 0
    assert capsys.readouterr().err == "[warn] odd in nginx.conf:3\n"


def test_configuration_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = ConfigError('unknown directive "x"', "/etc/nginx.conf", 3, hint='did you mean "y"?')
    use(monkeypatch, error)
    assert check_target(ServeOptions("nginx.conf")) == 78
    assert capsys.readouterr().err == (
        '/etc/nginx.conf:3: unknown directive "x" (did you mean "y"?)\n'
        "trio-lua: nginx.conf: 1 error\n"
    )
