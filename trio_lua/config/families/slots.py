"""Directives that only store one value: most of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trio_lua.config.directives import Arity, Context, Directive, DirectiveTable, Use, takes

__all__ = ["choices", "slots", "word"]

Value = Callable[[Use], object]


def slots(
    table: DirectiveTable,
    value: Value,
    contexts: Context,
    *names: str,
    arity: Arity = takes(1),  # noqa: B008 - immutable
) -> None:
    """Registers directives whose field in the model has their own name.

    Args:
        value: What to store; usually one of the methods of :class:`Use`. Values of names that
            the model does not have are checked and then dropped: settings that tune nginx's inner
            workings, which there are none of here.
    """

    def setter(use: Use) -> None:
        use.put(use.name, value(use))

    for name in names:
        table.register(Directive(name, contexts, arity, setter))


def choices(*allowed: str) -> Value:
    """A value that must be one of these words."""

    def value(use: Use) -> object:
        return use.choice(allowed)

    return value


def word(use: Use) -> object:
    """Any text."""
    return use.args[0]


def words(use: Use) -> Sequence[str]:
    """All arguments."""
    return tuple(use.args)
