"""Special pages as they were read off nginx 1.22.1."""

from __future__ import annotations

import pytest

from trio_lua.http.pages import error_page, has_page, wants_padding

PADDING = b"<!-- a padding to disable MSIE and Chrome friendly error page -->\r\n" * 6


def test_a_page() -> None:
    assert error_page(404, "nginx/1.22.1") == (
        b"<html>\r\n"
        b"<head><title>404 Not Found</title></head>\r\n"
        b"<body>\r\n"
        b"<center><h1>404 Not Found</h1></center>\r\n"
        b"<hr><center>nginx/1.22.1</center>\r\n"
        b"</body>\r\n"
        b"</html>\r\n"
    )


def test_a_page_with_a_reason() -> None:
    assert error_page(494) == (
        b"<html>\r\n"
        b"<head><title>400 Request Header Or Cookie Too Large</title></head>\r\n"
        b"<body>\r\n"
        b"<center><h1>400 Bad Request</h1></center>\r\n"
        b"<center>Request Header Or Cookie Too Large</center>\r\n"
        b"<hr><center>nginx</center>\r\n"
        b"</body>\r\n"
        b"</html>\r\n"
    )


@pytest.mark.parametrize(
    ("code", "title"),
    [
        (301, b"301 Moved Permanently"),
        (302, b"302 Found"),
        (401, b"401 Authorization Required"),
        (413, b"413 Request Entity Too Large"),
        (497, b"400 The plain HTTP request was sent to HTTPS port"),
        (498, b"404 Not Found"),
        (503, b"503 Service Temporarily Unavailable"),
    ],
)
def test_titles(code: int, title: bytes) -> None:
    assert b"<title>" + title + b"</title>" in error_page(code)


@pytest.mark.parametrize(
    "code", [200, 201, 204, 206, 300, 304, 305, 407, 417, 418, 426, 444, 451, 499, 506, 508, 600]
)
def test_codes_without_a_page(code: int) -> None:
    assert not has_page(code)
    assert error_page(code) == b""


def test_padding_is_for_errors() -> None:
    assert error_page(404, padding=True) == error_page(404) + PADDING
    assert error_page(302, padding=True) == error_page(302)


@pytest.mark.parametrize(
    ("user_agent", "expected"),
    [
        (None, False),
        (b"curl/8", False),
        (b"Mozilla/5.0 (X11; Linux) AppleWebKit (KHTML, like Gecko) Chrome/120.0 Safari/5", True),
        (b"Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)", True),
        (b"MSIE 6", False),
        (b"MSIE 6.0 Opera", False),
        (b"Gecko/1 Chrome/2", False),
    ],
)
def test_who_gets_padding(user_agent: bytes | None, expected: bool) -> None:
    assert wants_padding(user_agent, 1) is expected
    assert wants_padding(user_agent, -1) is False
