"""The directives of the Lua module."""

from __future__ import annotations

import os
from functools import partial

from trio_lua.config import units
from trio_lua.config.blocks import LocationBlock
from trio_lua.config.directives import Context, Directive, DirectiveTable, Use, takes
from trio_lua.config.families.slots import slots, word
from trio_lua.config.model import LuaCode, SetByLua, Template

__all__ = ["TABLE", "chunk_name"]

TABLE = DirectiveTable()

#: The smallest dictionary of nginx; the largest that can be addressed (:mod:`trio_lua.shm.zone`).
MIN_DICT_SIZE = 8192
MAX_DICT_SIZE = 7 << 30

#: The longest chunk name that Lua shows whole, without "=", "(", ":" and ")".
_CHUNK_NAME_MAX = 56

#: Room for one line of error.log is the least that lua_capture_error_log may give.
_LONGEST_LINE = 4096

slots(
    TABLE,
    Use.switch,
    Context.SETTING_IF,
    "lua_check_client_abort",
    "lua_http10_buffering",
    "lua_need_request_body",
    "lua_socket_log_errors",
    "lua_transform_underscores_in_response_headers",
    "lua_use_default_type",
)
slots(
    TABLE,
    Use.time,
    Context.SETTING_IF,
    "lua_cpu_budget",
    "lua_cpu_warning",
    "lua_request_timeout",
    "lua_socket_connect_timeout",
    "lua_socket_keepalive_timeout",
    "lua_socket_read_timeout",
    "lua_socket_send_timeout",
)
slots(TABLE, Use.size, Context.SETTING_IF, "lua_socket_buffer_size", "lua_socket_send_lowat")
slots(TABLE, Use.size, Context.HTTP, "lua_memory_limit")
slots(TABLE, Use.number, Context.SETTING_IF, "lua_socket_pool_size")
slots(
    TABLE,
    Use.number,
    Context.HTTP,
    "lua_malloc_trim",
    "lua_max_pending_timers",
    "lua_max_running_timers",
    "lua_regex_cache_max_entries",
    "lua_regex_match_limit",
    "lua_thread_cache_max_entries",
    "lua_worker_thread_vm_pool_size",
)
slots(TABLE, Use.time, Context.HTTP, "lua_worker_stuck_timeout")
slots(
    TABLE,
    Use.switch,
    Context.HTTP,
    "access_by_lua_no_postpone",
    "lua_sa_restart",
    "lua_shared_globals",
    "lua_strict_phases",
    "precontent_by_lua_no_postpone",
    "rewrite_by_lua_no_postpone",
)


@TABLE.directive("lua_capture_error_log", Context.HTTP, takes(1))
def _capture_error_log(use: Use) -> None:
    try:
        size = units.parse_size(use.args[0])
    except ValueError:
        size = 0
    if size < _LONGEST_LINE:
        raise use.error(
            f'invalid capture error log size "{use.args[0]}", minimum size is {_LONGEST_LINE}'
        )
    use.put("lua_capture_error_log", size)


slots(TABLE, word, Context.HTTP, "lua_package_path", "lua_package_cpath")

slots(TABLE, word, Context.SETTING, "lua_ssl_ciphers")
slots(TABLE, Use.number, Context.SETTING, "lua_ssl_verify_depth")


@TABLE.directive("lua_ssl_protocols", Context.SETTING, takes(1, None))
def _ssl_protocols(use: Use) -> None:
    for version in use.args:
        if version not in ("SSLv2", "SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"):
            raise use.error(f'invalid value "{version}" in "{use.name}" directive')
    use.put(use.name, tuple(use.args))


@TABLE.directive("lua_ssl_trusted_certificate", Context.SETTING, takes(1))
@TABLE.directive("lua_ssl_crl", Context.SETTING, takes(1))
@TABLE.directive("lua_ssl_certificate", Context.SETTING, takes(1))
@TABLE.directive("lua_ssl_certificate_key", Context.SETTING, takes(1))
def _ssl_file(use: Use) -> None:
    path = os.path.join(use.build.folder, use.args[0])
    if use.args[0] and not os.access(path, os.R_OK):
        raise use.error(f'cannot load "{path}"')
    use.put(use.name, path if use.args[0] else None)


@TABLE.directive("lua_ssl_key_log", Context.SETTING, takes(1))
def _ssl_key_log(use: Use) -> None:
    path = os.path.join(use.build.folder, use.args[0])
    try:
        with open(path, "ab"):
            pass
    except OSError as error:
        raise use.error(f'open() "{path}" failed ({error.errno}: {error.strerror})') from None
    use.put(use.name, path)


@TABLE.directive("lua_shared_dict", Context.HTTP, takes(2))
def _shared_dict(use: Use) -> None:
    name, text = use.args
    if not name:
        raise use.error(f'invalid lua shared dict name "{name}"')
    try:
        size = units.parse_size(text)
    except ValueError:
        size = 0
    if not MIN_DICT_SIZE <= size <= MAX_DICT_SIZE:
        raise use.error(f'invalid lua shared dict size "{text}"')
    if any(known == name for known, _ in use.block.values.get("shared_dicts", ())):
        raise use.error(f'lua_shared_dict "{name}" is already defined as "{name}"')
    use.append("shared_dicts", (name, size))


