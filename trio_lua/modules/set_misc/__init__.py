"""The set-misc module: variables that are computed (OpenResty's set-misc-nginx-module).

Every directive is a function; those with one argument are also ``ndk.set_var.NAME`` in Lua. Beside them stand
``upstream_list``, which nginx's development kit has, and the settings of base32.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import random
import secrets
import string
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from trio_lua.config.directives import Context, Use, takes
from trio_lua.modules.set_misc import encoders
from trio_lua.request.module import Exchange, Module

__all__ = ["MODULE"]

MODULE = Module("set_misc")

_ERROR = 4

#: Of http, server, location and both kinds of ``if``.
_SETTING = Context.SETTING_IF | Context.SERVER_IF

_LONGEST_RANDOM = 64
_LONGEST_TIME = 255


def _fail(request: Exchange | None, message: bytes) -> bytes | None:
    if request is not None:
        request.log(_ERROR, message)
    return None


# ---------------------------------------------------------------- one text from another


def _md5(text: bytes) -> bytes:
    return hashlib.md5(text, usedforsecurity=False).hexdigest().encode()


def _sha1(text: bytes) -> bytes:
    return hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()


def _add(name: str, convert: Callable[[bytes], bytes]) -> None:
    @MODULE.set_function(name)
    def function(request: Exchange | None, text: bytes) -> bytes | None:
        try:
            return convert(text)
        except ValueError:
            return _fail(request, name.encode() + b": invalid value")


for _name, _convert in {
    "set_decode_base64": encoders.decode_base64,
    "set_decode_base64url": encoders.decode_base64url,
    "set_decode_hex": encoders.decode_hex,
    "set_encode_base64": encoders.encode_base64,
    "set_encode_base64url": encoders.encode_base64url,
    "set_encode_hex": encoders.encode_hex,
    "set_escape_uri": encoders.escape_uri,
    "set_md5": _md5,
    "set_quote_json_str": encoders.quote_json,
    "set_quote_pgsql_str": encoders.quote_pgsql,
    "set_quote_sql_str": encoders.quote_sql,
    "set_sha1": _sha1,
    "set_unescape_uri": encoders.unescape_uri,
}.items():
    _add(_name, _convert)


# ---------------------------------------------------------------- base32


@MODULE.directive("set_base32_padding", _SETTING, takes(1))
@MODULE.directive("set_misc_base32_padding", _SETTING, takes(1))
def _padding(use: Use) -> None:
    if use.name == "set_misc_base32_padding":
        use.warn(
            'the "set_misc_base32_padding" directive is deprecated, '
            'use the "set_base32_padding" directive instead'
        )
    use.put_setting("set_base32_padding", use.switch())


@MODULE.directive("set_base32_alphabet", _SETTING, takes(1))
def _alphabet(use: Use) -> None:
    alphabet = use.args[0].encode("utf-8", "surrogateescape")
    if len(alphabet) != 32:
        raise use.error(
            f'"set_base32_alphabet" directive takes an alphabet of 32 bytes, not {len(alphabet)}'
        )
    if len(set(alphabet)) != 32:
        raise use.error('"set_base32_alphabet" directive takes an alphabet of different characters')
    use.put_setting("set_base32_alphabet", alphabet)


def _setting(request: Exchange | None, name: str, default: Any) -> Any:
    value = None if request is None else request.setting(name)
    return default if value is None else value


@MODULE.set_function("set_encode_base32")
def _encode_base32(request: Exchange | None, text: bytes) -> bytes:
    alphabet = _setting(request, "set_base32_alphabet", encoders.BASE32_ALPHABET)
    padding = _setting(request, "set_base32_padding", True)
    return encoders.encode_base32(text, alphabet, padding=padding)


@MODULE.set_function("set_decode_base32")
def _decode_base32(request: Exchange | None, code: bytes) -> bytes:
    alphabet = _setting(request, "set_base32_alphabet", encoders.BASE32_ALPHABET)
    try:
        return encoders.decode_base32(code, alphabet)
    except ValueError:
        # Unlike the other decoders this one never fails.
        return b""


# ---------------------------------------------------------------- HMAC


@MODULE.set_function("set_hmac_sha1", 2)
def _hmac_sha1(_request: Exchange | None, key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, text, "sha1")


@MODULE.set_function("set_hmac_sha256", 2)
def _hmac_sha256(_request: Exchange | None, key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, text, "sha256")


# ---------------------------------------------------------------- chance and turns


def _number(text: bytes) -> int | None:
    return int(text) if text.isdigit() else None


def _range(
    request: Exchange, directive: bytes, first: bytes, last: bytes
) -> tuple[int, int] | None:
    low, high = _number(first), _number(last)
    if low is None:
        _fail(request, b'%b: bad "from" argument: %b' % (directive, first))
    elif high is None:
        _fail(request, b'%b: bad "to" argument: %b' % (directive, last))
    else:
        return min(low, high), max(low, high)
    return None


@MODULE.set_function("set_random", 2)
def _random(request: Exchange, first: bytes, last: bytes) -> bytes | None:
    found = _range(request, b"set_random", first, last)
    return None if found is None else b"%d" % random.randint(*found)


def _add_random_text(name: str, alphabet: str) -> None:
    @MODULE.set_function(name)
    def function(request: Exchange | None, length: bytes) -> bytes | None:
        count = _number(length)
        if count is None or not 1 <= count <= _LONGEST_RANDOM:
            return _fail(request, b'set_random: bad "length" argument: ' + length)
        return "".join(secrets.choice(alphabet) for _ in range(count)).encode()


_add_random_text("set_secure_random_alphanum", string.ascii_letters + string.digits)
_add_random_text("set_secure_random_lcalpha", string.ascii_lowercase)


@MODULE.worker_resource
@contextlib.asynccontextmanager
async def _turns(_config: Any) -> AsyncIterator[dict[int, int]]:
    """The last number of ``set_rotate``, by ``id()`` of the location."""
    yield {}


@MODULE.set_function("set_rotate", 2, target=True)
def _rotate(request: Exchange, value: bytes, first: bytes, last: bytes) -> bytes | None:
    found = _range(request, b"set_rotate", first, last)
    if found is None:
        return None
    low, high = found
    turns = request.resource("set_misc")
    current = _number(value)
    if current is None:
        if value:
            _fail(request, b'set_rotate: bad current value: "%b"' % value)
        current = turns.get(id(request.location), low - 1)
    current += 1
    if not low <= current <= high:
        current = low
    turns[id(request.location)] = current
    return b"%d" % current


# ---------------------------------------------------------------- defaults and choices


@MODULE.set_function("set_if_empty", 1, target=True)
def _if_empty(_request: Exchange, value: bytes, default: bytes) -> bytes:
    return value or default


@MODULE.directive("upstream_list", Context.HTTP, takes(2, None))
def _upstream_list(use: Use) -> None:
    lists = use.block.extra.setdefault("upstream_list", {})
    name, *upstreams = use.args
    if name in lists:
        raise use.error(f'duplicate upstream list "{name}"')
    lists[name] = [upstream.encode() for upstream in upstreams]


def _check_upstream_list(use: Use) -> None:
    name = use.args[1]
    lists = {} if use.build.http is None else use.build.http.extra.get("upstream_list", {})
    if "$" not in name and name not in lists:
        raise use.error(f'set_hashed_upstream: upstream list "{name}" not defined yet')


@MODULE.set_function("set_hashed_upstream", 2, check=_check_upstream_list)
def _hashed_upstream(request: Exchange, name: bytes, key: bytes) -> bytes | None:
    upstreams = (request.setting("upstream_list") or {}).get(name.decode("utf-8", "replace"))
    if upstreams is None:
        return _fail(request, b'set_hashed_upstream: upstream list "%b" not defined yet' % name)
    return upstreams[encoders.hash_lower(key) % len(upstreams)]  # type: ignore[no-any-return]


# ---------------------------------------------------------------- dates


def _formatted(request: Exchange | None, form: bytes, moment: time.struct_time) -> bytes | None:
    text = time.strftime(form.decode("utf-8", "surrogateescape"), moment)
    data = text.encode("utf-8", "surrogateescape")
    if not form or 0 < len(data) <= _LONGEST_TIME:
        return data
    return _fail(request, b'formatted time is empty or too long: "%b"' % form)


def _now(request: Exchange | None) -> float:
    return time.time() if request is None else request.now()


# Lua gives every function an argument.
@MODULE.set_function("set_local_today", 0)
def _local_today(request: Exchange | None, *_ignored: bytes) -> bytes:
    return time.strftime("%Y-%m-%d", time.localtime(_now(request))).encode()


@MODULE.set_function("set_formatted_gmt_time", in_place=False)
def _gmt_time(request: Exchange | None, form: bytes) -> bytes | None:
    return _formatted(request, form, time.gmtime(_now(request)))


@MODULE.set_function("set_formatted_local_time", in_place=False)
def _local_time(request: Exchange | None, form: bytes) -> bytes | None:
    return _formatted(request, form, time.localtime(_now(request)))
