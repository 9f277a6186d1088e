"""``location`` and what is particular to one."""

from __future__ import annotations

from trio_lua.config import regex
from trio_lua.config.blocks import LocationBlock, ServerBlock
from trio_lua.config.directives import Context, DirectiveTable, Use, takes
from trio_lua.config.model import MatchKind, Template, TryFiles

__all__ = ["TABLE"]

TABLE = DirectiveTable()

_MODIFIERS = {
    "=": MatchKind.EXACT,
    "^~": MatchKind.PREFIX_FINAL,
    "~": MatchKind.REGEX,
    "~*": MatchKind.REGEX_NOCASE,
}
_REGEXES = (MatchKind.REGEX, MatchKind.REGEX_NOCASE)


@TABLE.directive("location", Context.SERVER | Context.LOCATION, takes(1, 2), form="{")
def _location(use: Use) -> None:
    outer = use.block
    assert isinstance(outer, LocationBlock)
    kind, path = _kind(use)
    if kind in _REGEXES:
        regex.check(use, path, caseless=kind is MatchKind.REGEX_NOCASE)
    if not isinstance(outer, ServerBlock):
        _check_nesting(use, outer, kind, path)
    location = LocationBlock(use.build, Context.LOCATION, use.source, kind, path)
    outer.locations.append(location)
    use.read(location)


def _kind(use: Use) -> tuple[MatchKind, str]:
    if len(use.args) == 2:
        modifier, path = use.args
        kind = _MODIFIERS.get(modifier)
        if kind is None:
            raise use.error(f'invalid location modifier "{modifier}"', "one of =, ^~, ~, ~*")
        return kind, path
    path = use.args[0]
    # The modifier may also stand right before the path.
    for modifier in ("=", "^~", "~*", "~"):
        if path.startswith(modifier):
            return _MODIFIERS[modifier], path.removeprefix(modifier)
    return (MatchKind.NAMED if path.startswith("@") else MatchKind.PREFIX), path


def _check_nesting(use: Use, outer: LocationBlock, kind: MatchKind, path: str) -> None:
    if outer.kind is MatchKind.EXACT:
        raise use.error(f'location "{path}" cannot be inside the exact location "{outer.path}"')
    if outer.kind is MatchKind.NAMED:
        raise use.error(f'location "{path}" cannot be inside the named location "{outer.path}"')
    if kind is MatchKind.NAMED:
        raise use.error(f'named location "{path}" can be on the server level only')
    if kind not in _REGEXES and not path.startswith(outer.path):
        raise use.error(f'location "{path}" is outside location "{outer.path}"')


_METHODS = frozenset(
    [
        "GET",
        "HEAD",
        "POST",
        "PUT",
        "DELETE",
        "MKCOL",
        "COPY",
        "MOVE",
        "OPTIONS",
        "PROPFIND",
        "PROPPATCH",
        "LOCK",
        "UNLOCK",
        "PATCH",
    ]
)


@TABLE.directive("limit_except", Context.LOCATION, takes(1, None), form="{")
def _limit_except(use: Use) -> None:
    outer = use.block
    assert isinstance(outer, LocationBlock)
    if outer.limit_except is not None:
        raise use.fault("is duplicate")
    methods = {word.upper() for word in use.args}
    for word in use.args:
        if word.upper() not in _METHODS:
            raise use.error(f'invalid method "{word}"')
    if "GET" in methods:
        methods.add("HEAD")
    block = LocationBlock(
        use.build, Context.LIMIT_EXCEPT, use.source, MatchKind.LIMIT_EXCEPT, outer.path
    )
    outer.limit_except = frozenset(methods), block
    use.read(block)


@TABLE.directive("internal", Context.LOCATION, takes(0))
def _internal(use: Use) -> None:
    use.put("internal", True)


@TABLE.directive("root", Context.SETTING_IF, takes(1))
@TABLE.directive("alias", Context.LOCATION, takes(1))
def _root(use: Use) -> None:
    for other in ("root", "alias"):
        if other in use.block.values and other != use.name:
            raise use.error(
                f'"{use.name}" directive is duplicate, "{other}" directive was specified earlier'
            )
    if (
        use.name == "alias"
        and isinstance(use.block, LocationBlock)
        and use.block.kind is MatchKind.NAMED
    ):
        raise use.error('the "alias" directive cannot be used inside the named location')
    text = use.args[0]
    for name in ("document_root", "realpath_root"):
        if f"${name}" in text or f"${{{name}}}" in text:
            raise use.error(f'the ${name} variable cannot be used in the "{use.name}" directive')
    use.put(use.name, use.template(0))


@TABLE.directive("index", Context.SETTING, takes(1, None))
def _index(use: Use) -> None:
    for number, text in enumerate(use.args):
        if text.startswith("/") and number != len(use.args) - 1:
            use.warn('only the last index in "index" directive should be absolute')
        if not text:
            raise use.error(f'index "{use.args[0]}" in "index" directive is invalid')
        use.append("index", use.template(number))


@TABLE.directive("try_files", Context.SERVER | Context.LOCATION, takes(2, None))
def _try_files(use: Use) -> None:
    last = len(use.args) - 1
    files = tuple(use.template(number) for number in range(last))
    text = use.args[last]
    code: int | None = None
    uri: Template | None = None
    if text.startswith("="):
        if not text[1:].isdigit() or int(text[1:]) > 999:
            raise use.error(f'invalid code "{text}"')
        code = int(text[1:])
    else:
        uri = use.template(last)
    use.put("try_files", TryFiles(files, uri, code))


@TABLE.directive("default_type", Context.SETTING, takes(1))
def _default_type(use: Use) -> None:
    use.put("default_type", use.args[0])


@TABLE.directive("types", Context.SETTING, takes(0), form="{")
def _types(use: Use) -> None:
    types = use.block.values.setdefault("types", {})
    for (content_type, *extensions), source in use.entries():
        for extension in map(str.lower, extensions):
            if extension in types:
                use.build.warn(
                    f'duplicate extension "{extension}", content type: "{content_type}", '
                    f'previous content type: "{types[extension]}" in {source}'
                )
            types[extension] = content_type
