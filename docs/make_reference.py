"""Writes the pages of the reference that repeat what the code already says.

    python docs/make_reference.py

* ``reference/cli.md`` from the options of the commands;
* ``reference/directives.md`` from the table of directives;
* ``reference/lua-api.md`` from the names that a VM really has, the phases that
  :mod:`trio_lua.request.phase` allows, and the annotations in ``trio_lua/lua/meta``.

A test regenerates them and compares, so that they cannot fall behind.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from types import ModuleType

import click

import trio_lua
from trio_lua.api.runtime import Runtime
from trio_lua.cli import nginx
from trio_lua.cli.main import cli
from trio_lua.config import families
from trio_lua.config.builder import from_lua
from trio_lua.config.directives import Context, Directive, default_table
from trio_lua.config.families import later
from trio_lua.config.model import Config, Http, Server, Settings, Template
from trio_lua.config.tls import TlsOptions
from trio_lua.log.error_log import NullErrorLog
from trio_lua.modules import BUNDLED
from trio_lua.request.phase import ALLOWED, PHASE_NAMES, Phase

DOCS = Path(__file__).parent
PACKAGE = Path(trio_lua.__file__).parent
META = PACKAGE / "lua" / "meta"

NOTE = "<!-- Made by docs/make_reference.py: change that, or what it reads, not this page. -->\n"


def table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- commands


def commands() -> str:
    """The page about both commands."""
    parts = [
        NOTE,
        "# Commands\n",
        "`trio-lua` is the command for people; `trio-lua-nginx` answers to nginx's command line, for "
        "service files and tools that drive nginx. The same server is behind both.\n",
        "What the exit statuses mean is on [a page of its own](exit-statuses.md).\n",
    ]
    for name, command in cli.commands.items():
        parts += _command(name, command)
    parts += [
        "## trio-lua-nginx\n",
        "```text\n" + nginx._HELP.strip("\n") + "\n```\n",
        "Like nginx it writes its pid file and error log below the prefix and goes to the background, "
        "unless the configuration says `daemon off;`. It answers nginx's signals: `TERM` and `INT` "
        "stop, `QUIT` stops when running requests have ended, `HUP` reloads, `USR1` opens the log files "
        "again.\n",
    ]
    return "\n".join(parts)


def _command(name: str, command: click.Command) -> Iterator[str]:
    arguments = [p for p in command.params if isinstance(p, click.Argument)]
    options = [p for p in command.params if isinstance(p, click.Option)]
    usage = " ".join(
        [
            "trio-lua",
            name,
            *(["[OPTIONS]"] if options else []),
            *(a.metavar or "" for a in arguments),
        ]
    )
    yield f"## trio-lua {name}\n"
    yield f"```text\n{usage}\n```\n"
    yield inspect.cleandoc(command.help or "") + "\n"
    if options:
        yield table(("option", "environment", "meaning"), map(_option, options))


def _option(option: click.Option) -> tuple[str, str, str]:
    value = ""
    if not option.is_flag:
        value = option.metavar or "|".join(getattr(option.type, "choices", ("VALUE",)))
    names = ", ".join(f"`{name} {value}`" if value else f"`{name}`" for name in option.opts)
    help_ = re.sub(r"\s+", " ", option.help or "")
    if option.show_default:
        help_ += f" [default: {option.default}]"
    return names, f"`{option.envvar}`" if option.envvar else "", help_


# ---------------------------------------------------------------- directives

_TITLES = {
    "main": "Process and files",
    "http": "Requests, connections and responses",
    "server": "Servers",
    "location": "Locations and files",
    "rewrite": "Rewriting",
    "logs": "Logs",
    "lua": "Lua",
    "tls": "TLS",
}

_CONTEXTS = {
    Context.MAIN: "main",
    Context.EVENTS: "events",
    Context.HTTP: "http",
    Context.SERVER: "server",
    Context.LOCATION: "location",
    Context.SERVER_IF: "if in server",
    Context.LOCATION_IF: "if in location",
    Context.LIMIT_EXCEPT: "limit_except",
    Context.UPSTREAM: "upstream",
}


def directives() -> str:
    """The page about directives."""
    parts = [
        NOTE,
        "# Directives\n",
        "What may stand in a configuration, and in the keyword arguments of "
        "[`ConfigBuilder`](python-api.md#configbuilder). Names, places and inheritance are nginx's; its "
        "own documentation holds for the details. Any other name is an error that names file and line.\n",
        "*Accepted* means that the value is checked and then not used: the directive tunes something "
        "that this server does not have, or not yet. Configurations written for nginx load all the same.\n",
    ]
    refused = {row.name for row in later.TABLE}
    for module in _families():
        rows = [row for row in module.TABLE if row.name not in refused]
        if module is later or not rows:
            continue
        name = module.__name__.rpartition(".")[2]
        parts.append(f"## {_TITLES.get(name, name.capitalize())}\n")
        rows.sort(key=lambda row: (row.name, int(row.contexts)))
        parts.append(
            table(("directive", "where", "arguments", "default", ""), map(_directive, rows))
        )
    for extension in BUNDLED:
        rows = sorted(extension.directives, key=lambda row: row.name)
        if rows:
            parts.append(f"## Module {extension.name}\n")
            parts.append(
                table(("directive", "where", "arguments"), (_directive(r)[:3] for r in rows))
            )
    parts += _refused()
    return "\n".join(parts)


def _families() -> list[ModuleType]:
    modules = [m for m in vars(families).values() if isinstance(m, ModuleType)]
    order = list(families.FAMILIES)
    found = [m for m in modules if any(m.__dict__.get("TABLE") is t for t in order)]
    return sorted(found, key=lambda m: order.index(m.TABLE))


def _directive(row: Directive) -> tuple[str, ...]:
    places = [text for context, text in _CONTEXTS.items() if row.contexts & context]
    if len(places) == len(_CONTEXTS):
        places = ["anywhere"]
    arguments = "" if row.arity.most == 0 else re.sub("( of)? arguments?$", "", str(row.arity))
    if row.form == "{":
        what = "Lua code" if row.name.endswith("_by_lua_block") else "block"
        arguments = f"{arguments}, {what}" if arguments else what
    return (
        f"`{row.name}`",
        ", ".join(places),
        arguments,
        _default(row.name),
        "" if _has_effect(row) else "accepted",
    )


def _default(name: str) -> str:
    for model in (Settings, Server, TlsOptions, Http, Config):
        for item in fields(model):
            if item.name == name and item.default is not MISSING:
                return _value(name, item.default)
    return ""


def _value(name: str, value: object) -> str:
    if value is None or value == ():
        return ""
    if isinstance(value, bool):
        return "`on`" if value else "`off`"
    if isinstance(value, float):
        return f"`{value:g}s`"
    if isinstance(value, Template):
        return f"`{value.raw}`"
    if isinstance(value, tuple):
        return "`" + " ".join(map(_text, value)) + "`"
    return f"`{_text(value)}`" if value != "" else ""


def _text(value: object) -> str:
    if isinstance(value, int) and value >= 1024 and value % 1024 == 0:
        return f"{value >> 20}m" if value % (1 << 20) == 0 else f"{value >> 10}k"
    return str(value)


@functools.cache
def _attributes_read() -> frozenset[str]:
    """Every attribute that some module behind the configuration reads."""
    names: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).parts[0] != "config":
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                    names.add(node.attr)
    return frozenset(names)


def _has_effect(row: Directive) -> bool:
    """Whether anything reads what the directive stores, or else it works on what it stands in."""
    setter = row.setter
    if isinstance(setter, functools.partial):
        if "field" in setter.keywords:
            return setter.keywords["field"] in _attributes_read()
        setter = setter.func
    source = inspect.getsource(setter)
    stored = set(re.findall(r'use\.(?:put|append)\(\s*"(\w+)"', source))
    if re.search(r"use\.(?:put|append)\(\s*use\.name", source):
        stored.add(row.name)
    if not stored:
        return any(part in source for part in ("use.block", "use.build", "use.read", "_block(use)"))
    return bool(stored & _attributes_read())


def _refused() -> Iterator[str]:
    yield "## Recognised and refused\n"
    yield (
        "These are known, and an error wherever they stand, since leaving them out silently would change "
        "what a configuration means.\n"
    )
    known = {
        row.name for family in families.FAMILIES if family is not later.TABLE for row in family
    }

    def rows() -> Iterator[tuple[str, str]]:
        for subject, names in later._LATER.items():
            left = [name for name in names if name not in known]
            if left:
                yield subject, ", ".join(f"`{name}`" for name in left)

    yield table(("subject", "directives"), rows())
    bundled = {row.name for extension in BUNDLED for row in extension.directives}
    for owner, beginnings in later._ABSENT.items():
        absent = [b for b in beginnings.split() if not any(n.startswith(b) for n in bundled)]
        if not absent:
            continue
        names = ", ".join(f"`{name}*`" for name in sorted(absent))
        yield f"Unknown, with a hint, as directives of {owner}: {names}.\n"


# ---------------------------------------------------------------- Lua API


@dataclass
class Annotation:
    """What the annotations say about one name."""

    name: str
    text: str
    parameters: list[str] = field(default_factory=list)
    returns: list[str] = field(default_factory=list)
    section: str = ""
    function: bool = False
    value: str = ""

    @property
    def signature(self) -> str:
        if not self.function:
            return self.name
        results = ", ".join(self.returns)
        call = f"{self.name}({', '.join(self.parameters)})"
        return f"{results} = {call}" if results else call


def annotations() -> dict[str, Annotation]:
    """Every annotated name, in the order of the file."""
    found: dict[str, Annotation] = {}
    for path in sorted(META.glob("*.lua")):
        text: list[str] = []
        parameters: list[str] = []
        returns: list[str] = []
        section = ""
        for line in path.read_text().splitlines():
            if heading := re.fullmatch(r"-- -+ (.*)", line):
                section = heading[1]
            elif parameter := re.match(r"---@param (\S+)", line):
                parameters.append(parameter[1])
            elif result := re.match(r"---@return (.*)", line):
                returns.append(_result(result[1]))
            elif line.startswith("---@"):
                pass
            elif line.startswith("---"):
                text.append(line[3:].strip())
            else:
                function = re.match(r"function ([\w.]+)\(", line)
                assigned = re.match(r"([\w.]+) = (.*)", line)
                match = function or assigned
                if match:
                    found[match[1]] = Annotation(
                        match[1],
                        " ".join(text),
                        parameters,
                        returns,
                        section,
                        function is not None,
                        assigned[2] if assigned else "",
                    )
                text, parameters, returns = [], [], []
    return found


def _result(annotation: str) -> str:
    """The name of a result, or its type: ``string? err`` is err."""
    words = annotation.split()
    if "..." in words:
        return "..."
    if re.fullmatch(r"\w+", words[-1]) and len(words) == 2:
        return words[-1]
    kind = words[0].rstrip("?")
    if kind.startswith("("):
        return "iterator"
    return "table" if "table" in kind or "ngx." in kind or kind.endswith("[]") else kind


_NAMES_IN_VM = b"""
local rt = ...
local found, seen = rt.py.found, {}
local function walk(prefix, t)
    seen[t] = true
    for key, value in pairs(t) do
        if type(key) == "string" and key:sub(1, 1) ~= "_" then
            local kind = type(value)
            found(prefix .. key, kind, kind == "number" and value or nil)
            if kind == "table" and not seen[value] then walk(prefix .. key .. ".", value) end
        end
    end