@TABLE.directive("lua_code_cache", Context.SETTING_IF, takes(1))
def _code_cache(use: Use) -> None:
    use.put("lua_code_cache", use.switch())
    if not use.block.values["lua_code_cache"]:
        use.warn("lua_code_cache is off; this will hurt performance", "alert")


@TABLE.directive("lua_load_resty_core", Context.HTTP, takes(1))
def _load_resty_core(use: Use) -> None:
    use.warn(
        "lua_load_resty_core is deprecated (the lua-resty-core library is required "
        "since ngx_lua v0.10.16)"
    )


# ---------------------------------------------------------------- handlers


def chunk_name(tag: str, file: str, line: int, folder: str) -> str:
    """How Lua names inline code: ``content_by_lua(nginx.conf:16)``.

    Files below the configuration's folder go without it; what is too long loses its beginning.
    """
    room = _CHUNK_NAME_MAX - len(tag) - len(str(line))
    # not normalised: a file included from outside of the folder is named as it was included
    path = os.path.join(os.getcwd(), file)
    if path.endswith("/nginx.conf"):
        name = "nginx.conf"
    else:
        name = path.removeprefix(folder.removesuffix("/") + "/")
        if len(name) > room:
            name = "..." + name[len(name) - room + 3 :]
    return f"{tag}({name}:{line})"


def _inline(use: Use, tag: str, text: str) -> LuaCode:
    file = use.source.file
    # Of a Python program only the file's name is shown.
    folder = use.build.folder if use.build.file else os.path.dirname(os.path.abspath(file))
    name = chunk_name(tag, file, use.source.line, folder)
    return LuaCode(use.name, use.source, name, code=text)


def _file(use: Use, path: Template) -> LuaCode:
    return LuaCode(use.name, use.source, path.raw, path=path)


def _handler(use: Use, *, tag: str, field: str) -> None:
    if field in use.block.values:
        raise use.fault("is duplicate")
    if use.name.endswith("_block"):
        code = _inline(use, tag, use.code)
    elif not use.name.endswith("_file"):
        code = _inline(use, tag, use.args[0])
    elif field in _WITHOUT_REQUEST:
        # These run outside requests, where variables have no value.
        code = _file(use, Template(use.args[0], (use.args[0],) if use.args[0] else ()))
    else:
        code = _file(use, use.template(0))
    if not code.code and not (code.path and code.path.raw):
        raise use.error("invalid location config: no runnable Lua code")
    use.block.values[field] = code
    if isinstance(use.block, LocationBlock) and field == "content":
        use.block.handlers.clear()


_WITHOUT_REQUEST = (
    "init_by_lua",
    "init_worker_by_lua",
    "exit_worker_by_lua",
    "ssl_client_hello_by_lua",
    "ssl_certificate_by_lua",
    "ssl_session_fetch_by_lua",
    "ssl_session_store_by_lua",
)

_PLACES = {
    "init": Context.HTTP,
    "init_worker": Context.HTTP,
    "exit_worker": Context.HTTP,
    "ssl_client_hello": Context.HTTP | Context.SERVER,
    "ssl_certificate": Context.HTTP | Context.SERVER,
    "ssl_session_fetch": Context.HTTP,
    "ssl_session_store": Context.HTTP,
    "server_rewrite": Context.HTTP | Context.SERVER,
    "rewrite": Context.SETTING_IF,
    "access": Context.SETTING_IF,
    "precontent": Context.SETTING_IF,
    "content": Context.LOCATION | Context.LOCATION_IF,
    "header_filter": Context.SETTING_IF,
    "body_filter": Context.SETTING_IF,
    "log": Context.SETTING_IF,
}

#: Handlers of later years have no form with the code in quotes.
_NEVER_QUOTED = (
    "exit_worker",
    "server_rewrite",
    "precontent",
    "ssl_client_hello",
    "ssl_certificate",
    "ssl_session_fetch",
    "ssl_session_store",
)

for _stem, _contexts in _PLACES.items():
    _tag = f"{_stem}_by_lua"
    _setter = partial(_handler, tag=_tag, field="content" if _stem == "content" else _tag)
    TABLE.register(Directive(f"{_tag}_block", _contexts, takes(0), _setter, "{"))
    TABLE.register(Directive(f"{_tag}_file", _contexts, takes(1), _setter))
    if _stem not in _NEVER_QUOTED:
        TABLE.register(Directive(_tag, _contexts, takes(1), _setter))


@TABLE.directive("set_by_lua_block", Context.REWRITE, takes(1), form="{")
@TABLE.directive("set_by_lua", Context.REWRITE, takes(2, None))
@TABLE.directive("set_by_lua_file", Context.REWRITE, takes(2, None))
def _set_by_lua(use: Use) -> None:
    assert isinstance(use.block, LocationBlock)
    if use.name == "set_by_lua_block":
        code = _inline(use, "set_by_lua", use.code)
    elif use.name == "set_by_lua":
        code = _inline(use, "set_by_lua", use.args[1])
    else:
        code = _file(use, use.template(1))
    name = use.variable()
    args = tuple(use.template(index) for index in range(2, len(use.args)))
    if args:
        code = LuaCode(code.directive, code.source, code.chunk_name, code.code, code.path, args)
    use.block.steps.append(SetByLua(name, code, use.source))
