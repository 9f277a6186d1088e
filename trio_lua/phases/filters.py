"""What the response filters of a location are told: its constants in Lua.

Only what a location has configured is there, so a response pays for no filter that it does not pass.
"""

from __future__ import annotations

from typing import Any

from trio_lua.api.runtime import Runtime
from trio_lua.config.expires import parse_expiry
from trio_lua.config.model import Settings, Template
from trio_lua.config.units import parse_size

__all__ = ["filter_constants"]


def filter_constants(settings: Settings, runtime: Runtime) -> dict[str, Any]:
    """The filters' names, in nginx's order, under ``filters``, and their settings."""
    names: list[str] = []
    values: dict[str, Any] = {}
    if settings.expires is not None:
        names.append("expires")
        values["expires"] = _expires(settings, runtime)
    if settings.add_headers:
        names.append("add_headers")
        values["add_headers"] = [
            {"name": h.name, "value": runtime.template(h.value), "always": h.always}
            for h in settings.add_headers
        ]
    if settings.limit_rate is not None:
        names.append("limit_rate")
        values["limit_rate"] = _size(settings.limit_rate, runtime)
    if settings.limit_rate_after is not None:
        values["limit_rate_after"] = _size(settings.limit_rate_after, runtime)
    if settings.gunzip:
        names.append("gunzip")
    if settings.charset is not None:
        names.append("charset")
        values["charset"] = runtime.template(settings.charset)
        values["charset_types"] = dict.fromkeys(settings.charset_types, True)
    if settings.gzip:
        names.append("gzip")
        values["gzip"] = {
            "level": settings.gzip_comp_level,
            "min_length": settings.gzip_min_length,
            "types": dict.fromkeys(settings.gzip_types, True),
        }
    if settings.gzip or settings.gunzip:
        rules: dict[str, Any] = {
            "minor": int(settings.gzip_http_version[-1]),
            "proxied": dict.fromkeys(settings.gzip_proxied, True),
            "vary": settings.gzip_vary,
        }
        if settings.gzip_disable:
            rules["disable"] = "|".join(f"(?:{pattern})" for pattern in settings.gzip_disable)
        values["gzip_rules"] = rules
    if names:
        values["filters"] = names
    return values


def _size(size: Template, runtime: Runtime) -> Any:
    """A number of bytes, or a list with the number of its template."""
    text = size.literal
    return [runtime.template(size)] if text is None else parse_size(text)


def _expires(settings: Settings, runtime: Runtime) -> dict[str, Any]:
    expires = settings.expires
    assert expires is not None
    text = expires.time.literal
    if text is None:
        return {"time": runtime.template(expires.time), "modified": expires.modified}
    expiry = parse_expiry(text, modified=expires.modified)
    return {"kind": expiry.kind, "seconds": expiry.seconds}
