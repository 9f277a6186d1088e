"""Plain settings of ``http``, ``server`` and ``location``."""

from __future__ import annotations

from trio_lua.config import units
from trio_lua.config.directives import Context, DirectiveTable, Use, takes
from trio_lua.config.families.slots import choices, slots, words
from trio_lua.config.model import AddHeader, ErrorPage

__all__ = ["TABLE"]

TABLE = DirectiveTable()

_SERVER = Context.HTTP | Context.SERVER

slots(
    TABLE,
    Use.switch,
    Context.SETTING,
    "absolute_redirect",
    "chunked_transfer_encoding",
    "client_body_in_single_buffer",
    "etag",
    "log_not_found",
    "log_subrequest",
    "msie_padding",
    "msie_refresh",
    "port_in_redirect",
    "recursive_error_pages",
    "reset_timedout_connection",
    "server_name_in_redirect",
    "tcp_nodelay",
    "tcp_nopush",
    "aio_write",
    "open_file_cache_errors",
    "open_file_cache_events",
)
slots(TABLE, Use.switch, Context.SETTING_IF, "sendfile")
slots(
    TABLE,
    Use.time,
    Context.SETTING,
    "auth_delay",
    "client_body_timeout",
    "keepalive_time",
    "lingering_time",
    "lingering_timeout",
    "resolver_timeout",
    "send_timeout",
)
slots(
    TABLE,
    Use.size,
    Context.SETTING,
    "client_body_buffer_size",
    "postpone_output",
    "read_ahead",
    "send_lowat",
    "sendfile_max_chunk",
    "subrequest_output_buffer_size",
)
slots(TABLE, Use.offset, Context.SETTING, "client_max_body_size", "directio_alignment")
slots(
    TABLE,
    Use.number,
    Context.SETTING,
    "keepalive_requests",
    "max_ranges",
    "open_file_cache_min_uses",
    "types_hash_bucket_size",
    "types_hash_max_size",
)
slots(TABLE, Use.seconds, Context.SETTING, "open_file_cache_valid")
slots(TABLE, words, Context.SETTING, "open_file_cache", arity=takes(1, 2))
slots(TABLE, choices("off", "on", "clean"), Context.SETTING, "client_body_in_file_only")
slots(TABLE, choices("off", "on", "always"), Context.SETTING, "lingering_close")
slots(TABLE, choices("off", "exact", "before"), Context.SETTING, "if_modified_since")
slots(TABLE, choices("all", "any"), Context.SETTING, "satisfy")

slots(
    TABLE,
    Use.number,
    Context.HTTP,
    "server_names_hash_bucket_size",
    "server_names_hash_max_size",
    "variables_hash_bucket_size",
    "variables_hash_max_size",
)
slots(
    TABLE,
    Use.switch,
    _SERVER,
    "ignore_invalid_headers",
    "merge_slashes",
    "underscores_in_headers",
)
slots(TABLE, Use.time, _SERVER, "client_header_timeout")
slots(
    TABLE,
    Use.size,
    _SERVER,
    "client_header_buffer_size",
    "connection_pool_size",
    "request_pool_size",
)


def _buffers(use: Use) -> tuple[int, int]:
    try:
        number, size = units.parse_number(use.args[0]), units.parse_size(use.args[1])
    except ValueError:
        raise use.fault("invalid value") from None
    if not number or not size:
        raise use.fault("invalid value")
    return number, size


slots(TABLE, _buffers, _SERVER, "large_client_header_buffers", arity=takes(2))
slots(TABLE, _buffers, Context.SETTING, "output_buffers", arity=takes(2))


@TABLE.directive("server_tokens", Context.SETTING, takes(1))
def _server_tokens(use: Use) -> None:
    use.put("server_tokens", use.choice(("off", "on", "build")) != "off")


@TABLE.directive("directio", Context.SETTING, takes(1))
def _directio(use: Use) -> None:
    use.put("directio", None if use.args[0] == "off" else use.offset())


@TABLE.directive("aio", Context.SETTING, takes(1))
def _aio(use: Use) -> None:
    if use.args[0] not in ("on", "off", "threads") and not use.args[0].startswith("threads="):
        raise use.fault("invalid value")
    use.put("aio", use.args[0])


@TABLE.directive("keepalive_timeout", Context.SETTING, takes(1, 2))
def _keepalive_timeout(use: Use) -> None:
    use.put("keepalive_timeout", use.time())
    if len(use.args) == 2:
        use.put("keepalive_header", use.seconds(1) or None)


@TABLE.directive("keepalive_disable", Context.SETTING, takes(1, 2))
def _keepalive_disable(use: Use) -> None:
    browsers = [use.choice(("none", "msie6", "safari"), index) for index in range(len(use.args))]
    use.put("keepalive_disable", tuple(name for name in browsers if name != "none"))


