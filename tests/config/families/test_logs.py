from __future__ import annotations

from collections.abc import Callable

import pytest

from trio_lua.config.model import Config, ErrorLog

Http = Callable[[str], Config]


def test_access_logs(http: Http) -> None:
    settings = http(
        "log_format mine $uri;\naccess_log logs/a; access_log logs/$host MINE buffer;".replace(
            " buffer", ""
        )
        + "access_log /c mine buffer=4k flush=1s if=$arg_x;"
    ).http.settings
    first, second, third = settings.access_logs
    assert (first.path.raw, first.format, first.condition) == ("logs/a", "combined", None)
    assert (second.path.raw, second.format) == ("logs/$host", "mine")
    assert third.condition is not None
    assert third.condition.raw == "$arg_x"


def test_the_error_log_that_misses_nothing(http: Http) -> None:
    config = http("error_log a warn; server { error_log b; error_log c info; error_log d crit; }")
    assert config.http.settings.error_log == ErrorLog("a", "warn")
    assert config.http.servers[0].location.settings.error_log == ErrorLog("c", "info")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("log_format combined x;", 'duplicate "log_format" name "combined"'),
        ("log_format x escape=y z;", 'unknown log format escaping "y"'),
        ("access_log off x;", 'invalid parameter "x"'),
        ("access_log x nope;", 'unknown log format "nope"'),
        ("access_log x combined y;", 'invalid parameter "y"'),
        ("access_log x combined buffer=y;", 'invalid buffer size "y"'),
        ("access_log x combined buffer=1k flush=0;", 'invalid flush time "0"'),
        ("access_log x combined flush=1s;", 'no buffer is defined for access_log "x"'),
        ("access_log $uri combined buffer=1k;", "buffered logs cannot have variables in name"),
        ("access_log x combined gzip;", '"gzip" in "access_log" directive is not supported yet'),
        ("error_log memory:x;", '"memory:x" in "error_log" directive is not supported yet'),
        ("error_log x debug_http warn;", 'duplicate log level "warn"'),
        ("error_log x warn debug_http;", 'invalid log level "debug_http"'),
    ],
)
def test_mistakes(http: Http, refused: Callable[[Http, str], str], text: str, message: str) -> None:
    assert refused(http, text) == f"{message} in nginx.conf:2"
