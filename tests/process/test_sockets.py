from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from trio_lua.config.model import Listen, Source
from trio_lua.process.sockets import ListenError, Listeners, parse_bind


class Recorder(Protocol):
    """The fixture ``log``."""

    level: int
    lines: list[str]

    def log(self, level: int, message: bytes, connection: int = 0) -> None: ...

    def reopen(self) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]


def no_sleep(_seconds: float) -> None:
    return


def test_binds_listens_and_closes(log: Recorder) -> None:
    with Listeners.bind([Listen("127.0.0.1", 0)], error_log=log) as listeners:
        [(listen, sock)] = listeners.pairs
        assert listen == Listen("127.0.0.1", 0)
        assert not sock.getblocking()
        port = sock.getsockname()[1]
        assert listeners.addresses == [f"127.0.0.1:{port}"]
        assert listeners.urls == [f"http://127.0.0.1:{port}"]
        socket.create_connection(("127.0.0.1", port)).close()
    assert sock.fileno() == -1
    assert log.lines == []


def test_same_address_is_bound_once_with_joined_options(log: Recorder) -> None:
    listens = [
        Listen("127.0.0.1", 0),
        Listen("127.0.0.1", 0, backlog=7, reuseport=True),
        Listen("127.0.0.1", 0, default_server=True),
    ]
    with Listeners.bind(listens, error_log=log) as listeners:
        [(listen, sock)] = listeners.pairs
        assert (listen.backlog, listen.reuseport, listen.default_server) == (7, True, True)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)


def test_wildcard_takes_the_addresses_of_its_port_along(log: Recorder) -> None:
    listens = [Listen("127.0.0.1", 0), Listen("", 0), Listen("*", 0), Listen("127.0.0.2", 0)]
    with Listeners.bind(listens, error_log=log) as listeners:
        [(listen, sock)] = listeners.pairs
        assert listen.host == ""
        assert sock.getsockname()[0] == "0.0.0.0"


def test_ipv6_in_either_spelling(log: Recorder) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6")
    listens = [Listen("[::1]", 0), Listen("0:0::1", 0)]
    with Listeners.bind(listens, error_log=log) as listeners:
        [(_, sock)] = listeners.pairs
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
        assert listeners.addresses == [f"[::1]:{sock.getsockname()[1]}"]


def test_host_names_are_resolved(log: Recorder) -> None:
    with Listeners.bind([Listen("localhost", 0)], error_log=log) as listeners:
        assert any(address.startswith("127.0.0.1:") for address in listeners.addresses)


