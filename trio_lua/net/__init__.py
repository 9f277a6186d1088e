"""Client sockets on plain Trio: connections, their pools, datagrams, name resolution, TLS.

Nothing here knows Lua. Operations come in pairs: a plain function that tries, and an asynchronous one that waits and
tries again, because most reads and writes need no wait. Failures are :class:`~trio_lua.net.errors.SocketError`,
whose text is what OpenResty gives to Lua code.
"""
