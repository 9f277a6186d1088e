"""Variables in the configuration: which names exist, and text that holds some of them.

As with nginx, a variable that nobody provides is an error when the configuration is loaded,
not an empty string at run time. Names are case-insensitive and kept in lower case.
"""

from __future__ import annotations

import re
from typing import Union

from trio_lua.config.model import Source, Template, Var
from trio_lua.config.syntax import fail

_BUILTIN = """
    args binary_remote_addr body_bytes_sent bytes_sent connection connection_requests
    connection_time content_length content_type document_root document_uri gzip_ratio host hostname
    http2 http_cookie http_host http_referer http_user_agent http_via http_x_forwarded_for https
    invalid_referer is_args limit_rate msec nginx_version pid pipe proxy_protocol_addr
    proxy_protocol_port proxy_protocol_server_addr
    proxy_protocol_server_port query_string realip_remote_addr realip_remote_port realpath_root
    remote_addr remote_port remote_user request request_body request_body_file request_completion
    request_filename request_id request_length request_method request_time request_uri scheme
    sent_http_cache_control sent_http_connection sent_http_content_length sent_http_content_type
    sent_http_keep_alive sent_http_last_modified sent_http_link sent_http_location
    sent_http_transfer_encoding server_addr server_name server_port server_protocol status
    tcpinfo_rcv_space tcpinfo_rtt tcpinfo_rttvar tcpinfo_snd_cwnd time_iso8601 time_local uri

    ssl_alpn_protocol ssl_cipher ssl_ciphers ssl_client_cert ssl_client_escaped_cert
    ssl_client_fingerprint ssl_client_i_dn ssl_client_i_dn_legacy ssl_client_raw_cert
    ssl_client_s_dn ssl_client_s_dn_legacy ssl_client_serial ssl_client_v_end ssl_client_v_remain
    ssl_client_v_start ssl_client_verify ssl_curve ssl_curves ssl_early_data ssl_protocol
    ssl_server_name ssl_session_id ssl_session_reused

    proxy_add_x_forwarded_for proxy_host proxy_port upstream_addr upstream_bytes_received
    upstream_bytes_sent upstream_cache_status upstream_connect_time upstream_header_time
    upstream_response_length upstream_response_time upstream_status
"""

#: Variables that exist in every configuration.
BUILTIN = frozenset(_BUILTIN.split())

#: Beginnings of names that stand for a family: ``$arg_x`` is the argument "x".
PREFIXES = (
    "arg_",
    "cookie_",
    "http_",
    "sent_http_",
    "sent_trailer_",
    "upstream_cookie_",
    "upstream_http_",
    "upstream_trailer_",
)

#: Built-in variables that ``set`` may assign to.
ASSIGNABLE = frozenset({"args", "limit_rate"} | {name for name in BUILTIN if name[:4] == "ssl_"})

_VARIABLE = re.compile(r"\$(?:([1-9])|\{([A-Za-z0-9_]*)(\}?)|([A-Za-z0-9_]*))")
_NAMED_GROUP = re.compile(r"\(\?(?:P?<([A-Za-z_]\w*)>|'([A-Za-z_]\w*)')")


class Variables:
    """The variables of one configuration while it is being read."""

    def __init__(self) -> None:
        self.declared: set[str] = set()
        #: Names of groups in regular expressions.
        self.groups: set[str] = set()
        self._provided: set[str] = set()
        self._prefixes = list(PREFIXES)
        self._used: dict[str, Source] = {}

    def provide(self, name: str, *, prefix: bool = False) -> None:
        """Makes a module's variable (or family of variables) known."""
        if prefix:
            self._prefixes.append(name.lower())
        else:
            self._provided.add(name.lower())

    def declare(self, name: str, source: Source) -> str:
        """Notes that ``$name`` can be assigned to; returns its proper spelling."""
        if not name:
            raise fail('invalid variable name "$"', source)
        lowered = name.lower()
        if lowered in BUILTIN and lowered not in ASSIGNABLE:
            raise fail(f'the duplicate "{name}" variable', source)
        self.declared.add(lowered)
        return lowered

    def declare_groups(self, regex: str) -> None:
        """The named groups of a regular expression are variables, too."""
        for first, second in _NAMED_GROUP.findall(regex):
            self.groups.add((first or second).lower())

    def use(self, name: str, source: Source) -> Var:
        """Notes that ``$name`` is read somewhere."""
        if not name:
            raise fail('invalid variable name "$"', source)
        lowered = name.lower()
        self._used.setdefault(lowered, source)
        return Var(lowered)

    def is_used(self, name: str) -> bool:
        """Whether the configuration itself reads a variable."""
        return name in self._used

    def template(self, text: str, source: Source) -> Template:
        """Compiles text with ``$name``, ``${name}`` and ``$1``."""
        if "$" not in text:
            return Template(text, (text,) if text else ())
        parts: list[Union[str, Var]] = []
        position = 0
        for found in _VARIABLE.finditer(text):
            if found.start() > position:
                parts.append(text[position : found.start()])
            position = found.end()
            capture, braced, closing, bare = found.groups()
            if capture:
                parts.append(Var(capture))
                continue
            name = bare if braced is None else braced
            if braced is not None and not closing and (braced or position < len(text)):
                raise fail(f'the closing bracket in "{name}" variable is missing', source)
            if not name:
                raise fail("invalid variable name", source)
            parts.append(self.use(name, source))
        if position < len(text):
            parts.append(text[position:])
        return Template(text, tuple(parts))

    def check(self) -> None:
        """Raises for the first variable that is read but that nobody provides."""
        for name, source in self._used.items():
            known = (
                name in self.declared
                or name in self.groups
                or name in BUILTIN
                or name in self._provided
                or name.startswith(tuple(self._prefixes))
            )
            if not known:
                raise fail(f'unknown "{name}" variable', source)
