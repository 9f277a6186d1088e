"""The HTML pages nginx makes for redirects and errors, byte for byte."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from trio_lua.http.status import REASONS

__all__ = ["error_page", "has_page", "wants_padding"]

# Titles that differ from the reason on the status line.
_OTHER_TITLES = {302: "Found", 401: "Authorization Required"}

# Codes that have a page: every redirect and error that has a reason, and nginx's own.
_TITLES: Mapping[int, str] = MappingProxyType(
    {
        **{
            code: f"{code} {_OTHER_TITLES.get(code, reason)}"
            for code, reason in REASONS.items()
            if code >= 300 and code != 304
        },
        498: "404 Not Found",
    }
)
_DETAILS: Mapping[int, str] = MappingProxyType(
    {
        494: "Request Header Or Cookie Too Large",
        495: "The SSL certificate error",
        496: "No required SSL certificate was sent",
        497: "The plain HTTP request was sent to HTTPS port",
    }
)

_PADDING = b"<!-- a padding to disable MSIE and Chrome friendly error page -->\r\n" * 6


def has_page(code: int) -> bool:
    """Whether nginx has a page for a code; without one the body is empty and has no type."""
    return code in _TITLES or code in _DETAILS


@lru_cache(maxsize=256)
def error_page(code: int, product: str = "nginx", padding: bool = False) -> bytes:
    """The page for a code, ``b""`` when there is none.

    Args:
        product: What is written below the line: ``nginx`` or ``nginx/1.22.1`` (``server_tokens``).
        padding: Lengthen pages of errors beyond the size below which some browsers show a page of
            their own (see :func:`wants_padding`).
    """
    if not has_page(code):
        return b""
    detail = _DETAILS.get(code)
    if detail is None:
        title = heading = _TITLES[code]
    else:
        title, heading = f"400 {detail}", "400 Bad Request"
    lines = [
        "<html>",
        f"<head><title>{title}</title></head>",
        "<body>",
        f"<center><h1>{heading}</h1></center>",
    ]
    if detail is not None:
        lines.append(f"<center>{detail}</center>")
    lines += [f"<hr><center>{product}</center>", "</body>", "</html>", ""]
    page = "\r\n".join(lines).encode()
    if padding and code >= 400:
        page += _PADDING
    return page


def wants_padding(user_agent: bytes | None, minor: int) -> bool:
    """Whether ``msie_padding`` applies to a client: MSIE or Chrome (not Opera), and not HTTP/0.9."""
    if not user_agent or minor < 0 or b"Opera" in user_agent:
        return False
    at = user_agent.find(b"MSIE ")
    if at >= 0 and at + 7 < len(user_agent):
        return True
    return b"Gecko/" not in user_agent and b"Chrome/" in user_agent
