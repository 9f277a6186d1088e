"""The set-misc module."""

from __future__ import annotations

from trio_lua.request.module import Module

MODULE = Module("set_misc")
