"""One LuaJIT virtual machine and what is loaded into it before user code.

lupa is imported here and nowhere else. Three decisions, all measured or tried:

* The module is imported with ``RTLD_GLOBAL``, so that Lua's C API is visible to C modules
  (lua-cjson, lpeg) that ``require`` loads later.
* Python objects never enter Lua, only plain functions, and Lua objects never leave it except
  functions: reference cycles across the border are never collected, and attribute access
  would hand Python's object model to every script. Integers name things on both sides.
* Bytes are not decoded (``encoding=None``): HTTP and Lua both speak bytes.

The Lua files share one private table, ``rt``, which they receive as their chunk argument:
``rt.py`` holds the Python functions, ``rt.export`` the Lua functions that Python calls,
``rt.ngx`` the public ``ngx`` table, ``rt.S`` the scheduler's registers (``S.r`` the current
request, ``S.th`` the current light thread).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from trio_lua.errors import LuaError
from trio_lua.lua.symbols import SYMBOLS

__all__ = ["LIBRARY", "VM", "is_table"]


def _import_lupa() -> Any:
    flags = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL)
    try:
        import lupa.luajit21
    finally:
        sys.setdlopenflags(flags)
    return lupa.luajit21


_lupa = _import_lupa()


def _pin_libraries() -> None:
    """Load the C libraries that Lua code finds through ``ffi.C``, as it does inside nginx.

    They are never unloaded: LuaJIT closes the libraries of a VM before it runs the finalizers of objects
    that they made.
    """
    for name in (
        "libpcre2-8.so.0",
        "libpcre2-8.so",
        "libpcre2-8.dylib",
        "libcrypto.so.3",
        "libcrypto.so.1.1",
        "libcrypto.so",
        "libcrypto.3.dylib",
    ):
        with contextlib.suppress(OSError):
            ctypes.CDLL(name, ctypes.RTLD_GLOBAL)


_pin_libraries()

#: The library that holds LuaJIT, whose whole C API it exports.
LIBRARY: str = _lupa.__file__

PRELUDE = Path(__file__).parent / "prelude"
LUALIB = Path(__file__).parent / "lualib"

_BOOT = b"""
collectgarbage("stop")
local rt = { py = {}, export = {}, ngx = {}, S = {} }
python, package.loaded.python = nil, nil
ngx = rt.ngx
local load, dump, error, xpcall, traceback = loadstring, string.dump, error, xpcall, debug.traceback
local function set(name, value) rt[name] = value end
local function set_call(name, fn) rt.py[name] = fn end
local function get(name) return rt.export[name] end
local function close()
    for _, t in ipairs { rt.py, rt.export, rt } do
        for name in pairs(t) do t[name] = nil end
    end
    collectgarbage()
end
-- -1: the first collection begins when there is twice as much, as after a full one
local function loaded() collectgarbage("restart", -1) end
local function run(code, chunk)
    local fn, err = load(code, chunk)
    if not fn then return false, err, "" end
    local trace
    local ok, err = xpcall(fn, function(e)
        trace = traceback("", 2)
        return e
    end, rt)
    if ok then return true end
    return false, tostring(err), trace or ""
end
local function compile(code, chunk)
    local fn, err = load(code, chunk)
    if not fn then return false, err, "" end
    return dump(fn)
