"""``map``, ``geo`` and ``split_clients``."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trio_lua.config.nginx import loads
from trio_lua.errors import ConfigError
from trio_lua.modules import BUNDLED
from trio_lua.modules.map import murmur_hash2

Open = Callable[..., Any]


def loaded(http: str) -> Any:
    return loads(f"events {{}} http {{ {http} }}", modules=BUNDLED)


async def test_map(site: Open, tmp_path: Path) -> None:
    (tmp_path / "more").write_text("included yes;")
    http = f"""
        map $arg_k $plain {{ default "none of $arg_k"; Key key; "" empty; include {tmp_path}/more; }}
        map $arg_k $site {{
            hostnames; default other;
            .example.com domain; www.example.com exact; *.deep.example.com deep;
            mail.* tail; \\hostnames literal;
        }}
        map $arg_k $regex {{ ~^a(b+)(?<last>.)$ "$1-$last"; ~*^Z z; }}
    """
    async with site(
        """
        location / { return 200 $plain; }
        location /host { return 200 $site; }
        location /regex { return 200 "$regex $1"; }
        location ~ ^/(keep) { return 200 "$regex $1"; }
        """,
        http=http,
    ) as server:
        for key, value in (
            ("KEY", "key"),
            ("", "empty"),
            ("other", "none of other"),
            ("included", "yes"),
        ):
            assert await server.text(f"/?k={key}") == value
        for key, value in (
            ("example.com", "domain"),
            ("a.example.com.", "domain"),
            ("www.Example.com", "exact"),
            ("a.b.deep.example.com", "deep"),
            ("mail.org", "tail"),
            ("hostnames", "literal"),
            ("deepexample.com", "other"),
        ):
            assert await server.text(f"/host?k={key}") == value
        assert await server.text("/regex?k=abbc") == "bb-c bb"
        assert await server.text("/regex?k=zoo") == "z "
        assert await server.text("/regex?k=x") == " "
        # a pattern that does not match leaves the groups of the one before
        assert await server.text("/keep?k=x") == " keep"


async def test_values_are_kept(site: Open) -> None:
    http = """
        map $arg_v $kept { default $arg_v; }
        map $arg_v $fresh { volatile; default $arg_v; }
        map $arg_v $unread { default $arg_v; }
    """
    async with site(
        """
        location / {
            set $first "$kept $fresh";
            content_by_lua_block {
                local var = ngx.var
                local before = var.unread
                var.args = "v=2"
                ngx.print(var.first, " ", var.kept, " ", var.fresh, " ", before, " ", var.unread)
                var.kept = "mine"
                ngx.print(" ", var.kept)
            }
        }
        """,
        http=http,
    ) as server:
        assert await server.text("/?v=1") == "1 1 1 2 1 2 mine"


async def test_geo(site: Open) -> None:
    http = """
        geo $arg_a $place {
            default nowhere; 10.0.0.0/8 ten; 10.1.0.0/16 one; 10.1.0.0/16 "ten one"; 2001:db8::/32 six;
            11.0.0.0/8 gone; delete 11.0.0.0/8; 255.255.255.255 none;
        }
        geo $arg_a $range { ranges; default far; 10.0.0.0-10.0.0.255 near; 10.0.1.0-10.2.0.0 next; }
    """
    async with site("location / { return 200 '$place, $range'; }", http=http) as server:
        for address, value in (
            ("10.2.3.4", "ten, far"),
            ("10.1.3.4", "ten one, next"),
            ("10.0.0.255", "ten, near"),
            ("::ffff:10.0.0.1", "ten, near"),
            ("2001:db8::1", "six, far"),
            ("2001:db9::1", "nowhere, far"),
            ("11.0.0.1", "nowhere, far"),
            ("no address", "none, far"),
            ("", "none, far"),
        ):
            assert await server.text(f"/?a={address}".replace(" ", "+")) == value


async def test_geo_behind_proxies(site: Open) -> None:
    http = """
        geo $arg_a $direct { proxy 10.0.0.0/8; 192.0.2.0/24 test; 10.0.0.0/8 proxy; default other; }
        geo $arg_a $chain { proxy 10.0.0.0/8; proxy_recursive; 192.0.2.0/24 test; 10.0.0.0/8 proxy; default other; }
    """
    async with site("location / { return 200 '$direct, $chain'; }", http=http) as server:
        for address, forwarded, value in (
            ("10.0.0.1", "192.0.2.1", "test, test"),
            ("10.0.0.1", "192.0.2.1, 10.0.0.2", "proxy, test"),
            ("10.0.0.1", "192.0.2.1, nobody, 10.0.0.2", "proxy, proxy"),
            ("9.0.0.1", "192.0.2.1", "other, other"),
        ):
            assert await server.text(f"/?a={address}", f"X-Forwarded-For: {forwarded}") == value


async def test_split_clients(site: Open) -> None:
    http = """
        split_clients $arg_s $share { 0.5% .half; 20% .twenty; 33.33% .third; * rest; }
        split_clients $arg_s $half { 50% half; }
    """
    async with site("location / { return 200 '$share,$half'; }", http=http) as server:
        # as nginx 1.22.1 splits them
        for text, value in (
            ("", ".half,half"),
            ("a", "rest,"),
            ("b", ".third,"),
            ("c", ".twenty,half"),
            ("abcde", ".third,half"),
            ("longerstring", "rest,"),
            ("xyz12345", ".twenty,half"),
        ):
            assert await server.text(f"/?s={text}") == value
    assert murmur_hash2(b"") == 0


def test_warnings() -> None:
    config = loaded("geo $x { 1.2.3.4 a; 1.2.3.4 b; delete 5.0.0.0/8; }")
    assert [text.split(" in ")[0] for text in config.warnings] == [
        '[warn] duplicate network "1.2.3.4/32", value: "b", old value: "a"',
        '[warn] no network "5.0.0.0/8" to delete',
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("map $arg_a b { }", 'invalid variable name "b"'),
        ("map $arg_a $b { x; }", "invalid number of the map parameters"),
        ("map $arg_a $b { default 1; default 2; }", "duplicate default map parameter"),
        ("map $arg_a $b { x 1; X 2; }", 'conflicting parameter "X"'),
        ("map $arg_a $b { hostnames; *.x.* 2; }", 'invalid hostname or wildcard "*.x.*"'),
        ("map $arg_a $b { ~( 2; }", "missing closing parenthesis"),
        ("map $arg_a $b { x $nobody; }", 'unknown "nobody" variable'),
        ("geo a $b { }", 'invalid variable name "a"'),
        ("geo $b { 1.2.3 x; }", 'invalid network "1.2.3"'),
        ("geo $b { x; }", "invalid number of the geo parameters"),
        ("geo $b { 1.0.0.0/8 x; ranges; }", 'the "ranges" directive must be the first'),
        ("geo $b { ranges; 1.2.3.4-1.2.3.3 x; }", 'invalid range "1.2.3.4-1.2.3.3"'),
        ("geo $b { ranges; 1.0.0.0-1.0.0.9 x; 1.0.0.9-1.1.0.0 y; }", "overlaps"),
        ("split_clients x $b { 60% a; 50% b; }", "percent total is greater than 100%"),
        ("split_clients x $b { 0.001% a; }", 'invalid percent value "0.001%"'),
        ("split_clients x $b { 0% a; }", 'invalid percent value "0%"'),
    ],
)
def test_mistakes(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        loaded(text)
