"""What is asked of every server: the requests, the expected answers, and what is measured.

A case that is a burst of requests is driven by wrk; a case that holds connections opens them itself and reads the
memory of the server. All servers answer the same body to the same request; how each comes to it is in
:mod:`benchmarks.servers`.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BODY", "BURSTS", "CASES", "HOLDS", "LARGE", "SUSPEND", "Burst", "Case", "Hold"]

BODY = b"hello world\n"
LARGE = b"x" * 8192
POSTED = (bytes(range(32, 127)) * 44)[:4096]

#: How long a request of the case ``suspended`` sleeps: enough to open every connection first.
SUSPEND = 15.0

#: What a desktop browser sends besides ``Host``.
BROWSER_HEADERS = (
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("Accept-Language", "en-GB,en;q=0.5"),
    ("Accept-Encoding", "gzip, deflate, br"),
    ("Connection", "keep-alive"),
    ("Cookie", "session=0b5f3a4e9c; theme=dark"),
    ("Upgrade-Insecure-Requests", "1"),
    ("Sec-Fetch-Dest", "document"),
    ("Sec-Fetch-Mode", "navigate"),
    ("Cache-Control", "max-age=0"),
)


@dataclass(frozen=True)
class Case:
    """A request and its answer.

    Attributes:
        name: Of the command line and of the results.
        title: Of the table.
        path: What is requested.
        expected: The body of the answer.
        headers: Sent besides ``Host``.
        body: A body to be posted; None for GET.
        plain: Whether a server that knows no HTTP can take part.
        lua: Whether only servers that run Lua can take part.
        peer: What its handlers talk to (:mod:`benchmarks.peers`); empty for nobody.
        tls: Whether the client speaks TLS.
    """

    name: str
    title: str
    path: str
    expected: bytes = BODY
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    plain: bool = False
    lua: bool = False
    peer: str = ""
    tls: bool = False

    def request(self, host: str) -> bytes:
        """The request on the wire."""
        method = "GET" if self.body is None else "POST"
        lines = [f"{method} {self.path} HTTP/1.1", f"Host: {host}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.body is not None:
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode() + (self.body or b"")


@dataclass(frozen=True)
class Burst(Case):
    """As many requests as the server answers.

    Attributes:
        connections: Kept open at once; None for the number of the command line.
        seconds: The shortest burst that means something.
    """

    connections: int | None = None
    seconds: int = 1


@dataclass(frozen=True)
class Hold(Case):
    """Connections held open.

    Attributes:
        connections: How many.
        answered: Whether the request is answered before the memory is read.
    """

    connections: int = 10_000
    answered: bool = True


BURSTS = (
    Burst("hello", "hello world", "/hello", plain=True),
    Burst("headers", "hello, ten browser headers", "/hello", headers=BROWSER_HEADERS, plain=True),
    Burst("phases", "rewrite + access + content", "/phases"),
    Burst("large", "8 KB response", "/large", LARGE),
    Burst("echo", "4 KB POST echoed", "/echo", POSTED, body=POSTED),
    Burst("shdict", "ngx.shared: 1,000 x (get, set, incr)", "/shdict", lua=True),
    Burst("spawn", "100 x spawn and wait for a light thread that has ended", "/spawn", lua=True),
    Burst("turns", "100 x ngx.sleep(0)", "/turns", lua=True),
    Burst("strings", "strings: 1,000 x build, cut and join", "/strings", lua=True),
    Burst(
        "thread",
        "an empty task in a thread pool, one at a time",
        "/thread",
        lua=True,
        connections=1,
    ),
    Burst("redis", "GET from redis, pooled", "/redis", lua=True, peer="redis"),
    Burst("https", "hello world over TLS", "/hello", tls=True),
    Burst(
        "handshake",
        "TLS handshake of a cosocket, session resumed",
        "/handshake",
        lua=True,
        peer="tls",
    ),
    Burst(
        "bulk",
        "64 MB through a cosocket",
        "/bulk",
        lua=True,
        peer="peer",
        connections=1,
        seconds=5,
    ),
    Burst(
        "upstreams",
        "1,000 upstream connections, each answers after 50 ms",
        "/upstream",
        lua=True,
        peer="peer",
        connections=1000,
        seconds=3,
    ),
    Burst("sleep", "1,000 connections, each sleeps 50 ms", "/sleep", connections=1000, seconds=3),
)
HOLDS = (
    Hold("suspended", "10,000 suspended requests", "/suspend", answered=False),
    Hold("idle", "10,000 idle keep-alive connections", "/hello", plain=True),
)
CASES: dict[str, Case] = {case.name: case for case in (*BURSTS, *HOLDS)}
