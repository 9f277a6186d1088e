"""``lua_shared_dict``."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from trio_lua.config.model import Config

Http = Callable[[str], Config]
Refused = Callable[[Callable[[str], object], str], str]


def test_names_and_sizes(http: Http) -> None:
    config = http("lua_shared_dict a 8k; lua_shared_dict b 10m; lua_shared_dict c 100000;")
    assert config.http.shared_dicts == (("a", 8192), ("b", 10 << 20), ("c", 100_000))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('lua_shared_dict "" 1m;', 'invalid lua shared dict name ""'),
        ("lua_shared_dict a 8191;", 'invalid lua shared dict size "8191"'),
        ("lua_shared_dict a 1x;", 'invalid lua shared dict size "1x"'),
        ("lua_shared_dict a 1g;", 'invalid lua shared dict size "1g"'),
        ("lua_shared_dict a 7169m;", 'invalid lua shared dict size "7169m"'),
        (
            "lua_shared_dict a 1m; lua_shared_dict a 1m;",
            'lua_shared_dict "a" is already defined as "a"',
        ),
    ],
)
def test_refused(http: Http, refused: Refused, text: str, problem: str) -> None:
    assert problem in refused(http, text)
