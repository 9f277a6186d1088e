"""Thread pools: Lua code that blocks or computes, beside the event loop.

:mod:`~trio_lua.threads.pool` decides what runs when; :mod:`~trio_lua.threads.vm` is what it runs in. Neither knows what
the values are that cross: see ``lua/lualib/trio_lua/message.lua``.
"""
