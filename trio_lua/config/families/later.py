"""Directives that are known but not supported yet: they say so, instead of being unknown."""

from __future__ import annotations

from functools import partial

from trio_lua.config.directives import Context, Directive, DirectiveTable, Use, takes

__all__ = ["TABLE"]

TABLE = DirectiveTable()

#: Subjects, by directives or (with a trailing "*") families of directives.
_LATER = {
    "TLS": ("ssl", "ssl_*", "lua_ssl_*"),
    "proxying": (
        "upstream",
        "balancer_by_lua*",
        "lua_upstream_skip_openssl_default_verify",
        "proxy_*",
        "fastcgi_*",
        "grpc_*",
        "memcached_*",
        "scgi_*",
        "uwsgi_*",
    ),
    "thread pools": ("thread_pool",),
    "shared dictionaries": ("lua_shared_dict",),
    "access control by method": ("limit_except",),
    "HTTP/2": ("http2",),
    "the stream subsystem": ("stream",),
    "the mail subsystem": ("mail",),
}


def _refuse(use: Use, *, subject: str) -> None:
    raise use.error(
        f'"{use.name}" directive is not supported yet', f"there is no {subject} in this version"
    )


for _subject, _names in _LATER.items():
    _setter = partial(_refuse, subject=_subject)
    for _name in _names:
        if _name.endswith("*"):
            TABLE.register_family(_name[:-1], _setter)
        else:
            TABLE.register(Directive(_name, Context.ANY, takes(0, None), _setter, "any"))
