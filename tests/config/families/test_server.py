from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from trio_lua.config.families import server as module
from trio_lua.config.model import Config, Listen, Server

Http = Callable[[str], Config]
Refused = Callable[[Callable[[str], object], str], str]


def listens(config: Config) -> list[tuple[str, int, str | None]]:
    return [(listen.host, listen.port, listen.path) for listen in config.http.servers[0].listens]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080", [("", 8080, None)]),
        ("*:8080", [("", 8080, None)]),
        ("*", [("", 80, None)]),
        ("0.0.0.0:8080", [("", 8080, None)]),
        ("127.0.0.1", [("127.0.0.1", 80, None)]),
        ("127.0.0.1:0", [("127.0.0.1", 0, None)]),
        ("[::]:8080", [("::", 8080, None)]),
        ("[0:0::1]", [("::1", 80, None)]),
        ("unix:/run/x.sock", [("", 0, "/run/x.sock")]),
        ("UNIX:x", [("", 0, "x")]),
        (
            "127.0.0.1:81-83",
            [("127.0.0.1", 81, None), ("127.0.0.1", 82, None), ("127.0.0.1", 83, None)],
        ),
        ("81-82", [("", 81, None), ("", 82, None)]),
    ],
)
def test_addresses(http: Http, text: str, expected: list[tuple[str, int, str | None]]) -> None:
    assert listens(http(f"server {{ listen {text}; }}")) == expected


def test_names_are_resolved(http: Http, monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    def resolve(host: str, port: object, **options: object) -> list[tuple[object, ...]]:
        if host != "somewhere":
            raise socket.gaierror
        return [(0, 0, 0, "", (address, 0)) for address in ("10.0.0.1", "::1", "10.0.0.1")]

    monkeypatch.setattr(module.socket, "getaddrinfo", resolve)
    assert listens(http("server { listen somewhere:81; }")) == [
        ("10.0.0.1", 81, None),
        ("::1", 81, None),
    ]
    assert refused(http, "server { listen nowhere:81; }") == (
        'host not found in "nowhere:81" of the "listen" directive in nginx.conf:2'
    )


@pytest.mark.parametrize(("user", "port"), [(0, 80), (1000, 8000)])
def test_without_listen(http: Http, monkeypatch: pytest.MonkeyPatch, user: int, port: int) -> None:
    monkeypatch.setattr(module.os, "getuid", lambda: user)
    assert listens(http("server { }")) == [("", port, None)]


def test_parameters(http: Http) -> None:
    config = http(
        "server { listen [::1]:81 default_server backlog=9 reuseport ipv6only=off deferred bind "
        "so_keepalive=30m::10 rcvbuf=8k sndbuf=16k fastopen=3; listen 82 default; }"
    )
    first, second = config.http.servers[0].listens
    assert first == Listen(
        "::1",
        81,
        default_server=True,
        ipv6only=False,
        reuseport=True,
        backlog=9,
        deferred=True,
        source=first.source,
        fastopen=3,
        rcvbuf=8192,
        sndbuf=16384,
        so_keepalive="30m::10",
    )
    assert str(first.source) == "nginx.conf:2"
    assert second.default_server


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("99999", 'invalid port in "99999" of the "listen" directive'),
        ("a:x", 'invalid port in "a:x" of the "listen" directive'),
        ("127.0.0.1:", 'invalid port in "127.0.0.1:" of the "listen" directive'),
        ("9-5", 'invalid port range in "9-5" of the "listen" directive'),
        ("0-5", 'invalid port in "0-5" of the "listen" directive'),
        (":80", 'no host in ":80" of the "listen" directive'),
        ("a/b", 'invalid host in "a/b" of the "listen" directive'),
        ("[::1:80", 'invalid host in "[::1:80" of the "listen" directive'),
        ("[::1]80", 'invalid host in "[::1]80" of the "listen" directive'),
        ("[]:80", 'no host in "[]:80" of the "listen" directive'),
        ("[::g]:80", 'invalid IPv6 address in "[::g]:80" of the "listen" directive'),
        ("unix:", 'no path in the unix domain socket in "unix:" of the "listen" directive'),
        ("unix:/" + "x" * 200, "too long path in the unix domain socket in"),
        ("81 fast", 'invalid parameter "fast"'),
        ("81 backlog=0", 'invalid backlog "backlog=0"'),
        ("81 backlog=x", 'invalid backlog "backlog=x"'),
        ("81 rcvbuf=x", 'invalid rcvbuf "rcvbuf=x"'),
        ("81 ipv6only=ox", 'invalid ipv6only flags "ox"'),
        ("81 so_keepalive=maybe", 'invalid so_keepalive value: "maybe"'),
        ("81 so_keepalive=::", 'invalid so_keepalive value: "::"'),
        ("81 http2", 'the "http2" parameter of the "listen" directive is not supported yet'),
        ("81 quic", 'the "quic" parameter of the "listen" directive is not supported yet'),
        ("81 proxy_protocol", 'the "proxy_protocol" parameter of the "listen" directive is not'),
    ],
)
def test_mistakes_in_listen(http: Http, refused: Refused, text: str, message: str) -> None:
    found = refused(http, f"\nserver {{ listen {text}; }}")
    assert found.startswith(message)
    assert found.endswith(" in nginx.conf:3")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("server { listen 81; listen *:81; }", "a duplicate listen 0.0.0.0:81 in nginx.conf:2"),
        (
            "server { listen [::1]:81; listen [0::1]:81; }",
            "a duplicate listen [::1]:81 in nginx.conf:2",
        ),
        (
            "server { listen unix:/x; listen unix:/x; }",
            "a duplicate listen unix:/x in nginx.conf:2",
        ),
        (
            "server { listen 81 default_server; }\nserver { listen 81 default_server; }",
            "a duplicate default server for 0.0.0.0:81 in nginx.conf:3",
        ),
        (
            "server { listen 81 backlog=1; }\nserver { listen 81 backlog=1; }",
            "duplicate listen options for 0.0.0.0:81 in nginx.conf:3",
        ),
    ],
)
def test_addresses_that_collide(http: Http, refused: Refused, text: str, message: str) -> None:
    assert refused(http, text) == message


def test_server_names(server: Callable[[str], Server]) -> None:
    found = server(
        "server_name A.example *.B .c d.* ''; server_name ~^(?<Sub>\\w+)\\.E$ $hostname;"
    )
    assert found.names == (
        "a.example",
        "*.b",
        ".c",
        "d.*",
        "",
        r"~^(?<Sub>\w+)\.E$",
        socket.gethostname().lower(),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("*", 'server name "*" is invalid'),
        ("*x", 'server name "*x" is invalid'),
        (".", 'server name "." is invalid'),
        ("~", 'empty regex in server name "~"'),
    ],
)
def test_wrong_server_names(
    server: Callable[[str], Server], refused: Refused, text: str, message: str
) -> None:
    assert refused(server, f"server_name {text};") == f"{message} in nginx.conf:3"


def test_a_suspicious_server_name(http: Http) -> None:
    assert http("server { server_name a/b; }").warnings == (
        '[warn] server name "a/b" has suspicious symbols in nginx.conf:2',
    )
