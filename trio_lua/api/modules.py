"""Directive modules in a worker: their hooks side by side, whichever language they are written in.

What :mod:`trio_lua.request.module` declares becomes, in each worker, functions that the engine awaits (hooks in
Python), that Lua finds in the constants of a location (filters), or that both can call (set functions,
variables).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import traceback
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trio_lua.config.model import Config, Location, Template
from trio_lua.lua.vm import VM
from trio_lua.request.context import ClientConnection
from trio_lua.request.module import KINDS, Module

__all__ = ["Hook", "Modules"]

_ERROR = 4


@dataclass(frozen=True, slots=True)
class Hook:
    """A hook in one location; ``function`` is None when it is a Lua function."""

    kind: bytes
    name: bytes
    function: Callable[..., Any] | None
    value: Any


class Modules:
    """The modules of a configuration in one VM.

    Args:
        config: The configuration.
        vm: The VM; the Lua halves are loaded into it.
        connections: Connections by number.

    Attributes:
        resources: What each module holds for the worker, by the module's name.

    Raises:
        LuaError: A Lua half failed to load.
    """

    def __init__(self, config: Config, vm: VM, connections: Mapping[int, ClientConnection]) -> None:
        self.resources: dict[str, Any] = {}
        self._config = config
        self._connections = connections
        self._modules: tuple[Module, ...] = config.modules
        #: By kind, in the order of the modules: the function in Python, or None.
        self._hooks: dict[str, dict[str, Callable[..., Any] | None]] = {k: {} for k in KINDS}
        self._set_functions: dict[str, Callable[..., Any]] = {}
        #: Those that Lua calls, by number.
        self._functions: list[tuple[str, Callable[..., Any]]] = []
        if not self._modules:
            return
        vm.set_call("module_get", self._get)
        vm.set_call("module_filter_header", self._filter_header)
        vm.set_call("module_filter_body", self._filter_body)
        computed: dict[str, Callable[[Any, Any], bytes | None]] = {}
        for module in self._modules:
            self._load(module, vm)
            computed.update(module.computed)
        for name, variable in config.http.computed.items():
            getter = functools.partial(_computed, computed[variable.kind], variable.value)
            vm.export("define_computed_variable")(
                name.encode(), self._number(name, getter), variable.cached
            )

    def _load(self, module: Module, vm: VM) -> None:
        export = vm.export
        for name, call in module.calls.items():
            vm.set_call(name, call)
        if module.lua is not None:
            vm.load_file(module.lua)
        for kind in KINDS:
            hooks = self._hooks[kind]
            for lua_name in _several(export("hook_names")(kind.encode())):
                hooks.setdefault(lua_name.decode(), None)
            for name, hook in module.hooks[kind].items():
                hooks[name] = hook
                if kind in ("header_filter", "body_filter"):
                    number = self._number(name, hook)
                    export("define_hook")(kind.encode(), name.encode(), number)
        for name, getter in module.variables.items():
            if getter is not None:
                export("define_python_variable")(name.encode(), self._number(name, getter))
        for name, entry in module.set_functions.items():
            self._set_functions[name] = entry.function
            if entry.single:
                export("define_set_function")(name.encode(), self._number(name, entry.function))

    def _number(self, name: str, function: Callable[..., Any]) -> int:
        self._functions.append((name, function))
        return len(self._functions) - 1

    # ------------------------------------------------------------- locations

    def hooks(self, kind: str, settings: Mapping[str, Any]) -> tuple[Hook, ...]:
        """The hooks of a kind for which a location has settings."""
        return tuple(
            Hook(kind.encode(), name.encode(), function, settings[name])
            for name, function in self._hooks[kind].items()
            if name in settings
        )

    def add_constants(
        self,
        values: dict[str, Any],
        location: Location,
        compile_template: Callable[[Template], int],
    ) -> None:
        """Add to the constants of a location what Lua halves and filters need."""
        extra = location.settings.extra
        if extra:
            values["settings"] = {k: _constant(v, compile_template) for k, v in extra.items()}
            for kind in ("header_filter", "body_filter"):
                names = [name for name in self._hooks[kind] if name in extra]
                if names:
                    values[f"{kind}s"] = names
                    values.setdefault(kind, 0)
        for value in location.handlers.values():
            values["content_value"] = _constant(value, compile_template)

    # -------------------------------------------------------------- resources

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Hold the resources of all modules."""
        async with contextlib.AsyncExitStack() as stack:
            for module in self._modules:
                if module.resource is not None:
                    resource = module.resource(self._config)
                    self.resources[module.name] = await stack.enter_async_context(resource)
            yield

    # ------------------------------------------------------------------ calls

    def call_set_function(self, name: str, request: Any, args: Sequence[bytes]) -> bytes | None:
        """The value of a set function; None when it failed, which is logged."""
        try:
            return self._set_functions[name](request, *args)  # type: ignore[no-any-return]
        except Exception:
            self._failed(request, name)
            return None

    def _request(self, connection: int | None) -> Any:
        found = None if connection is None else self._connections.get(connection)
        return None if found is None else found.request

    def _failed(self, request: Any, name: str) -> bytes:
        message = f"{name} failed: {traceback.format_exc()}".encode()
        if request is not None:
            request.log(_ERROR, message)
        return message

    def _get(self, number: int, connection: int | None, *args: bytes) -> bytes | None:
        """The value of a variable, or of a set function."""
        name, function = self._functions[number]
        request = self._request(connection)
        try:
            return function(request, *args)  # type: ignore[no-any-return]
        except Exception:
            self._failed(request, name)
            return None

    def _filter_header(self, number: int, connection: int) -> bytes | None:
        """An error text, or None."""
        name, function = self._functions[number]
        request = self._request(connection)
        try:
            function(request, request.setting(name))
        except Exception:
            return traceback.format_exc().encode()
        return None

    def _filter_body(
        self, number: int, connection: int, data: bytes, last: bool
    ) -> tuple[bytes | None, bytes | None]:
        """The data, or None and an error text."""
        name, function = self._functions[number]
        request = self._request(connection)
        try:
            return function(request, request.setting(name), data, last), None
        except Exception:
            return None, traceback.format_exc().encode()


def _computed(
    function: Callable[[Any, Any], bytes | None], value: object, request: Any
) -> bytes | None:
    return function(request, value)


def _several(result: Any) -> tuple[bytes, ...]:
    """Lua's results: none, one or a tuple."""
    if result is None:
        return ()
    return result if isinstance(result, tuple) else (result,)


def _constant(value: Any, compile_template: Callable[[Template], int]) -> Any:
    """A setting as Lua reads it: text, numbers, tables; nothing of other kinds of values."""

    def convert(value: Any) -> Any:
        if isinstance(value, Template):
            literal = value.literal
            return compile_template(value) if literal is None else literal
        if isinstance(value, (str, bytes, bool, int, float)):
            return value
        if isinstance(value, Mapping):
            return {key: convert(item) for key, item in value.items()}
        if isinstance(value, (frozenset, set)):
            return dict.fromkeys(value, True)
        if isinstance(value, (list, tuple)):
            return [convert(item) for item in value]
        if dataclasses.is_dataclass(value):
            return {
                field.name: convert(getattr(value, field.name))
                for field in dataclasses.fields(value)
            }
        return None

    return convert(value)
