"""TLS of listening sockets: ``ssl_*`` (``listen ... ssl`` is with the servers).

What Python's OpenSSL cannot be told is either harmless and accepted, with a warning where somebody may rely on it, or
refused with the reason.
"""

from __future__ import annotations

import os

from trio_lua.config.directives import Context, Directive, DirectiveTable, Use, takes
from trio_lua.config.families.slots import choices, slots, word
from trio_lua.config.tls import VERSIONS

__all__ = ["TABLE"]

TABLE = DirectiveTable()

_SERVER = Context.HTTP | Context.SERVER

slots(
    TABLE,
    Use.switch,
    _SERVER,
    "ssl_prefer_server_ciphers",
    "ssl_reject_handshake",
    "ssl_session_tickets",
    "ssl_stapling_verify",
)
slots(TABLE, Use.number, _SERVER, "ssl_verify_depth")
slots(TABLE, Use.size, _SERVER, "ssl_buffer_size")
slots(TABLE, Use.time, _SERVER, "ssl_session_timeout")
slots(TABLE, word, _SERVER, "ssl_ciphers", "ssl_stapling_file", "ssl_stapling_responder")


def _file(use: Use) -> str:
    """A path, from the folder of the configuration."""
    if "$" in use.args[0] and use.name in ("ssl_certificate", "ssl_certificate_key"):
        raise use.error(
            f'variables in "{use.name}" are not supported',
            "ssl_certificate_by_lua_block can choose a certificate for each connection",
        )
    return os.path.join(use.build.folder, use.args[0])


def _append_file(use: Use) -> None:
    use.append(use.name, _file(use))


slots(
    TABLE,
    _file,
    _SERVER,
    "ssl_client_certificate",
    "ssl_crl",
    "ssl_dhparam",
    "ssl_password_file",
    "ssl_trusted_certificate",
)
for _name in ("ssl_certificate", "ssl_certificate_key"):
    TABLE.register(Directive(_name, _SERVER, takes(1), _append_file))


@TABLE.directive("ssl_protocols", _SERVER, takes(1, None))
def _protocols(use: Use) -> None:
    for version in use.args:
        if version not in VERSIONS:
            raise use.error(f'invalid value "{version}"')
    use.put(use.name, tuple(use.args))


@TABLE.directive("ssl_ecdh_curve", _SERVER, takes(1))
def _ecdh_curve(use: Use) -> None:
    first, colon, _ = use.args[0].partition(":")
    if colon:
        use.warn(f'"ssl_ecdh_curve": only the first curve, "{first}", is used')
    use.put(use.name, first)


@TABLE.directive("ssl_verify_client", _SERVER, takes(1))
def _verify_client(use: Use) -> None:
    choices("off", "on", "optional", "optional_no_ca")(use)
    if use.args[0] == "optional_no_ca":
        raise use.error(
            '"ssl_verify_client optional_no_ca" is not supported',
            "Python's ssl module ends a handshake whose client certificate it cannot verify",
        )
    use.put(use.name, use.args[0])


@TABLE.directive("ssl_session_cache", _SERVER, takes(1, 2))
def _session_cache(use: Use) -> None:
    """Checked only: OpenSSL keeps a cache of its own size for each context, in each process."""
    for text in use.args:
        kind, _, rest = text.partition(":")
        if not (text in ("off", "none", "builtin") or (kind in ("builtin", "shared") and rest)):
            raise use.error(f'invalid session cache "{text}"')
    use.put(use.name, tuple(use.args))


def _without(use: Use, what: str) -> None:
    if use.switch():
        use.warn(f'"{use.name}" is ignored, {what} is not supported')
    use.put(use.name, use.switch())


@TABLE.directive("ssl_stapling", _SERVER, takes(1))
def _stapling(use: Use) -> None:
    _without(use, "stapling of OCSP responses")


@TABLE.directive("ssl_early_data", _SERVER, takes(1))
def _early_data(use: Use) -> None:
    _without(use, "early data of TLS 1.3")


@TABLE.directive("ssl_session_ticket_key", _SERVER, takes(1))
def _ticket_key(use: Use) -> None:
    use.warn('"ssl_session_ticket_key" is ignored, tickets have keys of this process')


@TABLE.directive("ssl", _SERVER, takes(1))
def _ssl(use: Use) -> None:
    use.warn('the "ssl" directive is deprecated, use the "listen ... ssl" directive instead')
    use.put("ssl", use.switch())


@TABLE.directive("http2", _SERVER, takes(1))
def _http2(use: Use) -> None:
    if use.switch():
        use.warn('"http2 on" is ignored, HTTP/1.1 is served')
    use.put("http2", use.switch())
