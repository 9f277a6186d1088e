"""Trio with nothing around it: what a server on it can be compared with.

``--protocol none`` answers whatever it receives with a canned response: the price of Trio and the system alone.
``--protocol h11`` is the plain way to write an HTTP server on Trio, a task per connection around one h11
connection.
"""

from __future__ import annotations

import argparse
from functools import partial

import h11
import trio

from benchmarks.servers.application import BODY, Application

__all__ = ["main"]

_CANNED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (
    len(BODY),
    BODY,
)
_RECEIVE = 65536

_application = Application(trio.sleep)


async def _answer_anything(stream: trio.SocketStream) -> None:
    try:
        while await stream.receive_some(_RECEIVE):
            await stream.send_all(_CANNED)
    except trio.BrokenResourceError:
        pass


async def _serve_h11(stream: trio.SocketStream) -> None:
    connection = h11.Connection(h11.SERVER)

    async def next_event() -> h11.Event:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some(_RECEIVE))
            else:
                assert isinstance(event, h11.Event)
                return event

    async def read_body() -> bytes:
        parts = []
        while isinstance(event := await next_event(), h11.Data):
            parts.append(bytes(event.data))
        return b"".join(parts)

    try:
        while True:
            event = await next_event()
            if not isinstance(event, h11.Request):
                return
            path = event.target.decode("ascii").partition("?")[0]
            status, body = await _application.respond(path, event.headers, read_body)
            head = h11.Response(
                status_code=status,
                headers=[("Content-Type", "text/plain"), ("Content-Length", str(len(body)))],
            )
            data = connection.send(head) or b""
            data += connection.send(h11.Data(data=body)) or b""
            data += connection.send(h11.EndOfMessage()) or b""
            await stream.send_all(data)
            while connection.their_state is h11.SEND_BODY:
                await next_event()
            connection.start_next_cycle()
    except (h11.ProtocolError, trio.BrokenResourceError):
        pass


async def _serve(port: int, protocol: str) -> None:
    handler = _answer_anything if protocol == "none" else _serve_h11
    await trio.serve_tcp(handler, port, host="127.0.0.1", backlog=4096)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--protocol", choices=("none", "h11"), default="h11")
    options = parser.parse_args()
    trio.run(partial(_serve, options.port, options.protocol))


if __name__ == "__main__":
    main()