end
walk("ngx.", rt.ngx)

-- fields that are computed when they are read
local _, fields = debug.getupvalue(getmetatable(rt.ngx).__index, 1)
for name in pairs(fields) do found("ngx." .. name, "field", nil) end

-- The phases a function may be used in, by its upvalues: what rt.checker made knows them, rt.request means
-- every request (-1). Tables are those whose fields need a request.
local function upvalues(f)
    local found = {}
    for i = 1, 60 do
        local name, value = debug.getupvalue(f, i)
        if not name then break end
        found[name] = value
    end
    return found
end

local function phases_of(f, depth)
    local inner = upvalues(f)
    for _, value in pairs(inner) do
        if value == rt.request then return -1 end
    end
    for _, value in pairs(inner) do
        if type(value) == "function" and value ~= f then
            local mask = upvalues(value).mask
            if mask then return mask end
        end
    end
    for _, value in pairs(inner) do
        local mask = depth > 0 and type(value) == "function" and value ~= f and phases_of(value, depth - 1)
        if mask then return mask end
    end
    return nil
end

function rt.export.phases_of(name)
    local t, key = rt.ngx, nil
    for part in name:sub(5):gmatch("[^.]+") do
        if key then t = t[key] end
        key = part
    end
    local value = rawget(t, key)
    if type(value) == "function" then return phases_of(value, 1) end
    local meta = type(value) == "table" and getmetatable(value)
    if value == nil or meta and type(meta.__index) == "function" then return -1 end
    return nil
