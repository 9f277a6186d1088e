"""The set-misc module, against what nginx with the module of that name answers."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from serving import row

from trio_lua.config.nginx import loads
from trio_lua.errors import ConfigError
from trio_lua.modules import BUNDLED

Site = Callable[..., Any]


VALUES = [
    ("set_quote_sql_str $x $arg_a;", r"'it\'s'"),
    ("set_quote_pgsql_str $x $arg_a;", r"E'it\'s'"),
    ("set_quote_json_str $x $arg_a;", '"it\'s"'),
    ("set_quote_json_str $x $arg_none;", "null"),
    ("set_escape_uri $x 'a b';", "a%20b"),
    ("set_unescape_uri $x $arg_b;", "c d!"),
    ("set_md5 $x hello;", "5d41402abc4b2a76b9719d911017c592"),
    ("set_sha1 $x hello;", "aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d"),
    ("set_encode_base32 $x abcde;", "c5h66p35"),
    ("set_decode_base32 $x c5h66p35;", "abcde"),
    ("set_decode_base32 $x !!!;", ""),
    ("set_encode_base64 $x abcde;", "YWJjZGU="),
    ("set_decode_base64 $x YWJjZGU=;", "abcde"),
    ("set_encode_base64url $x abcde;", "YWJjZGU"),
    ("set_decode_base64url $x YWJjZGU;", "abcde"),
    ("set_encode_hex $x abc;", "616263"),
    ("set_decode_hex $x 6162633F;", "abc?"),
    ("set_hmac_sha1 $x thisisverysecretstuff 'some string we want to sign';"
     "set_encode_base64 $x;", "R/pvxzHC4NLtj7S+kXFg/NePTmk="),
    ("set_hmac_sha256 $x thisisverysecretstuff 'some string we want to sign';"
     "set_encode_base64 $x;", "4pU3GRQrKKIoeLb9CqYsavHE2l6Hx+KMmRmesU+Cfrs="),
    ("set $x ''; set_if_empty $x default;", "default"),
    ("set $x value; set_if_empty $x default;", "value"),
    ("set_if_empty $x default;", "default"),
    ("set_random $x 7 7;", "7"),
    ("set_formatted_gmt_time $x '';", ""),
    ("set_base32_alphabet ABCDEFGHIJKLMNOPQRSTUVWXYZ234567; set_base32_padding off;"
     "set_encode_base32 $x hi;", "NBUQ"),
    ("set_misc_base32_padding off; set_encode_base32 $x hi;", "d1kg"),
    ("set $x ab; if ($uri) { set_encode_hex $x; }", "6162"),
]  # fmt: skip


async def test_values(site: Site) -> None:
    servers = (f"location / {{ {directives} echo -n $x; }}" for directives, _ in VALUES)
    async with site(*servers) as running:
        for number, (directives, value) in enumerate(VALUES):
            with row(directives):
                assert await running.text("/?a=it's&b=c+d%21", host=f"row{number}") == value


FAILURES = [
    ("set_decode_base64 $x !!!;", "set_decode_base64: invalid value"),
    ("set_decode_base64url $x !!!;", "set_decode_base64url: invalid value"),
    ("set_decode_hex $x xx;", "set_decode_hex: invalid value"),
    ("set_decode_hex $x a;", "set_decode_hex: invalid value"),
    ("set_random $x a 7;", 'set_random: bad "from" argument: a'),
    ("set_random $x 1 -7;", 'set_random: bad "to" argument: -7'),
    ("set_rotate $x a 7;", 'set_rotate: bad "from" argument: a'),
    ("set_secure_random_lcalpha $x 65;", 'set_random: bad "length" argument: 65'),
    ("set_secure_random_alphanum $x 0;", 'set_random: bad "length" argument: 0'),
    ("set $l none; set_hashed_upstream $x $l key;",
     'set_hashed_upstream: upstream list "none" not defined yet'),
    ("set $f %Y%Y; set_formatted_gmt_time $x "
     f"{'$f' * 40};", "formatted time is empty or too long"),
]  # fmt: skip


async def test_failures(site: Site) -> None:
    servers = (f"location / {{ {directives} echo -n $x; }}" for directives, _ in FAILURES)
    async with site(*servers) as running:
        for number, (directives, message) in enumerate(FAILURES):
            with row(directives):
                running.log.clear()
                status, _headers, _body = await running.get("/", host=f"row{number}")
                assert status == 500
                assert message in running.log.text(4)


async def test_chance(site: Site) -> None:
    async with site(
        """location / { set_random $a 7 5; set_secure_random_alphanum $b 64;
                        set_secure_random_lcalpha $c 3; echo "$a $b $c"; }"""
    ) as running:
        assert re.fullmatch(r"[567] [0-9a-zA-Z]{64} [a-z]{3}\n", await running.text("/"))


async def test_turns(site: Site) -> None:
    async with site(
        """location /given { set $x $arg_x; set_rotate $x 1 3; echo -n $x; }
        location /kept { set_rotate $x 3 1; echo -n $x; }"""
    ) as running:
        assert await running.text("/given?x=1") == "2"
        assert await running.text("/given?x=3") == "1"
        assert await running.text("/given?x=9") == "1"
        assert await running.text("/given?x=z") == "2"
        assert 'set_rotate: bad current value: "z"' in running.log.text(4)
        assert [await running.text("/kept") for _ in range(4)] == ["1", "2", "3", "1"]


async def test_upstream_lists(site: Site) -> None:
    async with site(
        """location / { set $l universe; set_hashed_upstream $a universe $arg_k;
                        set_hashed_upstream $b $l $arg_k; echo $a $b; }""",
        http="upstream_list universe moon sun earth;",
    ) as running:
        assert await running.text("/?k=a") == "sun sun\n"
        assert await running.text("/?k=cde") == "moon moon\n"
        assert await running.text("/?k=Z") == "earth earth\n"


async def test_dates(site: Site) -> None:
    async with site(
        """location / { set_local_today $a; set_formatted_gmt_time $b "%Y-%m-%dT%H:%M:%SZ";
                        set_formatted_local_time $c "%Y %Z"; echo "$a|$b|$c"; }"""
    ) as running:
        today, gmt, local = (await running.text("/")).split("|")
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", today)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", gmt)
        assert local.startswith(today[:4])


async def test_from_lua(site: Site) -> None:
    async with site(
        """location / { set_base32_padding off; content_by_lua_block {
            assert(require "ndk" == ndk)
            ngx.say(ndk.set_var.set_escape_uri(" :"), ndk.set_var.set_unescape_uri("a%20"))
            ngx.say(ndk.set_var.set_encode_base32("a"), ndk.set_var.set_md5(12))
            ngx.say(ndk.set_var.set_quote_json_str(nil))
            ngx.say(#ndk.set_var.set_local_today())
            ngx.say(pcall(ndk.set_var.set_decode_hex, "x"))
            ngx.say(pcall(function() return ndk.set_var.set_random end))
            ngx.say(pcall(function() return ndk.set_var[1] end))
            ngx.say(pcall(function() ndk.set_var.x = 1 end))
        } }"""
    ) as running:
        absent = 'directive "%s" not found or does not use ndk_set_var_value'
        lines = (await running.text("/")).splitlines()
        assert lines[:4] == ["%20%3Aa ", "c4c20ad4d76fe97759aa27a0c99bff6710", '"nil"', "10"]
        assert lines[4].endswith("calling directive set_decode_hex failed with code -1")
        assert absent % "set_random" in lines[5]
        assert absent % "1" in lines[6]
        assert lines[7].endswith("not allowed")
        assert "set_decode_hex: invalid value" in running.log.text(4)


@pytest.mark.parametrize(
    ("directives", "message"),
    [
        ("set_md5 x;", 'invalid variable name "x"'),
        ("set_md5 $x a b;", 'invalid number of arguments in "set_md5" directive'),
        ("set_hmac_sha1 $x key;", 'invalid number of arguments in "set_hmac_sha1" directive'),
        ("set_formatted_gmt_time $x;",
         'invalid number of arguments in "set_formatted_gmt_time" directive'),
        ("set_md5 $uri a;", 'the duplicate "uri" variable'),
        ("set_base32_alphabet abc;",
         '"set_base32_alphabet" directive takes an alphabet of 32 bytes, not 3'),
        ("set_base32_alphabet aacdefghijklmnopqrstuvwxyz234567;",
         '"set_base32_alphabet" directive takes an alphabet of different characters'),
        ("set_hashed_upstream $x none key;",
         'set_hashed_upstream: upstream list "none" not defined yet'),
    ],
)  # fmt: skip
def test_mistakes(directives: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loads(f"events {{}} http {{ server {{ {directives} }} }}", modules=BUNDLED)
    assert caught.value.message == message


def test_an_upstream_list_is_written_once() -> None:
    with pytest.raises(ConfigError, match='duplicate upstream list "a"'):
        loads("events {} http { upstream_list a b; upstream_list a c; }", modules=BUNDLED)
