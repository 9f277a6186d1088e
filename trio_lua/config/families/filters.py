"""What is done to every response: ``expires``, ``charset``, ``gzip``, ``gunzip``; and ``valid_referers``."""

from __future__ import annotations

from trio_lua.config import regex
from trio_lua.config.directives import Context, DirectiveTable, Use, takes
from trio_lua.config.expires import parse_expiry
from trio_lua.config.families.slots import choices, slots, words
from trio_lua.config.model import Expires

__all__ = ["TABLE"]

TABLE = DirectiveTable()

#: Always among the types that are given.
_HTML = "text/html"

#: What ``gzip_disable "msie6"`` stands for.
_MSIE6 = r"MSIE [4-5]\.|MSIE 6\.(?!.*SV1)"


@TABLE.directive("expires", Context.SETTING_IF, takes(1, 2))
def _expires(use: Use) -> None:
    modified = len(use.args) == 2
    if modified and use.args[0] != "modified":
        raise use.fault("invalid value")
    time = use.template(len(use.args) - 1)
    kind = ""
    if time.literal is not None:
        try:
            kind = parse_expiry(time.literal, modified=modified).kind
        except ValueError as error:
            raise use.fault(str(error)) from None
    use.put("expires", None if kind == "off" else Expires(time, modified))


@TABLE.directive("charset", Context.SETTING_IF, takes(1))
def _charset(use: Use) -> None:
    use.put("charset", None if use.args[0] == "off" else use.template(0))


@TABLE.directive("charset_types", Context.SETTING, takes(1, None))
@TABLE.directive("gzip_types", Context.SETTING, takes(1, None))
def _types(use: Use) -> None:
    types = use.block.values.setdefault(use.name, [_HTML])
    for word in use.args:
        name = word.lower()
        if name in types:
            use.warn(f'duplicate MIME type "{word}"')
        else:
            types.append(name)


# ---------------------------------------------------------------- gzip

slots(TABLE, Use.switch, Context.SETTING_IF, "gzip")
slots(TABLE, choices("1.0", "1.1"), Context.SETTING, "gzip_http_version")
slots(TABLE, Use.switch, Context.SETTING, "gzip_vary", "gunzip")
slots(TABLE, Use.size, Context.SETTING, "gzip_min_length", "postpone_gzipping")
# zlib is left to choose its memory.
slots(TABLE, words, Context.SETTING, "gzip_buffers", "gunzip_buffers", arity=takes(2))
slots(TABLE, Use.size, Context.SETTING, "gzip_window", "gzip_hash")
slots(TABLE, Use.switch, Context.SETTING, "gzip_no_buffer")

_PROXIED = (
    "off",
    "expired",
    "no-cache",
    "no-store",
    "private",
    "no_last_modified",
    "no_etag",
    "auth",
    "any",
)


@TABLE.directive("gzip_comp_level", Context.SETTING, takes(1))
def _comp_level(use: Use) -> None:
    level = use.number()
    if not 1 <= level <= 9:
        raise use.error("value must be between 1 and 9")
    use.put("gzip_comp_level", level)


@TABLE.directive("gzip_proxied", Context.SETTING, takes(1, None))
def _proxied(use: Use) -> None:
    chosen = [use.choice(_PROXIED, index) for index in range(len(use.args))]
    use.put("gzip_proxied", tuple(chosen))


@TABLE.directive("gzip_disable", Context.SETTING, takes(1, None))
def _disable(use: Use) -> None:
    for word in use.args:
        if word == "degradation":
            # of nginx's memory, which this server does not have
            continue
        pattern = _MSIE6 if word == "msie6" else word
        regex.check(use, pattern, caseless=True)
        use.append("gzip_disable", pattern)


# ---------------------------------------------------------------- referers


@TABLE.directive("valid_referers", Context.SERVER | Context.LOCATION, takes(1, None))
def _valid_referers(use: Use) -> None:
    for word in use.args:
        host = word.partition("/")[0]
        if word.startswith("~"):
            if word == "~":
                raise use.error('empty regex in "~"')
            regex.check(use, word[1:], caseless=True)
        elif not word:
            raise use.error('invalid referer ""')
        elif not host or ".." in host or "*" in host.removeprefix("*.").removesuffix(".*"):
            raise use.error(f'invalid hostname or wildcard "{host}"')
        use.append("valid_referers", word)


slots(
    TABLE,
    Use.number,
    Context.SERVER | Context.LOCATION,
    "referer_hash_bucket_size",
    "referer_hash_max_size",
)
