"""Errors of a configuration, of a fixture or of Lua code without the way through this package, which says nothing about a test."""

from __future__ import annotations

import contextlib
import linecache
import os
from types import TracebackType
from typing import Any

import _pytest
import pluggy
import pytest
import pytest_trio  # type: ignore[import-untyped,unused-ignore]
import trio

import trio_lua
from trio_lua.errors import ConfigError, TrioLuaError

__all__ = ["shorten"]

_FOLDERS = tuple(
    f"{os.path.dirname(str(module.__file__))}{os.sep}"
    for module in (_pytest, pluggy, pytest_trio, trio, trio_lua)
)
_FILES = (contextlib.__file__,)


def shorten(excinfo: pytest.ExceptionInfo[BaseException]) -> str | None:
    """Leave frames of this package out of an error's traceback.

    Args:
        excinfo: The error; its traceback is replaced. (A filter of its entries would not do: pytest goes back to the
            frames behind them.)

    Returns:
        What to show instead of a traceback, where nothing is left of it; else None.
    """
    error = excinfo.value
    # a fixture that is asked for something that is not possible raises ValueError
    if not isinstance(error, (TrioLuaError, ValueError)):
        return None
    if isinstance(error, ConfigError):
        _explain(error)
    test = _without_libraries(error.__traceback__)
    if test is None:
        return "\n".join([f"{type(error).__name__}: {error}", *_notes(error)])
    if isinstance(error, TrioLuaError):
        kind: Any = type(excinfo.traceback)
        excinfo.traceback = kind(test)
    return None


def _without_libraries(traceback: TracebackType | None) -> TracebackType | None:
    """Only the frames of the test and of what it uses."""
    if traceback is None:
        return None
    rest = _without_libraries(traceback.tb_next)
    path = traceback.tb_frame.f_code.co_filename
    if path.startswith(_FOLDERS) or path in _FILES:
        return rest
    return TracebackType(rest, traceback.tb_frame, traceback.tb_lasti, traceback.tb_lineno)


def _notes(error: BaseException) -> list[str]:
    notes: list[str] = getattr(error, "__notes__", [])
    return notes


def _explain(error: ConfigError) -> None:
    """Add the line of the configuration, and what may be meant."""
    line = linecache.getline(error.file, error.line).strip() if error.line else ""
    notes: Any = error
    notes.__notes__ = [f"{error.line:>12} | {line}"] if line else []
    if error.hint:
        notes.__notes__.append(error.hint)
