"""lua-resty-string: functions of libcrypto that it finds through ``ffi.C``, against Python's."""

from __future__ import annotations

import hashlib

import pytest
from real_servers import Run

NEEDS = ["resty.string", "resty.aes"]


@pytest.mark.parametrize("name", ["md5", "sha1", "sha224", "sha256", "sha384", "sha512"])
async def test_digests(run: Run, name: str) -> None:
    code = f"""
        local digest, str = require "resty.{name}", require "resty.string"
        local d = digest:new()
        assert(d:update("hello, "))
        assert(d:update("world"))
        ngx.say(str.to_hex(d:final()))
        assert(d:reset())
        assert(d:update(""))
        ngx.say(str.to_hex(d:final()))
    """
    assert await run(code) == [
        hashlib.new(name, b"hello, world").hexdigest(),
        hashlib.new(name).hexdigest(),
    ]


async def test_hexadecimal_and_numbers(run: Run) -> None:
    code = """
        local str = require "resty.string"
        ngx.say(str.to_hex("\\0\\255A"), " ", str.atoi("42"), " ", str.atoi("42x"))
    """
    assert await run(code) == ["00ff41 42 -1"]


async def test_random(run: Run) -> None:
    code = """
        local random = require "resty.random"
        ngx.say(#random.bytes(16), " ", #random.bytes(16, true), " ", random.bytes(16) ~= random.bytes(16))
    """
    assert await run(code) == ["16 16 true"]


async def test_aes(run: Run) -> None:
    """Known vectors of NIST SP 800-38A for the ciphers, then what the README shows."""
    code = """
        local aes, str = require "resty.aes", require "resty.string"
        local function unhex(text)
            return (text:gsub("..", function(pair) return string.char(tonumber(pair, 16)) end))
        end
        local key = unhex "2b7e151628aed2a6abf7158809cf4f3c"
        local iv = unhex "000102030405060708090a0b0c0d0e0f"
        local block = unhex "6bc1bee22e409f96e93d7e117393172a"
        local cbc = assert(aes:new(key, nil, aes.cipher(128, "cbc"), { iv = iv }, nil, nil, false))
        ngx.say(str.to_hex(cbc:encrypt(block)))
        ngx.say(cbc:decrypt(cbc:encrypt(block)) == block)
        for _, mode in ipairs { "cbc", "ctr", "cfb8", "ofb", "ecb", "gcm" } do
            local key = ("k"):rep(32)
            local c = assert(aes:new(key, nil, aes.cipher(256, mode),
                { iv = ("i"):rep(mode == "gcm" and 12 or 16) }))
            local text, tag = unpack(mode == "gcm" and c:encrypt("secret") or { c:encrypt("secret") })
            ngx.say(mode, " ", c:decrypt(text, tag), " ", text ~= "secret")
        end
        local hashed = assert(aes:new("password", "saltsalt", aes.cipher(256, "cbc"), aes.hash.sha512, 5))
        ngx.say(hashed:decrypt(hashed:encrypt("secret")))
        ngx.say(assert(aes:new("password")):decrypt("nonsense"))
    """
    assert await run(code) == [
        "7649abac8119b246cee98e9b12e9197d",
        "true",
        *(f"{mode} secret true" for mode in ("cbc", "ctr", "cfb8", "ofb", "ecb", "gcm")),
        "secret",
        "nilEVP_DecryptFinal_ex failed",
    ]
