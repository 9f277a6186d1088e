from __future__ import annotations

from typing import Any

import pytest

from trio_lua.config.model import ErrorPage, Settings
from trio_lua.phases import special
from trio_lua.phases.rewrite import InternalRedirect, Redirect
from trio_lua.phases.special import ErrorTarget, absolute_location, error_target, find, page

PRODUCT = "nginx/1.22.1"
CHROME = {b"user-agent": b"Mozilla/5.0 Chrome/120"}


def test_connection_rules() -> None:
    statuses = range(300, 600)
    closing = {400, 413, 414, 495, 496, 497, 500, 501}
    assert {status for status in statuses if special.closes_connection(status)} == closing
    assert {s for s in statuses if special.skips_lingering(s)} == {400, 495, 496, 497}


def test_first_error_page_of_a_status(make: Any) -> None:
    one = ErrorPage((404, 500), None, make.template("/one"))
    two = ErrorPage((500, 502), None, make.template("/two"))
    assert find((one, two), 500) is one
    assert find((one, two), 502) is two
    assert find((one, two), 503) is None


@pytest.mark.parametrize(
    ("uri", "response", "status", "expected"),
    [
        ("/e", None, 404, ErrorTarget(InternalRedirect(b"/e", None), 404, False)),
        ("/e?a=1?", None, 404, ErrorTarget(InternalRedirect(b"/e", b"a=1?"), 404, False)),
        ("/e$uri", 200, 404, ErrorTarget(InternalRedirect(b"/e/x", None), 200, False)),
        ("/e", 0, 404, ErrorTarget(InternalRedirect(b"/e", None), None, False)),
        ("/e", None, 497, ErrorTarget(InternalRedirect(b"/e", None), 400, False)),
        ("@e", None, 502, ErrorTarget(InternalRedirect(b"@e", None), 502, False)),
        ("@e", 0, 502, ErrorTarget(InternalRedirect(b"@e", None), None, False)),
        ("http://h$uri", None, 403, Redirect(302, b"http://h/x")),
        ("http://h", 301, 403, Redirect(301, b"http://h")),
        ("http://h", 200, 403, Redirect(302, b"http://h")),
        ("http://h", 0, 403, Redirect(302, b"http://h")),
        ("", None, 403, Redirect(302, b"")),
    ],
)
def test_error_target(
    make: Any, uri: str, response: int | None, status: int, expected: Any
) -> None:
    rule = ErrorPage((status,), response, make.template(uri))
    assert error_target(make.exchange(b"/x?q"), rule, status) == expected


@pytest.mark.parametrize(
    ("method", "uri", "as_get"),
    [(b"GET", "/e", False), (b"HEAD", "/e", False), (b"POST", "/e", True), (b"POST", "@e", False)],
)
def test_error_target_method(make: Any, method: bytes, uri: str, as_get: bool) -> None:
    rule = ErrorPage((404,), None, make.template(uri))
    target = error_target(make.exchange(method=method), rule, 404)
    assert isinstance(target, ErrorTarget)
    assert target.as_get is as_get


def test_page(make: Any) -> None:
    result = page(make.exchange(), 404, Settings(), product=PRODUCT)
    assert result.body is not None
    assert b"<h1>404 Not Found</h1>" in result.body
    assert b"<hr><center>nginx/1.22.1</center>" in result.body
    assert (result.status, result.content_type) == (404, b"text/html")
    assert (result.close, result.linger) == (False, True)


def test_page_without_tokens(make: Any) -> None:
    result = page(make.exchange(), 500, Settings(server_tokens=False), product=PRODUCT)
    assert b"<center>nginx</center>" in (result.body or b"")
    assert result.close


def test_page_of_own_codes_is_a_bad_request(make: Any) -> None:
    result = page(make.exchange(), 497, Settings(), product=PRODUCT)
    assert result.status == 400
    assert b"plain HTTP request" in (result.body or b"")
    assert (result.close, result.linger) == (True, False)


@pytest.mark.parametrize("status", [201, 204, 304, 418, 599, 900])
def test_status_without_page(make: Any, status: int) -> None:
    result = page(make.exchange(headers=CHROME), status, Settings(), product=PRODUCT)
    assert (result.status, result.content_type, result.body) == (status, None, None)


@pytest.mark.parametrize(
    ("status", "settings", "minor", "padded"),
    [
        (404, Settings(), 1, True),
        (404, Settings(msie_padding=False), 1, False),
        (404, Settings(), -1, False),
        (302, Settings(), 1, False),
    ],
)
def test_padding(make: Any, status: int, settings: Settings, minor: int, padded: bool) -> None:
    exchange = make.exchange(headers=CHROME)
    result = page(exchange, status, settings, product=PRODUCT, minor=minor)
    assert (b"a padding to disable" in (result.body or b"")) is padded


@pytest.mark.parametrize(
    ("uri", "expected"),
    [(b"/a.html", b"text/html"), (b"/a", b"text/plain"), (b"/x.y/", b"text/plain")],
)
def test_text_type(make: Any, uri: bytes, expected: bytes) -> None:
    assert special.text_type(make.exchange(uri), Settings()) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), b""),
        (("A.b", "c"), b"a.b"),
        ((".a.b",), b"a.b"),
        (("*.a",), b"*.a"),
        (("~^A$",), b"~^A$"),
        (("$HostName",), b"box"),
    ],
)
def test_server_name(
    make: Any, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], expected: bytes
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "Box")
    assert special.server_name(make.server(*names)) == expected


@pytest.mark.parametrize(
    ("target", "settings", "fields", "expected"),
    [
        (b"/a?b", {}, {}, b"http://h:8080/a?b"),
        (b"//x", {}, {}, b"http://h:8080//x"),
        (b"a", {}, {}, b"a"),
        (b"", {}, {}, b""),
        (b"http://x/", {}, {}, b"http://x/"),
        (b"/a", {"absolute_redirect": False}, {}, b"/a"),
        (b"/a", {"port_in_redirect": False}, {}, b"http://h/a"),
        (b"/a", {"server_name_in_redirect": True}, {}, b"http://n:8080/a"),
        (b"/a", {}, {"port": 80}, b"http://h/a"),
        (b"/a", {}, {"port": 443}, b"http://h:443/a"),
        (b"/a", {}, {"port": 443, "scheme": b"https"}, b"https://h/a"),
        (b"/a", {}, {"port": 80, "scheme": b"https"}, b"https://h:80/a"),
        (b"/a", {}, {"port": 0}, b"http://h/a"),
        (b"/a", {}, {"host": b""}, b"http://127.0.0.1:8080/a"),
    ],
)
def test_absolute_location(
    target: bytes, settings: dict[str, Any], fields: dict[str, Any], expected: bytes
) -> None:
    known: dict[str, Any] = {
        "scheme": b"http",
        "host": b"h",
        "port": 8080,
        "name": b"n",
        "address": b"127.0.0.1",
    }
    assert absolute_location(target, Settings(**settings), **{**known, **fields}) == expected
