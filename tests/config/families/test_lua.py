from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from trio_lua.config.families.lua import chunk_name
from trio_lua.config.model import Config, Location, LuaCode, SetByLua
from trio_lua.config.nginx import load

Read = Callable[[str], Location]
Refused = Callable[[Callable[[str], object], str], str]


def test_chunks_are_named_by_the_line_of_the_brace_or_of_the_end(location: Read) -> None:
    for text, line in (
        ("content_by_lua_block\n{\n x }", 5),
        ("content_by_lua_block {\n x }", 4),
        ("content_by_lua '\n x\n'\n;", 7),
        ("content_by_lua 'x';", 4),
    ):
        code = location(text).content
        assert code is not None
        assert code.chunk_name == f"content_by_lua(nginx.conf:{line})"
        assert code.source.line == line


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("/etc/nginx/nginx.conf", "nginx.conf"),
        ("/somewhere/else/nginx.conf", "nginx.conf"),
        ("/etc/nginx/sub/a.conf", "sub/a.conf"),
        ("/usr/a.conf", "/usr/a.conf"),
        ("/etc/nginx/" + "d" * 60 + "/a.conf", "..." + "d" * 24 + "/a.conf"),
        ("/usr/" + "d" * 60 + "/a.conf", "..." + "d" * 24 + "/a.conf"),
    ],
)
def test_chunk_names(file: str, expected: str) -> None:
    assert chunk_name("header_filter_by_lua", file, 12, "/etc/nginx") == (
        f"header_filter_by_lua({expected}:12)"
    )


def test_chunk_names_in_included_files(tmp_path: Path) -> None:
    (tmp_path / "nginx.conf").write_text("events {} http { include sub/a.conf; }")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.conf").write_text("\ninit_by_lua_block { x }")
    code = load(tmp_path / "nginx.conf").http.init_by_lua
    assert code is not None
    assert code.chunk_name == "init_by_lua(sub/a.conf:2)"
    assert code.source.file == str(tmp_path / "sub" / "a.conf")


@pytest.mark.parametrize("stem", ["init", "init_worker", "exit_worker"])
def test_worker_handlers(http: Callable[[str], Config], stem: str) -> None:
    handler = getattr(http(f"{stem}_by_lua_block {{ a }}").http, f"{stem}_by_lua")
    assert (handler.directive, handler.code) == (f"{stem}_by_lua_block", " a ")
    handler = getattr(http(f"{stem}_by_lua_file a$b.lua;").http, f"{stem}_by_lua")
    assert handler.path.literal == "a$b.lua"
    assert (handler.code, handler.chunk_name) == (None, "a$b.lua")


@pytest.mark.parametrize(
    "stem",
    ["rewrite", "access", "precontent", "header_filter", "body_filter", "log"],
)
def test_request_handlers(location: Read, stem: str) -> None:
    settings = location(f"{stem}_by_lua_file $uri.lua;").settings
    handler = getattr(settings, f"{stem}_by_lua")
    assert (handler.directive, handler.path.raw) == (f"{stem}_by_lua_file", "$uri.lua")
    condition = location(f"if ($uri) {{ {stem}_by_lua_block {{ x }} }}").rewrite[0]
    handler = getattr(condition.location.settings, f"{stem}_by_lua")  # type: ignore[union-attr]
    assert handler.code == " x "


def test_set_by_lua(location: Read) -> None:
    steps = location(
        "set_by_lua $a 'return 1' $uri x; set_by_lua_file $b $a.lua $a; set_by_lua_block $c { 2 }"
        "set_by_lua $d '';"
    ).rewrite
    handlers: list[LuaCode] = []
    for step in steps:
        assert isinstance(step, SetByLua)
        handlers.append(step.handler)
    assert [handler.code for handler in handlers] == ["return 1", None, " 2 ", ""]
    assert [text.raw for text in handlers[0].args] == ["$uri", "x"]
    assert handlers[1].path is not None
    assert handlers[1].path.raw == "$a.lua"
    assert handlers[0].chunk_name == "set_by_lua(nginx.conf:4)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("content_by_lua_block {}", "invalid location config: no runnable Lua code"),
        ("content_by_lua '';", "invalid location config: no runnable Lua code"),
        ("content_by_lua_file '';", "invalid location config: no runnable Lua code"),
        (
            "content_by_lua a; content_by_lua_file b;",
            '"content_by_lua_file" directive is duplicate',
        ),
        (
            "content_by_lua_block x { }",
            'invalid number of arguments in "content_by_lua_block" directive',
        ),
        ("content_by_lua_block;", 'directive "content_by_lua_block" has no opening "{"'),
        ("init_by_lua_block { x }", '"init_by_lua_block" directive is not allowed here'),
        ("server_rewrite_by_lua 'x';", 'unknown directive "server_rewrite_by_lua"'),
    ],
)
def test_mistakes(location: Read, refused: Refused, text: str, message: str) -> None:
    assert refused(location, text) == f"{message} in nginx.conf:4"


def test_warnings(http: Callable[[str], Config]) -> None:
    config = http("lua_load_resty_core on;\nlua_code_cache off;")
    assert config.warnings == (
        "[warn] lua_load_resty_core is deprecated (the lua-resty-core library is required since "
        "ngx_lua v0.10.16) in nginx.conf:2",
        "[alert] lua_code_cache is off; this will hurt performance in nginx.conf:3",
    )


def test_a_file_outside_of_the_folder_is_named_as_it_was_included() -> None:
    name = chunk_name("content_by_lua", "/p/conf/../html/a.conf", 2, "/p/conf")
    assert name == "content_by_lua(../html/a.conf:2)"
