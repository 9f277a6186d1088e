"""Real redis, memcached and MariaDB servers for tests, and handlers that talk to them.

Each server has a data folder of its own and ends with the tests. A test that wants one which is not installed is
skipped.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
import trustme
from serving import MemoryLog, Running, nginx

from trio_lua.config.model import Listen
from trio_lua.server.worker import Worker

#: The type of :func:`run`.
Run = Callable[..., Awaitable[list[str]]]


@dataclass(frozen=True)
class Certificates:
    """Files: a certificate for ``test.local`` with its key, a key of nobody, and of whoever signed the certificate."""

    chain: Path
    key: Path
    other_key: Path
    authority: Path


@dataclass(frozen=True)
class Service:
    """Where a server listens: a unix socket, and ports of 127.0.0.1."""

    path: Path
    port: int
    tls_port: int
    authority: Path


def make_certificates(folder: Path) -> Certificates:
    authority = trustme.CA()
    certificate = authority.issue_cert("test.local")
    files = Certificates(*(folder / f"{name}.pem" for name in ("chain", "key", "other", "ca")))
    files.chain.write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    certificate.private_key_pem.write_to_path(str(files.key))
    authority.issue_cert("other.local").private_key_pem.write_to_path(str(files.other_key))
    authority.cert_pem.write_to_path(str(files.authority))
    return files


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def require(*programs: str) -> None:
    """Skip the test if one of the programs is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


@contextlib.contextmanager
def running(command: list[str], address: str | tuple[str, int], log: Path) -> Iterator[None]:
    """A process that listens on a unix socket or a port; it may take some time to do so."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with (
        open(log, "wb") as output,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        ) as process,
    ):
        try:
            for _ in range(600):
                with socket.socket(family) as sock:
                    if sock.connect_ex(address) == 0:
                        break
                with contextlib.suppress(subprocess.TimeoutExpired):
                    raise AssertionError(
                        f"{command[0]} ended with {process.wait(0.05)}: {log.read_text()}"
                    )
            else:
                raise AssertionError(f"{command[0]} does not listen: {log.read_text()}")
            yield
        finally:
            process.terminate()


def _as_root(option: str) -> list[str]:
    return [option] if os.getuid() == 0 else []


@contextlib.contextmanager
def redis(folder: Path, files: Certificates) -> Iterator[Service]:
    require("redis-server")
    service = Service(folder / "s", free_port(), free_port(), files.authority)
    options = {
        "unixsocket": service.path,
        "bind": "127.0.0.1",
        "port": service.port,
        "tls-port": service.tls_port,
        "tls-cert-file": files.chain,
        "tls-key-file": files.key,
        "tls-ca-cert-file": files.authority,
        "tls-auth-clients": "no",
        "save": "",
        "dir": folder,
    }
    command = ["redis-server"]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    with running(command, ("127.0.0.1", service.port), folder / "log"):
        yield service


@contextlib.contextmanager
def memcached(folder: Path, files: Certificates) -> Iterator[Service]:
    """Over the unix socket and over TLS these are two servers."""
    require("memcached")
    service = Service(folder / "s", free_port(), free_port(), files.authority)
    command = ["memcached", *_as_root("--user=root")]
    tls = f"ssl_chain_cert={files.chain},ssl_key={files.key}"
    with (
        running([*command, "-s", str(service.path)], str(service.path), folder / "log"),
        running(
            [
                *command,
                "-l",
                f"notls:127.0.0.1:{service.port}",
                "-l",
                f"127.0.0.1:{service.tls_port}",
                "-Z",
                "-o",
                tls,
            ],
            ("127.0.0.1", service.tls_port),
            folder / "log-tls",
        ),
    ):
        yield service


#: Of the user that tests are in MariaDB, and of the database that is theirs.
DATABASE = "trio_lua"


@contextlib.contextmanager
def mariadb(folder: Path, files: Certificates) -> Iterator[Service]:
    require("mariadbd", "mariadb-install-db", "mariadb")
    service = Service(folder / "s", free_port(), free_port(), files.authority)
    common = ["--no-defaults", f"--datadir={folder}/data", *_as_root("--user=root")]
    subprocess.run(
        [
            "mariadb-install-db",
            *common,
            "--skip-test-db",
            "--skip-name-resolve",
            "--auth-root-authentication-method=normal",
        ],
        stdout=subprocess.DEVNULL,
        check=True,
    )
    command = ["mariadbd", *common, f"--socket={service.path}", "--bind-address=127.0.0.1"]
    command += [f"--port={service.port}", f"--pid-file={folder}/pid", "--skip-name-resolve"]
    command += [f"--ssl-cert={files.chain}", f"--ssl-key={files.key}"]
    command += ["--innodb-buffer-pool-size=16M", "--innodb-log-file-size=8M"]
    with running(command, str(service.path), folder / "log"):
        statements = f"""
            CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4;
            CREATE USER '{DATABASE}'@'%' IDENTIFIED BY 'secret';
            GRANT ALL ON {DATABASE}.* TO '{DATABASE}'@'%';
            CREATE USER 'nobody'@'%';
            GRANT SELECT ON {DATABASE}.* TO 'nobody'@'%';
        """
        subprocess.run(
            ["mariadb", "--no-defaults", "-uroot", "-S", str(service.path)],
            input=statements.encode(),
            check=True,
        )
        yield service


async def run(
    code: str, *, more: str = "", http: str = "", listen: str = "", secure: str = ""
) -> list[str]:
    """The lines that a content handler says, which must log no error.

    Args:
        code: The handler.
        more: Further directives of the server.
        http: Further directives of ``http``.
        listen: The path of a unix socket to listen on.
        secure: The path of another one, whose server ``http`` has, with ``ssl``.
    """
    conf = nginx(f"location /t {{ content_by_lua_block {{ {code} }} }} {more}", http)
    log = MemoryLog()
    async with trio.open_nursery() as nursery:
        worker = Worker(conf, error_log=log)
        listeners = []
        for path, address in (
            (listen, Listen("127.0.0.1", 80)),
            (secure, Listen("", 0, secure, ssl=True)),
        ):
            if path:
                sock = socket.socket(socket.AF_UNIX)
                sock.bind(path)
                sock.listen()
                listeners.append((address, sock))
        await nursery.start(worker.run, listeners)
        with trio.fail_after(30):
            client = await Running(worker, log, True).connect(Listen("127.0.0.1", 80))
            try:
                await client.send(
                    b"GET /t HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
                )
                status, _, data = await client.response()
            except AssertionError:
                raise AssertionError(log.text()) from None
            finally:
                await client.aclose()
            assert status == 200, log.text()
        # a note of lua-resty-http about what it could use
        errors = [line for line in log.text(4).splitlines() if "resty.openssl" not in line]
        assert errors == []
        assert worker.runtime.sockets.open == 0
        nursery.cancel_scope.cancel()
    return data.decode().splitlines()
