"""What Lua code finds in ``ffi.C``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Lua


def test_hex_dump(lua: Lua) -> None:
    """Many times, so that the call is compiled."""
    code = """
        local ffi = require "ffi"
        ffi.cdef "unsigned char *ngx_hex_dump(unsigned char *dst, const unsigned char *src, size_t len);"
        local buf = ffi.new("uint8_t[?]", 16)
        local C, same = ffi.C, 0
        for i = 1, 1000 do
            local last = C.ngx_hex_dump(buf, "\\0\\255az", 4)
            if last == buf + 8 and ffi.string(buf, 8) == "00ff617a" then same = same + 1 end
        end
        out(same, C.ngx_hex_dump(buf, "", 0) == buf + 0)
    """
    assert lua.eval(code) == ["1000", "true"]


@pytest.mark.parametrize(
    ("text", "number"),
    [("42", 42), ("007", 7), ("", -1), ("-7", -1), ("4x", -1), ("9" * 19, -1)],
)
def test_atoi(lua: Lua, text: str, number: int) -> None:
    code = f"""
        local ffi = require "ffi"
        ffi.cdef "intptr_t ngx_atoi(const unsigned char *line, size_t n);"
        out(tonumber(ffi.C.ngx_atoi("{text}", {len(text)})))
    """
    assert lua.eval(code) == [str(number)]


def test_libcrypto(lua: Lua) -> None:
    code = """
        local ffi = require "ffi"
        ffi.cdef "unsigned char *SHA1(const unsigned char *d, size_t n, unsigned char *md);"
        local buf = ffi.new("uint8_t[20]")
        ffi.C.SHA1("abc", 3, buf)
        out(buf[0], buf[19])
    """
    assert lua.eval(code) == [str(0xA9), str(0x9D)]
