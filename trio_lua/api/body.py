"""``ngx.req.read_body``: request bodies into memory, or into a temporary file above a size."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping

from trio_lua.config.model import Settings
from trio_lua.errors import ClientGone, ProtocolError
from trio_lua.log.files import os_error
from trio_lua.lua.ops import OpTable
from trio_lua.request.context import ClientConnection
from trio_lua.request.state import Request

__all__ = ["MEMORY", "install", "read_body"]

MEMORY, FILE, FAILED = 0, 1, 2

#: What a body that is too large is refused with.
TOO_LARGE = 413


def _temp_file(settings: Settings, prefix: str) -> tuple[int, str]:
    folder = os.path.join(prefix, settings.client_body_temp_path)
    try:
        return tempfile.mkstemp(prefix="", dir=folder)
    except FileNotFoundError:
        os.makedirs(folder, 0o700, exist_ok=True)
        return tempfile.mkstemp(prefix="", dir=folder)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _keep(request: Request, path: str) -> None:
    if request.files is None:
        request.files = []
    request.files.append(path)


class _Collector:
    """Takes the pieces of a body; spools to a file when they outgrow the buffer."""

    def __init__(self, request: Request, prefix: str) -> None:
        self.request = request
        self.settings: Settings = request.plan.settings
        self.prefix = prefix
        self.pieces: list[bytes] = []
        self.size = 0
        self.fd = -1
        self.path = ""
        if self.settings.client_body_in_file_only != "off":
            self._open()

    def _open(self) -> None:
        self.fd, self.path = _temp_file(self.settings, self.prefix)
        if self.settings.client_body_in_file_only != "on":
            _keep(self.request, self.path)

    def add(self, data: bytes) -> bool:
        """Take a piece; False when the body is larger than is allowed."""
        self.size += len(data)
        limit = self.settings.client_max_body_size
        if limit and self.size > limit:
            return False
        if self.fd < 0 and self.size <= self.settings.client_body_buffer_size:
            self.pieces.append(data)
            return True
        if self.fd < 0:
            self.request.log(
                5, b"a client request body is buffered to a temporary file " + self._name()
            )
        _write_all(self.fd, data)
        return True

    def _name(self) -> bytes:
        self._open()
        for piece in self.pieces:
            _write_all(self.fd, piece)
        self.pieces = []
        return os.fsencode(self.path)

    def result(self) -> tuple[int, bytes]:
        if self.fd >= 0:
            return FILE, os.fsencode(self.path)
        return MEMORY, b"".join(self.pieces)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -2


def _read_nowait(request: Request, prefix: str) -> tuple[int, bytes | int] | None:
    """The whole body, when all of it is here and it fits into memory."""
    settings = request.plan.settings
    length = request.length
    if (
        length < 0
        or length > settings.client_body_buffer_size
        or settings.client_body_in_file_only != "off"
    ):
        return None
    data = request.connection.body_whole()
    return None if data is None else (MEMORY, data)


async def read_body(request: Request, prefix: str) -> tuple[int, bytes | int]:
    """Read the body to its end.

    Returns:
        ``(MEMORY, data)``, ``(FILE, path)`` or ``(FAILED, status)``.
    """
    connection = request.connection
    collector = _Collector(request, prefix)
    try:
        while True:
            data = connection.body_nowait()
            if data is None:
                data = await connection.body_some()
            if not data:
                return collector.result()
            if not collector.add(data):
                request.log(
                    4,
                    b"client intended to send too large chunked body: %d+%d bytes"
                    % (collector.size - len(data), len(data)),
                )
                return FAILED, TOO_LARGE
    except ProtocolError as error:
        if isinstance(error, ClientGone):
            request.log(7, str(error).encode())
        return FAILED, error.status
    except OSError as error:
        request.log(2, f"request body: {os_error(error)}".encode())
        return FAILED, 500
    finally:
        collector.close()


def install(table: OpTable, connections: Mapping[int, ClientConnection], prefix: str) -> None:
    """Add the calls and the operation of ``body.lua``.

    Args:
        table: Where to add them.
        connections: Connections by number.
        prefix: The server's prefix directory, for relative paths of temporary files.
    """

    def read_nowait(connection: int) -> tuple[int, bytes | int] | None:
        return _read_nowait(connections[connection].request, prefix)

    async def read(request: Request, _connection: int) -> tuple[int, bytes | int]:
        return await read_body(request, prefix)

    def unlink(_connection: int, path: bytes) -> None:
        with contextlib.suppress(OSError):
            os.unlink(path)

    def own_file(connection: int, path: bytes) -> None:
        _keep(connections[connection].request, os.fsdecode(path))

    def shorten(path: bytes, size: int) -> None:
        with contextlib.suppress(OSError):
            if os.stat(path).st_size > size:
                os.truncate(path, size)

    def file_size(path: bytes) -> tuple[int | None, bytes | None]:
        try:
            return os.stat(path).st_size, None
        except OSError as error:
            return None, f'open() "{os.fsdecode(path)}" failed {os_error(error)}'.encode()

    def spool(
        connection: int, data: bytes, path: bytes | None
    ) -> tuple[bytes | None, bytes | None]:
        request = connections[connection].request
        try:
            if path is None:
                fd, name = _temp_file(request.plan.settings, prefix)
                _keep(request, name)
                path = os.fsencode(name)
            else:
                fd = os.open(path, os.O_WRONLY | os.O_APPEND)
            try:
                _write_all(fd, data)
            finally:
                os.close(fd)
        except OSError as error:
            return None, os_error(error).encode()
        return path, None

    table.call("read_body", read_nowait)
    table.op("read_body", read)
    table.call("unlink", unlink)
    table.call("own_file", own_file)
    table.call("shorten", shorten)
    table.call("file_size", file_size)
    table.call("spool", spool)
