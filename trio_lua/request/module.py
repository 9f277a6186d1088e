"""Directive modules: what extends the configuration's language and the server with it.

A :class:`Module` declares directives and says what they do at run time. Reading a configuration stores what a
directive's setter hands over, as a *setting* of a block, as the *content* of a location, or as a step
of the rewrite program; a *hook* of the same name gets it back for each request of such a location::

    from trio_lua.config.directives import Context, Use, takes
    from trio_lua.request.module import Exchange, Module

    MODULE = Module("greeting")

    @MODULE.directive("greet", Context.LOCATION, takes(1))
    def _greet(use: Use) -> None:
        use.set_content("greet", use.template(0))

    @MODULE.content("greet")
    async def _answer(request: Exchange, name: Template) -> None:
        await request.send(b"hello " + request.evaluate(name), last=True)

The configuration takes it where it is read, ``load(path, modules=[MODULE])``, or asks for it itself,
``load_module my_package.greeting;``.

A hook runs only in locations that hold a setting of its name, so a location without such
directives pays nothing. The kinds, in the order of a request's life:

* *set functions* compute the variable of a ``set_...`` directive in the rewrite program, and are
  ``ndk.set_var.NAME`` in Lua;
* *rewrite* and *access* hooks run before the location's ``rewrite_by_lua*`` and ``access_by_lua*``;
* *content* makes the response; where no directive has called for one, *files* hooks are asked before
  files are looked for;
* *header filters* run before ``header_filter_by_lua*``, *body filters* after ``body_filter_by_lua*``, both
  in the order of the modules.

A module may have a *Lua half*, a file that is run in the VM of each worker with the table ``rt`` as its
argument; it adds hooks with ``rt.hook(kind, name, function)`` and variables with
``rt.define_variable(name, function)``. Its functions get the request's table and the value of the
setting, in which each template is a number for ``rt.eval(r, number)``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from trio_lua.config.directives import (
    Arity,
    Context,
    Directive,
    DirectiveTable,
    Merge,
    Setter,
    Use,
    takes,
)
from trio_lua.config.model import PythonFunction, SetByFunction, Template, Var
from trio_lua.request.exchange import Exchange

__all__ = ["KINDS", "Exchange", "Module", "SetFunction"]

#: The kinds of hooks.
KINDS = ("rewrite", "access", "content", "files", "header_filter", "body_filter")

#: ``function(request, argument...)``: the value; None when it failed, which answers 500.
SetFunctionBody = Callable[..., "bytes | None"]

#: ``function(request)``: the value of a variable, None when it has none.
Getter = Callable[[Any], "bytes | None"]

#: ``hook(request, value)`` of rewrite, access and content: a status that ends the request, or None.
Handler = Callable[[Any, Any], "Awaitable[int | None]"]

_H = TypeVar("_H", bound=Callable[..., Any])
_S = TypeVar("_S", bound=Setter)


@dataclass(frozen=True, slots=True)
class SetFunction:
    """What a ``set_...`` directive calls.

    Attributes:
        name: The directive.
        function: Its function.
        single: Whether one argument is all it takes, so that Lua code may call it, too.
    """

    name: str
    function: SetFunctionBody
    single: bool


@dataclass(eq=False, slots=True)
class Module:
    """A directive module.

    Args:
        name: What it is called in messages, and the name of its resource.
        lua: The file of its Lua half.

    Attributes:
        directives: Its directives.
        variables: Its variables and their functions; None for those of the Lua half.
        merges: How its settings are merged.
        hooks: Its hooks in Python, by kind and name.
        set_functions: By name.
        computed: Functions of computed variables, by kind.
        calls: Plain functions of its own for its Lua half (``rt.py.NAME``).
        functions: Python functions for Lua code, by name.
        resource: See :meth:`worker_resource`.
    """

    name: str
    lua: Path | None = None
    directives: DirectiveTable = field(default_factory=DirectiveTable)
    variables: dict[str, Getter | None] = field(default_factory=dict)
    merges: dict[str, Merge] = field(default_factory=dict)
    hooks: dict[str, dict[str, Callable[..., Any]]] = field(
        default_factory=lambda: {kind: {} for kind in KINDS}
    )
    set_functions: dict[str, SetFunction] = field(default_factory=dict)
    computed: dict[str, Callable[[Any, Any], bytes | None]] = field(default_factory=dict)
    calls: dict[str, Callable[..., Any]] = field(default_factory=dict)
    functions: dict[str, PythonFunction] = field(default_factory=dict)
    resource: Callable[[Any], AbstractAsyncContextManager[Any]] | None = None

    # ------------------------------------------------------- configuration

    def directive(
        self, name: str, contexts: Context, arity: Arity, *, form: str = ";"
    ) -> Callable[[_S], _S]:
        """Adds a directive (see :class:`~trio_lua.config.directives.Directive`) by its setter."""
        return self.directives.directive(name, contexts, arity, form=form)

    def merge(self, setting: str) -> Callable[[Merge], Merge]:
        """Adds ``function(outer, inner)`` for a setting that blocks inside one another all have.

        Without one, the setting of the innermost block holds.
        """

        def decorate(merge: Merge) -> Merge:
            self.merges[setting] = merge
            return merge

        return decorate

    # ----------------------------------------------------------- variables

    def variable(self, name: str) -> Callable[[Getter], Getter]:
        """Adds a variable by its function."""

        def decorate(getter: Getter) -> Getter:
            self.variables[name] = getter
            return getter

        return decorate

    def lua_variables(self, *names: str) -> None:
        """Adds variables that the Lua half defines."""
        self.variables.update(dict.fromkeys(names))

    def compute(self, kind: str) -> Callable[[_H], _H]:
        """Adds ``function(request, value)``, which computes the variables of that kind.

        They are those for which a directive has called ``use.compute(name, kind, value)``, as ``map`` does.
        None is no value.
        """

        def decorate(function: _H) -> _H:
            self.computed[kind] = function
            return function

        return decorate

    def set_function(
        self,
        name: str,
        arguments: int = 1,
        *,
        in_place: bool | None = None,
        target: bool = False,
        check: Callable[[Use], None] | None = None,
    ) -> Callable[[_H], _H]:
        """Adds a directive ``name $variable argument...;`` by what computes the variable.

        Args:
            name: The directive.
            arguments: How many arguments the directive takes after the variable.
            in_place: Whether a single argument may be left out, and the variable's own value takes
                its place; by default it may.
            target: Whether the function gets the variable's own value before the arguments.
            check: Looks at a use of the directive when the configuration is read.

        The function is called with the request and the arguments (bytes) and returns the value; None is a
        failure, which it has logged, and answers 500. With one argument at most it is also
        ``ndk.set_var.NAME`` in Lua; the request is None where that is called outside of one.
        """
        single = arguments <= 1 and not target
        if in_place is None:
            in_place = arguments == 1 and not target
        arity = takes(1 if in_place else 1 + arguments, 1 + arguments)

        def setter(use: Use) -> None:
            if check is not None:
                check(use)
            args = tuple(use.template(index) for index in range(1, len(use.args)))
            variable = use.variable()
            if target or len(args) < arguments:
                args = (Template(f"${variable}", (Var(variable),)), *args)
            use.add_step(SetByFunction(variable, name, args, use.source))

        def decorate(function: _H) -> _H:
            self.directives.register(Directive(name, Context.REWRITE, arity, setter))
            self.set_functions[name] = SetFunction(name, function, single)
            return function

        return decorate

    def expose(
        self,
        name: str,
        *,
        errors: type[Exception] | tuple[type[Exception], ...] = (),
        text: bool = True,
    ) -> Callable[[_H], _H]:
        """Adds a function that Lua code may call: ``"db.fetch"`` is ``require("python.db").fetch``.

        Arguments are those of :class:`~trio_lua.config.model.PythonFunction`.

        Raises:
            ValueError: The name is not of the form ``module.function``.
        """

        def decorate(function: _H) -> _H:
            self.functions[name] = PythonFunction(name, function, errors, text)
            return function

        return decorate

    # --------------------------------------------------------------- hooks

    def content(self, name: str) -> Callable[[_H], _H]:
        """Adds ``async function(request, value)``, the content handler ``name``.

        It runs where a directive has called ``use.set_content(name, value)``. A number that it returns
        is the status of a response that is still to be made; otherwise the response is complete.
        """
        return self._hook("content", name)

    def rewrite(self, setting: str) -> Callable[[_H], _H]:
        """Adds ``async function(request, value)``, to run at the end of the rewrite phase.

        A number that it returns ends the request with that status.
        """
        return self._hook("rewrite", setting)

    def access(self, setting: str) -> Callable[[_H], _H]:
        """Adds ``async function(request, value)`` to the access phase.

        A number that it returns (401, 403 ...) refuses the request as ``deny`` does, -5 (``ngx.DECLINED``)
        leaves the decision to others; ``satisfy`` applies.
        """
        return self._hook("access", setting)

    def files(self, setting: str) -> Callable[[_H], _H]:
        """Adds ``async function(request, value)``, asked in locations that have no content handler.

        It is asked before files are looked for. Its result is that of a content handler, or -5
        (``ngx.DECLINED``) to leave the request to others.
        """
        return self._hook("files", setting)

    def header_filter(self, setting: str) -> Callable[[_H], _H]:
        """Adds ``function(request, value)``, which may change status and headers of any response."""
        return self._hook("header_filter", setting)

    def body_filter(self, setting: str) -> Callable[[_H], _H]:
        """Adds ``function(request, value, data, last)``, whose result takes the place of ``data``.

        It is called for each piece of a response's body, and with ``last`` for the last one, which may be
        empty. A filter that changes the length needs a header filter that removes Content-Length.
        """
        return self._hook("body_filter", setting)

    def _hook(self, kind: str, name: str) -> Callable[[_H], _H]:
        def decorate(function: _H) -> _H:
            self.hooks[kind][name] = function
            return function

        return decorate

    # -------------------------------------------------------------- workers

    def worker_resource(
        self, function: Callable[[Any], AbstractAsyncContextManager[Any]]
    ) -> Callable[[Any], AbstractAsyncContextManager[Any]]:
        """Sets ``function(config)``, an async context manager that spans the life of each worker.

        What it gives is ``request.resource(module.name)``. It may hold a nursery.
        """
        self.resource = function
        return function
