from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_lua.config.model import Config, ThreadPool
from trio_lua.config.nginx import dump, load, loads
from trio_lua.errors import ConfigError


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Writes files; returns the path of the first one."""

    def write_all(**files: str | bytes) -> str:
        paths = []
        for name, content in files.items():
            path = tmp_path / f"{name.replace('__', '/')}.conf"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
            paths.append(str(path))
        return paths[0]

    return write_all


def refusal(path: str, **options: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, **options)  # type: ignore[arg-type]
    return str(caught.value).replace(os.path.dirname(path) + "/", "")


# ---------------------------------------------------------------- files


def test_a_minimal_configuration(write: Callable[..., str]) -> None:
    path = write(nginx="events {}")
    config = load(path, prefix="/srv/")
    assert config == Config(prefix="/srv/", file=path)
    assert load(Path(path)).file == path


def test_the_main_context() -> None:
    config = loads(
        """
        daemon off; master_process off; worker_processes 4; worker_rlimit_nofile 100;
        worker_shutdown_timeout 5s; pid run/x.pid; env A; env B=1=2; env C=; working_directory /;
        error_log logs/a.log; error_log stderr debug_http; load_module x.so;
        worker_priority -5; worker_cpu_affinity auto; worker_rlimit_core 1g; timer_resolution 1ms;
        events { worker_connections 99; use epoll; multi_accept on; accept_mutex off; }
        """
    )
    assert (config.daemon, config.master_process, config.worker_processes) == (False, False, 4)
    assert (config.worker_connections, config.worker_rlimit_nofile) == (99, 100)
    assert (config.worker_shutdown_timeout, config.pid) == (5.0, "run/x.pid")
    assert config.env == (("A", None), ("B", "1=2"), ("C", ""))
    assert [(log.file, log.level) for log in config.error_logs] == [
        ("logs/a.log", "error"),
        ("stderr", "debug"),
    ]
    assert config.working_directory == "/"
    assert loads("events {} worker_processes auto;").worker_processes >= 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'no "events" section in configuration'),
        ("events {} events {}", '"events" directive is duplicate in nginx.conf:1'),
        ("events {}\nhttp {}\nhttp {}", '"http" directive is duplicate in nginx.conf:3'),
        ("events {\n", 'unexpected end of file, expecting "}" in nginx.conf:2'),
        ("events {}\n}", 'unexpected "}" in nginx.conf:2'),
        (
            "events {} worker_processes x;",
            '"worker_processes" directive invalid value in nginx.conf:1',
        ),
        ("events { worker_connections x; }", 'invalid number "x" in nginx.conf:1'),
        ("events { use magic; }", 'invalid event type "magic" in nginx.conf:1'),
        ("worker_priority x;", '"worker_priority" directive invalid number in nginx.conf:1'),
        (
            "worker_cpu_affinity 012;",
            'invalid character "2" in "worker_cpu_affinity" in nginx.conf:1',
        ),
        ("error_log a loud;", 'invalid log level "loud" in nginx.conf:1'),
        ("error_log a info warn;", 'duplicate log level "warn" in nginx.conf:1'),
        ("pid a; pid b;", '"pid" directive is duplicate in nginx.conf:1'),
        (
            "thread_pool a;",
            'invalid number of arguments in "thread_pool" directive in nginx.conf:1',
        ),
        (
            "thread_pool a max_queue=1;",
            '"thread_pool" must have "threads" parameter in nginx.conf:1',
        ),
        ("thread_pool a threads=0;", 'invalid threads value "threads=0" in nginx.conf:1'),
        (
            "thread_pool a threads=1 max_queue=x;",
            'invalid max_queue value "max_queue=x" in nginx.conf:1',
        ),
        (
            "thread_pool a threads=1; thread_pool a threads=2;",
            'duplicate thread pool "a" in nginx.conf:1',
        ),
        ("stream { }", '"stream" directive is not supported yet in nginx.conf:1'),
    ],
)
def test_mistakes_in_the_main_context(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loads(text)
    assert str(caught.value) == message


def test_thread_pools() -> None:
    config = loads(
        "thread_pool a threads=2; thread_pool b threads=1 max_queue=0 max_memory=64m; events {}"
    )
    assert config.thread_pools == (
        ThreadPool("a", threads=2, max_queue=65536, max_memory=None),
        ThreadPool("b", threads=1, max_queue=0, max_memory=64 << 20),
    )


def test_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    [warning] = loads("events {} user nobody_at_all;").warnings
    assert warning.startswith('[warn] the "user" directive makes sense only if')
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert loads("events {} user root root;").user == "root root"
    for text, message in (
        ("user nobody_at_all;", 'getpwnam("nobody_at_all") failed in nginx.conf:1'),
        ("user root nogroup_at_all;", 'getgrnam("nogroup_at_all") failed in nginx.conf:1'),
    ):
        with pytest.raises(ConfigError) as caught:
            loads(text)
        assert str(caught.value) == message


def test_includes(write: Callable[..., str]) -> None:
    path = write(
        nginx="include main.conf; http { include sub/*.conf; include none*.conf; types { include t.conf; } }",
        main="events {}",
        sub__b="server { listen 82; }",
        sub__a="server { listen 81; }",
        t="a/b x;",
    )
    http = load(path).http
    assert [server.listens[0].port for server in http.servers] == [81, 82]
    assert http.settings.types == {"x": "a/b"}
    assert http.servers[0].source.file.endswith("/sub/a.conf")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"nginx": "events {}\n\ninclude missing.conf;"},
            'open() "missing.conf" failed (2: No such file or directory) in nginx.conf:3',
        ),
        (
            {"nginx": "include a.conf;", "a": "events {}\nnope;"},
            'unknown directive "nope" in a.conf:2',
        ),
        (
            {"nginx": "include a.conf;", "a": "events {\n\n"},
            'unexpected end of file, expecting "}" in a.conf:3',
        ),
        ({"nginx": "events {include a.conf;", "a": "}"}, 'unexpected "}" in a.conf:1'),
        ({"nginx": "a", "a": ""}, 'unexpected end of file, expecting ";" or "}" in nginx.conf:1'),
        (
            {"nginx": "include nginx.conf;"},
            "blocks or includes are nested too deeply in nginx.conf:1",
        ),
        (
            {"nginx": "http { types { include a.conf; } }", "a": "a { }"},
            'unexpected "{" in a.conf:1',
        ),
        ({"nginx": "http { types { include a.conf; } }", "a": "}"}, 'unexpected "}" in a.conf:1'),
        (
            {"nginx": "http { types { include; } }"},
            'invalid number of arguments in "include" directive in nginx.conf:1',
        ),
        ({"nginx": b"\xff\xfe\x00;"}, 'unknown directive "\udcff\udcfe\0" in nginx.conf:1'),
        ({"nginx": "include 'a\0b';"}, 'open() "a\0b" failed (embedded null byte) in nginx.conf:1'),
    ],
)
def test_mistakes_name_the_file(
    write: Callable[..., str], files: dict[str, str | bytes], message: str
) -> None:
    assert refusal(write(**files)) == message


def test_files_that_cannot_be_read(write: Callable[..., str], tmp_path: Path) -> None:
    path = write(nginx="include sub;", sub__x="")
    assert refusal(path) == 'pread() "sub" failed (21: Is a directory) in nginx.conf:1'
    assert (
        refusal(str(tmp_path / "no.conf"))
        == 'open() "no.conf" failed (2: No such file or directory)'
    )
    if os.geteuid():
        os.chmod(path, 0)
        assert refusal(path) == 'open() "nginx.conf" failed (13: Permission denied)'


def test_deep_nesting_is_refused_without_a_traceback() -> None:
    text = "events {} http { server {" + "location / {" * 5000
    with pytest.raises(ConfigError, match="nested too deeply in nginx"):
        loads(text)


def test_overrides_come_first(write: Callable[..., str]) -> None:
    path = write(nginx="events {}\ndaemon on;")
    assert load(path, overrides="worker_processes 3; pid x;").worker_processes == 3
    assert (
        refusal(path, overrides="daemon off;") == '"daemon" directive is duplicate in nginx.conf:2'
    )
    assert refusal(path, overrides="nope;") == 'unknown directive "nope" in command line'
    assert (
        refusal(path, overrides="daemon x")
        == 'unexpected end of parameter, expecting ";" in command line'
    )


def test_dump(write: Callable[..., str], tmp_path: Path) -> None:
    path = write(nginx="events {}\ninclude a.conf;include a.conf;\n", a=b"# \xff\n")
    assert dump(path) == (
        f"# configuration file {path}:\nevents {{}}\ninclude a.conf;include a.conf;\n\n"
        f"# configuration file {tmp_path}/a.conf:\n# \udcff\n\n"
    )
    with pytest.raises(ConfigError):
        dump(write(b="nope;"))


def test_lua_code_keeps_its_bytes(write: Callable[..., str]) -> None:
    path = write(nginx=b"events {}http{init_by_lua_block {\r\n a = '\xff\xc3\xa9' }}")
    code = load(path).http.init_by_lua
    assert code is not None
    assert code.code is not None
    assert code.code.encode("utf-8", "surrogateescape") == b"\r\n a = '\xff\xc3\xa9' "


_PIECES = [
    "{",
    "}",
    ";",
    '"',
    "'",
    "\\",
    "$",
    "#",
    "(",
    ")",
    "=",
    "~",
    "[[",
    "]]",
    "--",
    "${",
    "0",
    "-1",
    "*",
    "@",
    "[::1]:80",
    "unix:",
    "location",
    "if",
    "server",
    "listen",
    "types",
    "set",
    "return",
    "rewrite",
    "error_page",
    "log_format",
    "access_log",
    "include",
    "expires",
    "resolver",
    "deny",
    "limit_rate",
    "index",
    "server_name",
    "content_by_lua_block",
    "set_by_lua_block",
    "set_by_lua",
    "try_files",
    "alias",
    "$uri",
    "$x",
    "on",
    "off",
    "1k",
]


@given(st.lists(st.sampled_from([*_PIECES, "\n", "\0", "\udc80", "\u2003"]), max_size=30))
def test_any_text_gives_a_configuration_or_an_error(words: list[str]) -> None:
    for text in (" ".join(words), "events {} http { server { " + " ".join(words)):
        try:
            loads(text, file="/nowhere/nginx.conf")
        except ConfigError as error:
            line = error.line
        else:
            line = 1
        assert 0 <= line <= text.count("\n") + 1
