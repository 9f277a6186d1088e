"""Shared dictionaries: memory that the workers of a server share, and what is laid out in it.

:mod:`trio_lua.shm.zone` makes the memory of a ``lua_shared_dict``; ``slab.lua`` divides it, ``dict.lua`` keeps a dictionary
in it. The methods of ``ngx.shared.NAME`` on top of that are an API family.
"""