def test_unknown_host(log: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(ListenError):
        Listeners.bind([Listen("no.invalid", 80, source=Source("nginx.conf", 3))], error_log=log)
    assert log.lines == [
        '[emerg] host not found in "no.invalid:80" of the "listen" directive in nginx.conf:3'
    ]


def test_address_in_use_is_tried_five_times(log: Recorder, taken: int) -> None:
    waits: list[float] = []
    with pytest.raises(ListenError):
        Listeners.bind(
            [Listen("127.0.0.1", 0), Listen("127.0.0.1", taken)],
            error_log=log,
            sleep=waits.append,
        )
    failure = f"[emerg] bind() to 127.0.0.1:{taken} failed (98: Address already in use)"
    again = "[notice] try again to bind() after 500ms"
    assert log.lines == [failure, *[again, failure] * 4, "[emerg] still could not bind()"]
    assert waits == [0.5] * 4


def test_address_that_becomes_free(log: Recorder) -> None:
    blocker = socket.create_server(("127.0.0.1", 0))
    port = blocker.getsockname()[1]
    with Listeners.bind(
        [Listen("127.0.0.1", port)], error_log=log, sleep=lambda _: blocker.close()
    ) as listeners:
        assert listeners.addresses == [f"127.0.0.1:{port}"]
    assert len(log.lines) == 2


def test_single_try(log: Recorder, taken: int) -> None:
    with pytest.raises(ListenError):
        Listeners.bind([Listen("127.0.0.1", taken)], error_log=log, tries=1)
    assert len(log.lines) == 1


def test_other_failures_are_final(log: Recorder) -> None:
    with pytest.raises(ListenError, match="99: Cannot assign requested address"):
        Listeners.bind([Listen("192.0.2.1", 0)], error_log=log)
    assert log.lines == [
        "[emerg] bind() to 192.0.2.1:0 failed (99: Cannot assign requested address)"
    ]


def test_test_mode_accepts_an_address_in_use(log: Recorder, taken: int, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    listens = [Listen("127.0.0.1", taken), Listen("", 0, path=str(path))]
    Listeners.bind(listens, error_log=log, test=True).close()
    assert log.lines == []
    assert not path.exists()


def test_unix_socket_is_made_and_removed(log: Recorder, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with Listeners.bind([Listen("", 0, path=str(path))], error_log=log) as listeners:
        assert listeners.addresses == [f"unix:{path}"]
        assert listeners.urls[0].startswith("http+unix://%2F")
        assert path.stat().st_mode & 0o777 == 0o666
    assert not path.exists()


def test_stale_unix_socket_is_replaced_and_a_live_one_is_not(log: Recorder, tmp_path: Path) -> None:
    path = str(tmp_path / "s.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
        dead.listen()
    with Listeners.bind([Listen("", 0, path=path)], error_log=log):
        with pytest.raises(ListenError):
            Listeners.bind([Listen("", 0, path=path)], error_log=log, sleep=no_sleep)
        assert log.lines[0] == f"[emerg] bind() to unix:{path} failed (98: Address already in use)"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)


def test_file_that_is_no_socket_is_left_alone(log: Recorder, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(ListenError):
        Listeners.bind([Listen("", 0, path=str(path))], error_log=log, sleep=no_sleep)
    assert path.read_text() == "mine"


def test_unix_socket_of_a_successor_is_left_alone(log: Recorder, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    listeners = Listeners.bind([Listen("", 0, path=str(path))], error_log=log)
    other = tmp_path / "other"
    other.write_text("")
    other.rename(path)
    listeners.close(error_log=log)
    assert path.exists()


def test_reload_keeps_what_stays(log: Recorder, tmp_path: Path) -> None:
    kept, gone, new = (Listen("", 0, path=str(tmp_path / n)) for n in ("kept", "gone", "new"))
    old = Listeners.bind([kept, gone], error_log=log)
    sockets = dict(old.pairs)
    fresh = Listeners.bind([kept, new], error_log=log, previous=old)
    assert dict(fresh.pairs)[kept] is sockets[kept]
    old.close(error_log=log, keep=fresh)
    assert sockets[kept].fileno() >= 0
    assert sockets[gone].fileno() == -1
    assert log.lines == [f"[warn] deleting socket {tmp_path}/gone"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept", "new"]
    fresh.close()
    assert list(tmp_path.iterdir()) == []


def test_failed_reload_leaves_the_old_sockets(log: Recorder, taken: int, tmp_path: Path) -> None:
    kept = Listen("", 0, path=str(tmp_path / "kept"))
    new = Listen("", 0, path=str(tmp_path / "new"))
    with Listeners.bind([kept], error_log=log) as old:
        with pytest.raises(ListenError):
            Listeners.bind(
                [kept, new, Listen("127.0.0.1", taken)],
                error_log=log,
                previous=old,
                sleep=no_sleep,
            )
        assert [p.name for p in tmp_path.iterdir()] == ["kept"]
        assert old.pairs[0][1].fileno() >= 0


def test_duplicates_are_independent(log: Recorder) -> None:
    with Listeners.bind([Listen("127.0.0.1", 0)], error_log=log) as listeners:
        [(_, sock)] = listeners.duplicates()
        address = sock.getsockname()
        sock.close()
        socket.create_connection(address).close()


def test_adopting_a_descriptor(log: Recorder) -> None:
    original = socket.create_server(("127.0.0.1", 0))
    port = original.getsockname()[1]
    listeners = Listeners()
    assert listeners.adopt(original.detach()) == Listen("127.0.0.1", port)
    again = Listeners.bind([Listen("127.0.0.1", port)], error_log=log, previous=listeners)
    assert again.addresses == [f"127.0.0.1:{port}"]
    again.close()


def test_adopting_something_else() -> None:
    listeners = Listeners()
    with socket.socket() as idle, pytest.raises(ListenError, match="not a listening"):
        listeners.adopt(idle.fileno())
    with pytest.raises(ListenError, match="fd://999 is not a socket"):
        listeners.adopt(999)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8000", Listen("127.0.0.1", 8000)),
        (":8000", Listen("", 8000)),
        ("8000", Listen("", 8000)),
        ("*:80", Listen("", 80)),
        ("[::1]:80", Listen("::1", 80)),
        ("example.org:80", Listen("example.org", 80)),
        ("unix:/run/x.sock", Listen("", 0, path="/run/x.sock")),
        ("unix:///run/x.sock", Listen("", 0, path="/run/x.sock")),
        ("fd://3", 3),
    ],
)
def test_parse_bind(text: str, expected: Listen | int) -> None:
    assert parse_bind(text) == expected


@pytest.mark.parametrize(
    "text", ["", "host", "host:", "host:x", "h:70000", "::1:80", "unix:", "fd://x"]
)
def test_parse_bind_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_bind(text)


def test_divided_sockets(log: Recorder) -> None:
    """With ``reuseport`` each worker has its own, which the next configuration's worker of that number gets."""
    with Listeners.bind([Listen("127.0.0.1", 0)], error_log=log) as probe:
        port = probe.pairs[0][1].getsockname()[1]
    shared, divided = Listen("127.0.0.1", port), Listen("127.0.0.1", port, reuseport=True)
    with Listeners.bind([shared], error_log=log, workers=2) as one:
        [(_, first)] = one.of_worker(1)
        # the directive may come with a reload
        two = Listeners.bind([divided], error_log=log, previous=one, workers=2)
        one.close(keep=two)
        assert two.addresses == [f"127.0.0.1:{port}"]
        [(_, own)] = two.of_worker(0)
        [(_, other)] = two.of_worker(1)
        assert own is first
        assert other is not first
        assert other.getsockname() == first.getsockname()
        three = Listeners.bind([divided], error_log=log, previous=two, workers=3)
        two.close(keep=three)
        assert three.of_worker(1) == [(divided, other)]
        assert len(three.fds) == 3
        three.close()
