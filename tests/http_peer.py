"""An HTTP server for tests of clients, which is also a proxy, and the same behind TLS."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import trio
from real_servers import Certificates


@dataclass
class Peer:
    """The server.

    Attributes:
        seen: The heads of the requests, and the bodies that came with them.
    """

    port: int = 0
    tls_port: int = 0
    seen: list[str] = field(default_factory=list)

    async def serve(self, stream: trio.abc.Stream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            buffer = b""
            async for data in stream:
                buffer += bytes(data)
                while b"\r\n\r\n" in buffer:
                    head, _, buffer = buffer.partition(b"\r\n\r\n")
                    text = head.decode()
                    self.seen.append(text)
                    if text.startswith("CONNECT "):
                        await self._tunnel(stream, text)
                        return
                    if "expect: 100-continue" in text.lower():
                        await stream.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                    if "content-length: " in text.lower():
                        length = int(text.lower().partition("content-length: ")[2].split("\r\n")[0])
                        while len(buffer) < length:
                            buffer += bytes(await stream.receive_some())
                        self.seen.append(buffer[:length].decode())
                        buffer = buffer[length:]
                    if "transfer-encoding: chunked" in text.lower():
                        while not buffer.endswith(b"0\r\n\r\n"):
                            buffer += bytes(await stream.receive_some())
                        self.seen.append(buffer.decode())
                        buffer = b""
                    await stream.send_all(_response(text))
                    if "/close" in text:
                        await stream.aclose()
                        return

    async def _tunnel(self, client: trio.abc.Stream, head: str) -> None:
        """CONNECT: bytes go through to our own port for TLS."""
        await client.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
        target = await trio.open_tcp_stream("127.0.0.1", self.tls_port)

        async def copy(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                async for data in source:
                    await sink.send_all(data)

        async with target, trio.open_nursery() as nursery:
            nursery.start_soon(copy, target, client)
            await copy(client, target)
            nursery.cancel_scope.cancel()


def _response(head: str) -> bytes:
    method, path, _ = head.split("\r\n")[0].split(" ")
    if "/chunks" in path:
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (b"one", b"two", b"3"))
        fields = b"Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n"
        # the library looks for trailers behind the empty line
        trailers = b"X-Sum: 7\r\n\r\n" if "TE: trailers" in head else b""
        return b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n" + chunks + b"0\r\n\r\n" + trailers
    if "/close" in path:
        return b"HTTP/1.0 200 Fine\r\n\r\nuntil the end"
    if "/large" in path:
        return b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000000
    if "/silent" in path:
        return b""
    if "/none" in path:
        return b"HTTP/1.1 204 No Content\r\n\r\n"
    body = f"{method} {path}".encode()
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    return answer if method == "HEAD" else answer + body


@contextlib.asynccontextmanager
async def http_peer(
    certificates: Certificates, *, client_authority: str | None = None
) -> AsyncIterator[Peer]:
    """A server on two ports of 127.0.0.1.

    Args:
        certificates: For TLS.
        client_authority: A file; with it clients have to have a certificate that comes from there.
    """
    peer = Peer()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.chain, certificates.key)
    if client_authority is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_authority)
    plain = await trio.open_tcp_listeners(0, host="127.0.0.1")
    secure = await trio.open_ssl_over_tcp_listeners(
        0, context, host="127.0.0.1", https_compatible=True
    )
    peer.port = plain[0].socket.getsockname()[1]
    peer.tls_port = secure[0].transport_listener.socket.getsockname()[1]  # type: ignore[attr-defined]
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, peer.serve, plain)
        await nursery.start(trio.serve_listeners, peer.serve, secure)
        yield peer
        nursery.cancel_scope.cancel()
