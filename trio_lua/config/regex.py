"""Regular expressions in the configuration, tried out when it is loaded.

What runs them later is PCRE2 in the worker; a mistake should show before. Where the PCRE2
library is not to be found, nothing is tried, and the worker reports the mistake when it starts.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trio_lua.config.directives import Use

__all__ = ["check", "mistake"]

_CASELESS = 0x00000008
_NAMES = ("libpcre2-8.so.0", "libpcre2-8.so", "libpcre2-8.dylib", "libpcre2-8.0.dylib")


def check(use: Use, pattern: str, *, caseless: bool = False) -> None:
    """Declares the named groups of a pattern as variables.

    Raises:
        ConfigError: It cannot be compiled.
    """
    complaint = mistake(pattern, caseless)
    if complaint:
        raise use.error(complaint)
    use.build.variables.declare_groups(pattern)


@lru_cache(maxsize=1024)
def mistake(pattern: str, caseless: bool = False) -> str:
    """What is wrong with a pattern, in nginx's words; "" when it is right."""
    library = _library()
    if library is None:
        return ""
    import ctypes

    text = pattern.encode("utf-8", "surrogateescape")
    number = ctypes.c_int()
    offset = ctypes.c_size_t()
    code = library.pcre2_compile_8(
        text,
        len(text),
        _CASELESS if caseless else 0,
        ctypes.byref(number),
        ctypes.byref(offset),
        None,
    )
    if code:
        library.pcre2_code_free_8(code)
        return ""
    message = ctypes.create_string_buffer(256)
    library.pcre2_get_error_message_8(number, message, len(message))
    reason = message.value.decode("utf-8", "replace")
    rest = text[offset.value :].decode("utf-8", "surrogateescape")
    at = f' at "{rest}"' if rest else ""
    return f'pcre2_compile() failed: {reason} in "{pattern}"{at}'


@cache
def _library() -> Any:
    import ctypes

    for name in _NAMES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        compile_ = library.pcre2_compile_8
        compile_.restype = ctypes.c_void_p
        compile_.argtypes = [
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.c_uint32,
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_void_p,
        ]
        library.pcre2_code_free_8.argtypes = [ctypes.c_void_p]
        library.pcre2_code_free_8.restype = None
        library.pcre2_get_error_message_8.argtypes = [
            ctypes.c_int,
            ctypes.c_char_p,
            ctypes.c_size_t,
        ]
        return library
    return None