@TABLE.directive("limit_rate", Context.SETTING_IF, takes(1))
@TABLE.directive("limit_rate_after", Context.SETTING_IF, takes(1))
def _limit_rate(use: Use) -> None:
    value = use.template(0)
    if value.literal is not None:
        use.size()
    use.put(use.name, value)


# The harness of the lua-nginx-module suite names all of them.
@TABLE.directive("fastcgi_temp_path", Context.SETTING, takes(1, 4))
@TABLE.directive("proxy_temp_path", Context.SETTING, takes(1, 4))
@TABLE.directive("scgi_temp_path", Context.SETTING, takes(1, 4))
@TABLE.directive("uwsgi_temp_path", Context.SETTING, takes(1, 4))
@TABLE.directive("client_body_temp_path", Context.SETTING, takes(1, 4))
def _temp_path(use: Use) -> None:
    try:
        levels = [units.parse_number(level) for level in use.args[1:]]
    except ValueError:
        raise use.fault("invalid value") from None
    if not all(levels) or sum(levels) > 10:
        raise use.fault("invalid value")
    use.put(use.name, use.args[0].removesuffix("/") or "/")


@TABLE.directive("resolver", Context.SETTING, takes(1, None))
def _resolver(use: Use) -> None:
    servers = 0
    for word in use.args:
        key, equals, value = word.partition("=")
        if equals and key == "valid":
            try:
                units.parse_time(value, seconds=True)
            except ValueError:
                raise use.error(f"invalid parameter: {word}") from None
        elif equals and key in ("ipv6", "ipv4", "local"):
            if value not in ("on", "off"):
                raise use.error(f"invalid parameter: {word}")
            servers += word == "local=on"
        elif equals and key == "status_zone":
            continue
        else:
            _, colon, port = word.rpartition("]")[2].rpartition(":")
            if colon and not (port.isdigit() and 1 <= int(port) <= 65535):
                raise use.error(f'invalid port in resolver "{word}"')
            servers += 1
    if not servers:
        raise use.error("no name servers defined")
    use.put("resolver", tuple(use.args))


# ---------------------------------------------------------------- responses


@TABLE.directive("error_page", Context.SETTING_IF, takes(2, None))
def _error_page(use: Use) -> None:
    *codes, _ = use.args
    response = None
    if codes[-1].startswith("="):
        text = codes.pop()
        if not codes:
            raise use.error(f'invalid value "{text}"')
        response = _status(use, text, text[1:]) if len(text) > 1 else 0
    numbers = []
    for text in codes:
        number = _status(use, text, text)
        if number == 499:
            raise use.error(f'invalid value "{text}"')
        if not 300 <= number <= 599:
            raise use.error(f'value "{text}" must be between 300 and 599')
        numbers.append(number)
    # nginx's own codes 494 to 497 are shown as 400 unless the directive says otherwise.
    inner = tuple(number for number in numbers if 494 <= number <= 497)
    uri = use.template(len(use.args) - 1)
    if response is None and inner:
        use.append("error_pages", ErrorPage(inner, 400, uri))
        numbers = [number for number in numbers if number not in inner]
    if numbers:
        use.append("error_pages", ErrorPage(tuple(numbers), response, uri))


def _status(use: Use, word: str, digits: str) -> int:
    try:
        return units.parse_number(digits)
    except ValueError:
        raise use.error(f'invalid value "{word}"') from None


@TABLE.directive("add_header", Context.SETTING_IF, takes(2, 3))
def _add_header(use: Use) -> None:
    always = len(use.args) == 3
    value = use.template(1)
    if always and use.args[2] != "always":
        raise use.error(f'invalid parameter "{use.args[2]}"')
    use.append("add_headers", AddHeader(use.args[0], value, always))


@TABLE.directive("allow", Context.SETTING | Context.LIMIT_EXCEPT, takes(1))
@TABLE.directive("deny", Context.SETTING | Context.LIMIT_EXCEPT, takes(1))
def _access_rule(use: Use) -> None:
    text = use.args[0]
    if text not in ("all", "unix:"):
        text = _network(use, text)
    use.append("access_rules", (use.name == "allow", text))


def _network(use: Use, text: str) -> str:
    from ipaddress import ip_network

    address, slash, length = text.partition("/")
    try:
        # Prefix lengths are decimal numbers in nginx; Python also takes netmasks.
        if slash and not length.isdigit():
            raise ValueError
        network = ip_network(text, strict=False)
    except ValueError:
        raise use.error(f'invalid parameter "{text}"') from None
    if slash and ip_network(address) != ip_network(str(network.network_address)):
        use.warn(f"low address bits of {text} are meaningless")
    return str(network)
