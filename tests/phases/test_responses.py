"""Statuses without a response: which ``error_page`` answers them, and when nginx's own page does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from serving import nginx
from serving import serve_task as serve

__all__ = ["serve"]

Serve = Callable[..., Any]


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        # one error page for a request ...
        ("/once", 403, b"403 Forbidden"),
        # ... unless the location that it leaves allows more, wherever it leads
        ("/on_first", 200, b"end"),
        ("/on_second", 403, b"403 Forbidden"),
        # statuses without an error page count as well
        ("/other", 404, b"404 Not Found"),
    ],
)
async def test_recursive_error_pages(serve: Serve, path: str, status: int, body: bytes) -> None:
    conf = nginx("""
        location = /once { error_page 404 /forbidden; return 404; }
        location = /on_first { recursive_error_pages on; error_page 404 /forbidden; return 404; }
        location = /on_second { error_page 404 /on_forbidden; return 404; }
        location = /other { error_page 500 /end; return 404; }
        location = /forbidden { error_page 403 =200 /end; return 403; }
        location = /on_forbidden { recursive_error_pages on; error_page 403 =200 /end; return 403; }
        location = /end { return 200 end; }
    """)
    async with serve(conf) as running:
        client = await running.connect()
        found = await client.get(path)
        assert found[0] == status
        assert body in found[2]


async def test_error_pages_that_lead_to_themselves(serve: Serve) -> None:
    conf = nginx("location / { recursive_error_pages on; error_page 404 /; return 404; }")
    async with serve(conf) as running:
        client = await running.connect()
        assert (await client.get("/"))[0] == 500
        assert 'redirection cycle while internally redirecting to "/"' in running.log.text(4)


async def test_a_body_that_is_too_large_has_an_error_page(serve: Serve) -> None:
    conf = nginx("""
        client_max_body_size 2;
        recursive_error_pages on;
        error_page 413 /large;
        location / { return 200 small; }
        location /large { return 200 large; }
    """)
    async with serve(conf) as running:
        client = await running.connect()
        head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\n"
        await client.send(head + b"abc")
        assert (await client.rest()).endswith(b"large")
