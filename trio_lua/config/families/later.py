"""Directives that do not exist here, but that people will try.

What belongs to nginx's core or the Lua module and is yet to come says so; what comes from other
modules is unknown, with a hint (nginx also calls it unknown when the module is not loaded), which
goes when such a module is added.
"""

from __future__ import annotations

from functools import partial

from trio_lua.config.directives import Context, Directive, DirectiveTable, Use, takes

__all__ = ["TABLE"]

TABLE = DirectiveTable()

#: Subjects, by directives or (with a trailing "*") families of directives.
_LATER = {
    "such setting of TLS": ("ssl_*",),
    "raw OpenSSL setting": ("lua_ssl_*",),
    "such way of proxying": (
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
    "HTTP/2": ("http2_*",),
    "the stream subsystem": ("stream",),
    "the mail subsystem": ("mail",),
}

#: Beginnings of directives of other modules, which are unknown here.
_ABSENT = {
    "an nginx module": """
        add_after_body add_before_body add_trailer addition_types ancient_browser auth_basic
        auth_request autoindex browser charset_map create_full_put_path dav_ disable_symlinks empty_gif
        flv geo geoip gzip_static image_filter limit_conn limit_req map mirror modern_browser mp4
        override_charset perl post_action random_index real_ip_
        secure_link set_real_ip_from slice source_charset split_clients ssi stub_status sub_filter
        userid xml_entities xslt
    """,
    "the echo module": "echo",
    "the headers-more module": "more_",
    "the set-misc module": """
        set_base32 set_decode_ set_encode_ set_escape_uri set_formatted_ set_hashed_upstream set_hex
        set_if_empty set_local_today set_md5 set_misc_ set_quote_ set_random set_rotate
        set_secure_random set_sha1 set_unescape_uri
    """,
}


def _refuse(use: Use, *, subject: str) -> None:
    raise use.error(
        f'"{use.name}" directive is not supported yet', f"this version has no {subject}"
    )


for _subject, _names in _LATER.items():
    _setter = partial(_refuse, subject=_subject)
    for _name in _names:
        if _name.endswith("*"):
            TABLE.register_family(_name[:-1], _setter)
        else:
            TABLE.register(Directive(_name, Context.ANY, takes(0, None), _setter, "any"))

for _owner, _beginnings in _ABSENT.items():
    for _beginning in _beginnings.split():
        TABLE.explain(_beginning, f"this is a directive of {_owner}, which is not loaded")