end
local null = require("string.buffer").decode("\\3")
local function is_null(value) return value == null end
return set, set_call, get, run, close, compile, loaded, null, is_null
"""

#: What the package's own files compile to: a process makes many VMs (tests, threads, reloads), and reading
#: bytecode is several times faster than parsing. With the name of the chunk.
_compiled: dict[Path, tuple[bytes, str]] = {}


@functools.cache
def _prelude() -> tuple[Path, ...]:
    return tuple(sorted(PRELUDE.glob("*.lua")))


def _deny(_obj: object, _name: object, _setting: bool) -> Any:
    raise AttributeError("Python attributes are not reachable from Lua")


def is_table(value: object) -> bool:
    """Whether something that came from Lua is a table."""
    return _lupa.lua_type(value) == "table"  # type: ignore[no-any-return]


class VM:
    """A LuaJIT state with the prelude loaded.

    Args:
        calls: Plain Python functions, by the name under which Lua finds them in ``rt.py``. They
            must not await and must not raise: an exception in one of them surfaces in the Lua
            caller, where ``pcall`` can swallow it.
        values: Further values for ``rt`` (numbers, strings, booleans, or nested mappings and
            sequences of them, which become tables).
        files: Lua files to run after the prelude, in order (the halves of the API families).
        max_memory: Bytes that Lua may have; more is Lua's error "not enough memory". What Python passes in has to fit, too:
            running out of memory there ends the process. Lua is slower where it allocates much, as its own allocator
            knows no limit. None for no limit.

    Attributes:
        closed: Whether :meth:`close` was called.

    Raises:
        LuaError: A prelude file failed.
    """

    def __init__(
        self,
        *,
        calls: Mapping[str, Callable[..., Any]] | None = None,
        values: Mapping[str, Any] | None = None,
        files: Iterable[Path] = (),
        max_memory: int | None = None,
    ) -> None:
        self.closed = False
        self._lua = _lupa.LuaRuntime(
            max_memory=max_memory,
            encoding=None,
            unpack_returned_tuples=True,
            register_eval=False,
            register_builtins=False,
            attribute_filter=_deny,
        )
        boot = self._lua.execute(_BOOT)
        self._set, self._set_call, self._get, self._run, self._close, self._compile, loaded = boot[
            :7
        ]
        #: ``ngx.null``.
        self.null, self.is_null = boot[7:]
        self._set(b"lualib", str(LUALIB).encode())
        self.set("symbols", SYMBOLS)
        for name, value in (values or {}).items():
            self.set(name, value)
        for name, function in (calls or {}).items():
            self.set_call(name, function)
        for path in (*_prelude(), *files):
            self.load_file(path)
        # until here there was next to no garbage
        loaded()

    def close(self) -> None:
        """Let go of the Python functions, so that the VM can be freed; it cannot be used after that.

        References between Lua and Python are invisible to Python's garbage collector.
        """
        self.closed = True
        self._close()

    @property
    def memory_used(self) -> int:
        """Bytes that Lua has; counted only with a limit."""
        return int(self._lua.get_memory_used() or 0)

    def set(self, name: str, value: Any) -> None:
        """Set ``rt[name]``; mappings and sequences become Lua tables."""
        self._set(name.encode(), self.to_lua(value))

    def set_call(self, name: str, function: Callable[..., Any]) -> None:
        """Set ``rt.py[name]`` to a plain Python function."""
        self._set_call(name.encode(), function)

    def to_lua(self, value: Any) -> Any:
        """Convert plain Python data: str, bytes, numbers, None, mappings, sequences."""
        if isinstance(value, str):
            return value.encode("utf-8", "surrogateescape")
        if isinstance(value, Mapping):
            return self.table(
                [(self.to_lua(key), self.to_lua(item)) for key, item in value.items()]
            )
        if isinstance(value, (list, tuple)):
            return self.table(enumerate(map(self.to_lua, value), 1))
        return value

    def table(self, items: Iterable[tuple[Any, Any]]) -> Any:
        """A new Lua table of keys and values that Lua can have."""
        table = self._lua.table()
        for key, item in items:
            table[key] = item
        return table

    def load_file(self, path: Path) -> None:
        """Run one of the package's own Lua files with ``rt`` as its argument."""
        known = _compiled.get(path)
        if known is None:
            name = f"=ngx/{path.name}"
            code = self._compile(path.read_bytes(), name.encode())
            if not isinstance(code, bytes):
                raise LuaError(code[1].decode("utf-8", "replace"), "")
            known = _compiled[path] = code, name
        self.run(*known)

    def run(self, code: bytes, chunk_name: str) -> None:
        """Run a chunk with ``rt`` as its argument.

        Raises:
            LuaError: It did not compile, or it failed.
        """
        result = self._run(code, chunk_name.encode("utf-8", "surrogateescape"))
        if result is not True:
            _, message, trace = result
            raise LuaError(message.decode("utf-8", "replace"), trace.decode("utf-8", "replace"))

    def export(self, name: str) -> Callable[..., Any]:
        """The Lua function that a prelude file put into ``rt.export``.

        Raises:
            KeyError: There is none of that name.
        """
        function = self._get(name.encode())
        if function is None:
            raise KeyError(name)
        return function  # type: ignore[no-any-return]