end
"""


class LiveNames:
    """The names of a VM: their Lua types, and whether they need a request."""

    def __init__(self) -> None:
        runtime = Runtime(
            from_lua("return"), clock=time.time, sinks=[NullErrorLog()], product="docs"
        )
        self.kinds: dict[str, str] = {}
        self.numbers: dict[str, int] = {}

        def found(name: bytes, kind: bytes, number: float | None) -> None:
            self.kinds[name.decode()] = kind.decode()
            if number is not None:
                self.numbers[name.decode()] = int(number)

        runtime.vm.set_call("found", found)
        runtime.vm.run(_NAMES_IN_VM, "=names")
        self._phases_of: Callable[[bytes], int | None] = runtime.vm.export("phases_of")

    def phases(self, name: str) -> Phase | None:
        """The phases that may use a name; None is all."""
        if name == "ngx.arg":
            return ALLOWED["ngx.arg.set"] | ALLOWED["ngx.arg.body_filter"]
        mask = self._phases_of(name.encode())
        if mask is None:
            return None
        return ALLOWED["request"] if mask < 0 else Phase(int(mask))


_GROUPS = {
    Phase.RUN: "handlers",
    Phase.YIELDABLE: "handlers, timers",
    Phase.REQUEST: "a request",
    Phase.REQUEST & ~Phase.LOG: "a request, but not log",
}

#: Of phases that this version does not have, nothing is said.
_ABSENT_PHASES = (
    Phase.BALANCER
    | Phase.SSL_CERT
    | Phase.SSL_SESS_FETCH
    | Phase.SSL_SESS_STORE
    | Phase.SSL_CLIENT_HELLO
)


def _phases_text(phases: Phase | None) -> str:
    if phases is None:
        return "anywhere"
    if phases in _GROUPS:
        return _GROUPS[phases]
    names = []
    rest = phases & ~_ABSENT_PHASES
    if rest & Phase.RUN == Phase.RUN:
        names.append("handlers")
        rest &= ~Phase.RUN
    names += [name for phase, name in PHASE_NAMES.items() if phase and phase & rest]
    return ", ".join(names)


def lua_api() -> str:
    """The page about the Lua API."""
    live = LiveNames()
    known = annotations()
    parts = [
        NOTE,
        "# Lua API\n",
        "The names that a handler finds in `ngx`. They are those of lua-nginx-module, whose manual holds for "
        "the details; where behaviour differs is in [Differences from OpenResty]"
        "(../explanation/differences.md). Names of that manual which are not here do not exist in "
        "this version: reading one gives nil.\n",
        "*Where* says in which phases a name may be used; elsewhere it raises `API disabled in the "
        "context of ...`. *Handlers* are `server_rewrite_by_lua*`, `rewrite_by_lua*`, `access_by_lua*`, "
        "`precontent_by_lua*` and `content_by_lua*`; *a request* means these, `set_by_lua*`, "
        "`header_filter_by_lua*`, `body_filter_by_lua*` and `log_by_lua*`.\n",
    ]
    sections: dict[str, list[Annotation]] = {}
    for annotation in known.values():
        kind = live.kinds.get(annotation.name)
        if kind is None or (kind == "number" and annotation.name[4:].split(".")[-1].isupper()):
            continue
        sections.setdefault(annotation.section, []).append(annotation)
    for title, members in sections.items():
        parts.append(f"## {title[0].upper()}{title[1:]}\n")
        parts.append(
            table(
                ("name", "where", ""),
                (
                    (f"`{a.signature}`", _phases_text(live.phases(a.name)), a.text)
                    for a in members
                    if not _is_namespace(a, live.kinds)
                ),
            )
        )
    parts += _constants(live.numbers)
    parts += _modules()
    return "\n".join(parts)


def _is_namespace(annotation: Annotation, kinds: Mapping[str, str]) -> bool:
    return any(name.startswith(f"{annotation.name}.") for name in kinds)


def _constants(numbers: Mapping[str, int]) -> Iterator[str]:
    levels = ("STDERR", "EMERG", "ALERT", "CRIT", "ERR", "WARN", "NOTICE", "INFO", "DEBUG")
    groups: dict[str, list[str]] = {"Results": [], "Log levels": [], "Methods": [], "Statuses": []}
    methods = "GET HEAD POST PUT DELETE MKCOL COPY MOVE OPTIONS PROPFIND PROPPATCH LOCK UNLOCK PATCH TRACE"
    for name, number in sorted(numbers.items(), key=lambda item: (item[1], item[0])):
        short = name[4:]
        if "." in short:
            continue
        if short in levels:
            group = "Log levels"
        elif not short.startswith("HTTP_"):
            group = "Results"
        else:
            group = "Methods" if short[5:] in methods.split() else "Statuses"
        groups[group].append(f"`{name}` {number}")
    for title, members in groups.items():
        yield f"{title}: {', '.join(members)}.\n"


def _modules() -> Iterator[str]:
    lualib = PACKAGE / "lua" / "lualib"
    names = sorted(
        str(path.relative_to(lualib).with_suffix("")).replace("/", ".")
        for path in lualib.rglob("*.lua")
    )
    # resty.core.* exist only for libraries that insist on loading them
    shown = [name for name in names if not name.startswith(("trio_lua.", "resty.core."))]
    yield "## Modules\n"
    yield (
        "`require` finds these without any `lua_package_path`. `cjson` is written in Lua and takes the "
        "place of lua-cjson where that is not installed. `table.*` are what OpenResty's LuaJIT has "
        'built in. `ngx.location.stream` is not in OpenResty: `require("ngx.location.stream")'
        ".capture(uri, options?)` does what `ngx.location.capture` does, but returns when the head of the response "
        "is there, and the `read()` and `pieces()` of what it returns give the body piece by piece.\n"
    )
    yield ", ".join(f"`{name}`" for name in shown) + ".\n"


# ---------------------------------------------------------------- all of it


def pages() -> dict[Path, str]:
    """The generated pages by path."""
    default_table()
    return {
        DOCS / "reference" / "cli.md": commands(),
        DOCS / "reference" / "directives.md": directives(),
        DOCS / "reference" / "lua-api.md": lua_api(),
    }


def main() -> None:
    for path, text in pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()
