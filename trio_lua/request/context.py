"""What operations may use of the layers above them, as typed fields.

The API families (layer 3) know connections only through these protocols; the server (layer 5)
brings the objects.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from trio_lua.net.tls_facts import TlsFacts

__all__ = ["ClientConnection"]


class ClientConnection(Protocol):
    """The connection a request came in on."""

    id: int
    requests: int
    #: The request that is being served.
    request: Any

    def addresses(self) -> tuple[bytes, bytes, bytes, bytes]:
        """Peer address and port, own address and port, as text."""

    @property
    def listen(self) -> bytes:
        """What the socket that accepted it listens on, as text."""

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""

    @property
    def facts(self) -> TlsFacts | None:
        """What is known of its encryption; None where there is none."""

    def write(self, data: bytes) -> int:
        """Send bytes, or keep what the peer does not take now.

        Returns:
            Number of bytes that wait; -1 when the peer is gone.
        """

    def pace(self, rate: int, after: int) -> None:
        """Send the present response at ``rate`` bytes a second (0: as fast as it goes), but for the first ``after``."""

    def abort(self) -> None:
        """Close without sending anything more."""

    async def drain(self, low_water: int = 0) -> bool:
        """Wait until at most ``low_water`` bytes wait to be sent; False when the peer is gone or too slow."""

    def body_whole(self) -> bytes | None:
        """The whole request body, when its length is known and all of it is here; it is then consumed."""

    def body_nowait(self) -> bytes | None:
        """The next piece of the request body that is here already; b"" at its end, None when there is none yet."""

    async def body_some(self) -> bytes:
        """The next piece of the request body; b"" at its end.

        Raises:
            ProtocolError: The body is malformed, stopped early (400) or is too slow (408).
        """

    def continue_body(self) -> None:
        """Send "100 Continue", when the client waits for that."""

    async def receive_more(self) -> bool:
        """Wait for bytes from the client, for ``body_nowait`` or ``raw_nowait`` to return; False when it has left."""

    def watched(self, gone: Callable[[], None]) -> AbstractAsyncContextManager[None]:
        """Call ``gone`` when the client leaves meanwhile, unless somebody receives from it and so sees that."""

    def take_raw(self) -> bool:
        """Give up HTTP: what comes next is for ``raw_nowait``. False when output waits to be sent."""

    def raw_nowait(self) -> bytes | None:
        """Bytes from the client that are here, b"" at the end of its stream, None when there are none yet.

        Raises:
            TrioLuaError: The client is gone.
        """

    def drop_output(self) -> None:
        """Forget what waits to be sent."""
