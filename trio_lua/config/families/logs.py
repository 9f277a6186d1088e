"""``error_log``, ``access_log`` and ``log_format``."""

from __future__ import annotations

from trio_lua.config import units
from trio_lua.config.directives import Context, DirectiveTable, Use, takes
from trio_lua.config.families.slots import slots, words
from trio_lua.config.model import AccessLog, ErrorLog

__all__ = ["TABLE", "error_log"]

TABLE = DirectiveTable()

slots(TABLE, words, Context.SETTING, "open_log_file_cache", arity=takes(1, 4))

_LEVELS = ("emerg", "alert", "crit", "error", "warn", "notice", "info", "debug")
_DEBUG_LEVELS = (
    "debug_core",
    "debug_alloc",
    "debug_mutex",
    "debug_event",
    "debug_http",
    "debug_mail",
    "debug_stream",
)


def error_log(use: Use) -> ErrorLog:
    """The value of an ``error_log`` directive."""
    target, *levels = use.args
    if target.startswith("memory:"):
        raise use.error(f'"{target}" in "error_log" directive is not supported yet')
    level = ""
    for name in levels:
        if name in _LEVELS:
            if level:
                raise use.error(f'duplicate log level "{name}"')
            level = name
        elif name not in _DEBUG_LEVELS or level in _LEVELS:
            raise use.error(f'invalid log level "{name}"', "one of " + ", ".join(_LEVELS))
        else:
            level = name
    return ErrorLog(target, "debug" if level in _DEBUG_LEVELS else level or "error")


@TABLE.directive("error_log", Context.SETTING, takes(1, None))
def _error_log(use: Use) -> None:
    log = error_log(use)
    known = use.block.values.get("error_log")
    # One log a block: with several, the one that misses nothing.
    if known is None or _LEVELS.index(log.level) > _LEVELS.index(known.level):
        use.block.values["error_log"] = log


@TABLE.directive("log_format", Context.HTTP, takes(2, None))
def _log_format(use: Use) -> None:
    name, *texts = use.args
    # nginx lets "combined" be defined once more, and then has two of that name.
    if name in use.build.log_formats:
        raise use.error(f'duplicate "log_format" name "{name}"')
    escape = "default"
    if texts[0].startswith("escape="):
        escape = texts.pop(0).removeprefix("escape=")
        if escape not in ("default", "json", "none"):
            raise use.error(f'unknown log format escaping "{escape}"')
    use.build.add_log_format(name, "".join(texts), escape, use.source)


@TABLE.directive("access_log", Context.SETTING_IF | Context.LIMIT_EXCEPT, takes(1, None))
def _access_log(use: Use) -> None:
    values = use.block.values
    if use.args[0] == "off":
        if len(use.args) > 1:
            raise use.error(f'invalid parameter "{use.args[1]}"')
        values["access_logs"] = ()
        return
    path = use.template(0)
    name = use.args[1] if len(use.args) > 1 else "combined"
    formats = use.build.log_formats
    known = {other.lower(): other for other in formats}.get(name.lower())
    if known is None:
        raise use.error(f'unknown log format "{name}"')
    condition = None
    buffered = flushed = False
    for index, word in enumerate(use.args[2:], 2):
        key, _, value = word.partition("=")
        if key == "buffer":
            buffered = _positive(use, units.parse_size, value, f'invalid buffer size "{value}"')
        elif key == "flush":
            flushed = _positive(use, units.parse_time, value, f'invalid flush time "{value}"')
        elif key == "if" and "=" in word:
            condition = use.build.variables.template(value, use.source)
        elif key == "gzip":
            raise use.error('"gzip" in "access_log" directive is not supported yet')
        else:
            raise use.error(f'invalid parameter "{use.args[index]}"')
    if flushed and not buffered:
        raise use.error(f'no buffer is defined for access_log "{use.args[0]}"')
    if buffered and path.literal is None:
        raise use.error("buffered logs cannot have variables in name")
    # "off" in the same block wins, wherever it stands.
    if values.get("access_logs") != ():
        use.append("access_logs", AccessLog(path, known, condition))


def _positive(use: Use, parse: object, text: str, complaint: str) -> bool:
    assert callable(parse)
    try:
        value = parse(text)
    except ValueError:
        value = 0
    if not value:
        raise use.error(complaint)
    return True
