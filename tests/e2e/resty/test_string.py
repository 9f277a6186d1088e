"""lua-resty-string: functions of libcrypto that it finds through ``ffi.C``, against Python's."""

from __future__ import annotations

import hashlib

import pytest
import trio
from real_servers import Run, require

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


@pytest.mark.parametrize("size", [128, 192, 256])
@pytest.mark.parametrize("mode", ["ecb", "cbc", "cfb1", "cfb8", "cfb128", "ofb", "ctr", "gcm"])
async def test_ciphers(run: Run, size: int, mode: str) -> None:
    """Each cipher, with a key of one's own: what it encrypts, OpenSSL's command decrypts."""
    require("openssl")
    key, iv = bytes(range(size // 8)), bytes(range(100, 112 if mode == "gcm" else 116))
    code = f"""
        local aes, str = require "resty.aes", require "resty.string"
        local function unhex(text)
            return (text:gsub("..", function(pair) return string.char(tonumber(pair, 16)) end))
        end
        local cipher = assert(aes:new(unhex "{key.hex()}", nil, aes.cipher({size}, "{mode}"),
            {{ iv = unhex "{iv.hex()}" }}))
        local text, tag = cipher:encrypt("A secret of some length.")
        if type(text) == "table" then text, tag = text[1], text[2] end
        ngx.say(str.to_hex(text), " ", tag and #tag or 0)
        ngx.say(cipher:decrypt(text, tag))
        if tag then
            ngx.say(cipher:decrypt(text, ("x"):rep(16)))
        end
    """
    lines = await run(code)
    encrypted, tag_length = lines[0].split()
    assert lines[1:] == ["A secret of some length."] + (
        ["nilEVP_DecryptFinal_ex failed"] if mode == "gcm" else []
    )
    assert int(tag_length) == (16 if mode == "gcm" else 0)
    if mode == "gcm":
        # the command has no such mode; without its tag the cipher is a counter that starts at 2
        mode, iv = "ctr", iv + bytes((0, 0, 0, 2))
    command = ["openssl", "enc", "-d", f"-aes-{size}-{mode.removesuffix('128')}", "-K", key.hex()]
    command += [] if mode == "ecb" else ["-iv", iv.hex()]
    done = await trio.run_process(command, stdin=bytes.fromhex(encrypted), capture_stdout=True)
    assert done.stdout == b"A secret of some length."


async def test_a_part_of_the_data(run: Run) -> None:
    code = """
        local md5, str = require("resty.md5"):new(), require "resty.string"
        md5:update("hel")
        md5:update("loxxx", 2)
        ngx.say(str.to_hex(md5:final()))
    """
    assert await run(code) == [hashlib.md5(b"hello").hexdigest()]


@pytest.mark.parametrize("name", ["md5", "sha1", "sha224", "sha256", "sha384", "sha512"])
async def test_keys_from_words(run: Run, name: str) -> None:
    """A key that a hash makes of a word, as ``EVP_BytesToKey`` does it."""
    require("openssl")
    code = f"""
        local aes, str = require "resty.aes", require "resty.string"
        for _, salt in ipairs {{ false, "MySalt!!" }} do
            local cipher = assert(aes:new("AKeyForAES", salt or nil, aes.cipher(256, "cbc"), aes.hash.{name}, 1))
            ngx.say(str.to_hex(cipher:encrypt("Secret message!")))
        end
        ngx.say(aes:new("AKeyForAES", "short"))
        ngx.say(aes.cipher(128, "cbc") ~= nil, " ", pcall(aes.cipher, 128, "none"))
    """
    lines = await run(code)
    for salt, encrypted in zip((b"", b"MySalt!!"), lines, strict=False):
        made, block = b"", b""
        while len(made) < 48:
            block = hashlib.new(name, block + b"AKeyForAES" + salt).digest()
            made += block
        command = ["openssl", "enc", "-d", "-aes-256-cbc", "-K", made[:32].hex()]
        command += ["-iv", made[32:48].hex()]
        done = await trio.run_process(command, stdin=bytes.fromhex(encrypted), capture_stdout=True)
        assert done.stdout == b"Secret message!"
    assert lines[2] == "nilsalt must be 8 characters or nil"
    assert lines[3].startswith("true false")
