"""Responses in the bytes that came over a connection of a block."""

from __future__ import annotations

import re

import h11

__all__ = ["parsed"]


def parsed(data: bytes, method: str) -> tuple[tuple[str, int, str], bytes]:
    """Head, status and body of the first response in bytes, and the rest.

    Raises:
        h11.RemoteProtocolError: There is none.
    """
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 24)
    known = method if re.fullmatch(r"[A-Z]+", method) else "GET"
    connection.send(h11.Request(method=known, target="/", headers=[("Host", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    connection.receive_data(b"")
    status, body, informational = 0, b"", 0
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            # what has come of a body counts
            if not status:
                raise
            break
        if isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.InformationalResponse):
            informational += 1
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            break
        else:
            raise h11.RemoteProtocolError("the connection was closed without a response")
    rest = bytes(connection.trailing_data[0])
    if known == "HEAD" and rest and not rest.startswith(b"HTTP/"):
        # the server took it for another method
        return parsed(data, "GET")
    head = data.split(b"\r\n\r\n")[informational]
    return (head.decode("latin-1"), status, body.decode("latin-1")), rest
