"""C functions of nginx's own that public libraries call through ``ffi.C`` (lua-resty-string does).

No library here exports them. They are Python functions with a C calling convention, and ``06_symbols.lua`` puts their
addresses where LuaJIT looks for symbols that it has resolved already. That is possible for functions that
do not need a VM: one that called back into Lua could not be called from compiled code.
"""

from __future__ import annotations

import ctypes

__all__ = ["SYMBOLS"]


def _hex_dump(target: int | None, source: int | None, size: int) -> int | None:
    """``u_char *ngx_hex_dump(u_char *dst, u_char *src, size_t len)``: the end of what was written."""
    if not target or not source:
        return target
    text = ctypes.string_at(source, size).hex().encode()
    ctypes.memmove(target, text, len(text))
    return target + len(text)


def _atoi(line: int | None, size: int) -> int:
    """``ngx_int_t ngx_atoi(u_char *line, size_t n)``: -1 for what is no number."""
    text = ctypes.string_at(line, size) if line else b""
    # digits of ASCII only, and no more than fit
    value = int(text) if text.isdigit() else -1
    return value if value < 1 << (8 * ctypes.sizeof(ctypes.c_ssize_t) - 1) else -1


#: They live as long as the process.
_CALLABLE = {
    "ngx_atoi": ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_size_t)(_atoi),
    "ngx_hex_dump": ctypes.CFUNCTYPE(
        ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t
    )(_hex_dump),
}

_TYPES = {
    "ngx_atoi": "intptr_t (*)(const unsigned char *, size_t)",
    "ngx_hex_dump": "unsigned char *(*)(unsigned char *, const unsigned char *, size_t)",
}

#: Name -> C type and address.
SYMBOLS = {
    name: (_TYPES[name], ctypes.cast(function, ctypes.c_void_p).value)
    for name, function in _CALLABLE.items()
}
