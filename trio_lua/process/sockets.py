"""Listening sockets: one per address that the servers of a configuration listen on.

They belong to the process, not to a worker: a reload keeps those whose address stays and
binds only the new ones, so that no connection is refused meanwhile. Workers get duplicates
(:meth:`Listeners.duplicates`), which they may close when they stop accepting.

With ``reuseport`` there is one socket for each worker, and the system divides connections among them; it belongs to the
worker's number, so that a replacement and the next configuration's worker take over what waits there.

As in nginx a wildcard address takes the other addresses of its port along, since Linux
refuses to bind both: ``listen 80`` and ``listen 127.0.0.1:80`` make one socket, and the server
is then chosen by the connection's own local address.

A Unix socket left behind by a process that died is removed and bound again; nginx refuses
to start there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from trio_lua.config.model import Config, Listen
from trio_lua.errors import TrioLuaError
from trio_lua.log.error_log import ALERT, EMERG, NOTICE, WARN, Log
from trio_lua.log.files import os_error

__all__ = ["ListenError", "Listeners", "listens_of", "parse_bind"]

_Address = tuple[int, str, int]  # family, host or path, port
_Key = tuple[
    int, str, int, int
]  # the same, and whose it is: a worker's number, or 0 for everybody's

_BACKLOG = Listen("", 0).backlog


class ListenError(TrioLuaError):
    """An address cannot be listened on. The error log has the reasons already."""


@dataclass(frozen=True, slots=True)
class _Bound:
    listen: Listen
    sock: socket.socket
    #: (device, inode) of a Unix socket's file: what somebody else bound later stays
    inode: tuple[int, int] | None = None


def listens_of(config: Config) -> list[Listen]:
    """The ``listen`` directives of all servers, in the order of the file."""
    return [listen for server in config.http.servers for listen in server.listens]


def parse_bind(text: str) -> Listen | int:
    """An address of a command line: ``host:port``, ``:port``, ``port``, ``[::1]:port``,
    ``unix:/path`` or ``fd://N``; the last gives the descriptor's number.

    Raises:
        ValueError: It is none of these; the message says so.
    """
    if text.startswith("unix:"):
        path = text[5:].removeprefix("//") if text.startswith("unix://") else text[5:]
        if not path:
            raise ValueError(f'no path in "{text}"')
        return Listen("", 0, path=path)
    if text.startswith("fd://"):
        if not text[5:].isdecimal():
            raise ValueError(f'invalid descriptor in "{text}"')
        return int(text[5:])
    host, colon, port = text.rpartition(":")
    if not colon and not text.isdecimal():
        raise ValueError(f'no port in "{text}"')
    if not (port.isascii() and port.isdecimal()) or int(port) > 65535:
        raise ValueError(f'invalid port in "{text}"')
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if ":" in host and not text.startswith("["):
        raise ValueError(f'an IPv6 address needs brackets in "{text}"')
    return Listen("" if host == "*" else host, int(port))


def _addresses(listen: Listen) -> list[_Address]:
    """The addresses of a directive: several when a name resolves to several."""
    if listen.path is not None:
        return [(socket.AF_UNIX, listen.path, 0)]
    host = listen.host.removeprefix("[").removesuffix("]")
    if host in ("", "*"):
        return [(socket.AF_INET, "0.0.0.0", listen.port)]
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            packed = socket.inet_pton(family, host)
            return [(family, socket.inet_ntop(family, packed), listen.port)]
    try:
        found = socket.getaddrinfo(host, listen.port, type=socket.SOCK_STREAM)
    except OSError:
        where = f" in {listen.source}" if listen.source.file else ""
        raise ListenError(
            f'host not found in "{listen.host}:{listen.port}" of the "listen" directive{where}'
        ) from None
    return list(dict.fromkeys((int(info[0]), str(info[4][0]), listen.port) for info in found))


def _text(family: int, host: str, port: int, _worker: int = 0) -> str:
    if family == socket.AF_UNIX:
        return f"unix:{host}"
    return f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}"


def _plan(listens: Iterable[Listen], workers: int) -> dict[_Key, Listen]:
    """What to bind: each address once, or once for each worker, with the options of all who name it."""
    wanted: dict[_Address, Listen] = {}
    for listen in listens:
        for key in _addresses(listen):
            known = wanted.setdefault(key, listen)
            if known is not listen:
                wanted[key] = replace(
                    known,
                    default_server=known.default_server or listen.default_server,
                    ssl=known.ssl or listen.ssl,
                    reuseport=known.reuseport or listen.reuseport,
                    deferred=known.deferred or listen.deferred,
                    ipv6only=known.ipv6only and listen.ipv6only,
                    backlog=listen.backlog if known.backlog == _BACKLOG else known.backlog,
                )
    wildcards = {
        (family, port)
        for family, host, port in wanted
        if host in ("0.0.0.0", "::") and family != socket.AF_UNIX
    }
    return {
        (*key, worker): listen
        for key, listen in wanted.items()
        if key[1] in ("0.0.0.0", "::") or (key[0], key[2]) not in wildcards
        for worker in range(workers if _divided(key, listen) else 1)
    }


def _divided(key: _Address | _Key, listen: Listen) -> bool:
    return listen.reuseport and key[0] != socket.AF_UNIX


def _stale(path: str) -> bool:
    """Whether that is a Unix socket on which nobody listens any more."""
    if not stat.S_ISSOCK(os.stat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def _open(key: _Key, listen: Listen) -> _Bound:
    """Bind one address. Raises OSError, with ``listen()`` as its filename if that failed."""
    family, host, port, _ = key
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if _divided(key, listen):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(listen.ipv6only))
        sock.setblocking(False)
        inode = None
        if family == socket.AF_UNIX:
            try:
                sock.bind(host)
            except OSError as exc:
                if exc.errno != errno.EADDRINUSE or not _stale(host):
                    raise
                os.unlink(host)
                sock.bind(host)
            os.chmod(host, 0o666)
            status = os.stat(host)
            inode = (status.st_dev, status.st_ino)
        else:
            sock.bind((host, port))
        try:
            sock.listen(listen.backlog)
        except OSError as exc:
            exc.filename = "listen()"
            raise
        if listen.deferred and family != socket.AF_UNIX and hasattr(socket, "TCP_DEFER_ACCEPT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
    except BaseException:
        sock.close()
        raise
    return _Bound(listen, sock, inode)


class Listeners:
    """The listening sockets of a process. Close them with :meth:`close`, or use ``with``."""

    def __init__(self) -> None:
        self._bound: dict[_Key, _Bound] = {}

    @classmethod
    def bind(
        cls,
        listens: Iterable[Listen],
        *,
        error_log: Log,
        previous: Listeners | None = None,
        workers: int = 1,
        tries: int = 5,
        test: bool = False,
        sleep: Callable[[float], object] = time.sleep,
    ) -> Listeners:
        """Bind and listen. Blocks while it waits for an address that is still in use.

        Args:
            listens: What the servers listen on; the same address may occur more than once.
            error_log: Where failures are reported.
            previous: Sockets to go on using where the address stays. They stay open here;
                when the new configuration is in use, call ``previous.close(keep=new)``.
            workers: How many sockets an address with ``reuseport`` gets.
            tries: How often to try addresses that are in use, half a second apart.
            test: Only see whether binding would work; an address in use is fine then.
            sleep: What waits between two tries.

        Raises:
            ListenError: It did not work; nothing new is left open.
        """
        listeners = cls()
        try:
            wanted = _plan(listens, workers)
        except ListenError as exc:
            error_log.log(EMERG, str(exc).encode())
            raise
        if previous is not None:
            for key, listen in wanted.items():
                if key in previous._bound:
                    bound = replace(previous._bound[key], listen=listen)
                    listeners._bound[key] = bound
                    if _divided(key, listen):
                        # it may have been bound without, and then the others could not be
                        bound.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            for attempt in range(tries):
                if listeners._try(wanted, error_log, test=test):
                    break
                if attempt + 1 < tries:
                    error_log.log(NOTICE, b"try again to bind() after 500ms")
                    sleep(0.5)
            else:
                if tries > 1:
                    error_log.log(EMERG, b"still could not bind()")
                raise ListenError("still could not bind()")
        except BaseException:
            listeners.close(error_log=error_log, keep=previous)
            raise
        return listeners

    def _try(self, wanted: dict[_Key, Listen], error_log: Log, *, test: bool) -> bool:
        complete = True
        for key, listen in wanted.items():
            if key in self._bound:
                continue
            try:
                self._bound[key] = _open(key, listen)
            except OSError as exc:
                in_use = exc.errno == errno.EADDRINUSE
                if in_use and test:
                    continue
                if exc.filename == "listen()":
                    what = f"listen() to {_text(*key)}, backlog {listen.backlog}"
                else:
                    what = f"bind() to {_text(*key)}"
                message = f"{what} failed {os_error(exc)}"
                error_log.log(EMERG, message.encode("utf-8", "surrogateescape"))
                if not in_use:
                    raise ListenError(message) from None
                complete = False
        return complete

    def adopt(self, fd: int, *, own_file: bool = False) -> Listen:
        """Add a listening socket that was inherited (``fd://N``); it becomes ours.

        Args:
            fd: Its descriptor.
            own_file: Whether the file of a Unix socket is to be removed at the end.

        Raises:
            ListenError: The descriptor is not a listening stream socket.
        """
        try:
            sock = socket.socket(fileno=fd)
        except OSError as exc:
            raise ListenError(f"fd://{fd} is not a socket {os_error(exc)}") from None
        listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if sock.type != socket.SOCK_STREAM or not listening:
            sock.detach()
            raise ListenError(f"fd://{fd} is not a listening stream socket")
        sock.setblocking(False)
        sock.set_inheritable(False)
        name = sock.getsockname()
        if sock.family == socket.AF_UNIX:
            path = os.fsdecode(name)
            listen, address = Listen("", 0, path=path), (int(sock.family), path, 0)
        else:
            host, port = str(name[0]), int(name[1])
            listen = Listen("" if host == "0.0.0.0" else host, port)
            address = (int(sock.family), host, port)
        worker = 0
        while (*address, worker) in self._bound:
            worker += 1
        inode = None
        if own_file and listen.path is not None:
            status = os.stat(listen.path)
            inode = (status.st_dev, status.st_ino)
        self._bound[(*address, worker)] = _Bound(listen, sock, inode)
        return listen

    @property
    def pairs(self) -> list[tuple[Listen, socket.socket]]:
        """Each socket with the directive that asked for it (the first, if several did)."""
        return [(bound.listen, bound.sock) for bound in self._bound.values()]

    def of_worker(self, number: int) -> list[tuple[Listen, socket.socket]]:
        """The sockets of one worker: everybody's, and its own of those that are divided."""
        return [
            (bound.listen, bound.sock)
            for key, bound in self._bound.items()
            if key[3] == (number if _divided(key, bound.listen) else 0)
        ]

    @property
    def fds(self) -> list[int]:
        """The descriptors of all sockets."""
        return [bound.sock.fileno() for bound in self._bound.values()]

    def abandon(self, keep: Listeners) -> None:
        """In a child: close what ``keep`` does not use, and leave everything else as it is."""
        kept = {bound.sock for bound in keep._bound.values()}
        for bound in self._bound.values():
            if bound.sock not in kept:
                bound.sock.close()

    def duplicates(self) -> list[tuple[Listen, socket.socket]]:
        """The same with duplicated descriptors, for a worker to use and close."""
        return [(listen, sock.dup()) for listen, sock in self.pairs]

    @property
    def addresses(self) -> list[str]:
        """The bound addresses as ``127.0.0.1:8000``, ``[::]:8000`` or ``unix:/path``."""
        return [
            _text(family, host, bound.sock.getsockname()[1] if family != socket.AF_UNIX else 0)
            for (family, host, _, worker), bound in self._bound.items()
            if not worker
        ]

    @property
    def urls(self) -> list[str]:
        """The addresses as a user would type them."""
        urls = []
        for (listen, _), address in zip(self.of_worker(0), self.addresses, strict=True):
            scheme = "https" if listen.ssl else "http"
            if address.startswith("unix:"):
                urls.append(f"{scheme}+unix://{address[5:].replace('/', '%2F')}")
            else:
                urls.append(f"{scheme}://{address}")
        return urls

    def close(
        self,
        *,
        error_log: Log | None = None,
        keep: Listeners | None = None,
        leave_files: bool = False,
    ) -> None:
        """Close the sockets, and remove the files of Unix sockets that were bound here.

        Args:
            error_log: Where failures are reported.
            keep: Sockets that this one uses as well stay open.
            leave_files: Remove no file: another process goes on with the sockets.
        """
        kept = {bound.sock for bound in keep._bound.values()} if keep is not None else set()
        for key, bound in self._bound.items():
            if bound.sock in kept:
                continue
            bound.sock.close()
            if bound.inode is not None and not leave_files:
                _remove(key[1], bound.inode, error_log, quiet=keep is None)
        self._bound = {key: bound for key, bound in self._bound.items() if bound.sock in kept}

    def __enter__(self) -> Listeners:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def _remove(path: str, inode: tuple[int, int], error_log: Log | None, *, quiet: bool) -> None:
    try:
        status = os.stat(path)
        if (status.st_dev, status.st_ino) != inode:
            return
        if error_log is not None and not quiet:
            error_log.log(WARN, b"deleting socket " + os.fsencode(path))
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as exc:
        if error_log is not None:
            message = f"unlink() {path} failed {os_error(exc)}"
            error_log.log(ALERT, message.encode("utf-8", "surrogateescape"))
