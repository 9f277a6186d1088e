"""Noticing that source files changed, for ``--reload``.

Files are looked at twice a second: that works on every file system and in every container,
needs no package, and costs little for the few hundred files of a project.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import trio

from trio_lua.config.model import Config

__all__ = ["FileWatch", "sources", "watch"]

_SUFFIXES = (".lua", ".conf")
_SKIPPED = ("node_modules", "__pycache__", "logs")

#: Folders looked into at most: a prefix can be "/" or somebody's whole home.
_MAX_FOLDERS = 2000

_Stamp = tuple[int, int, int]


def sources(config: Config) -> list[str]:
    """The files whose change matters: Lua code and configuration below the prefix, beside the
    configuration file, and where ``lua_package_path`` looks."""
    folders = [config.prefix or os.getcwd()]
    if config.file:
        folders.append(os.path.dirname(config.file))
    for template in (config.http.lua_package_path or "").split(";"):
        folder, mark, _ = template.partition("?")
        if mark and folder.endswith("/"):
            folders.append(os.path.join(config.prefix, folder))
    found = dict.fromkeys(path for folder in dict.fromkeys(folders) for path in _below(folder))
    if config.file:
        found[config.file] = None
    return list(found)


def _below(top: str) -> Iterator[str]:
    for folder, inner, files in islice(os.walk(top), _MAX_FOLDERS):
        inner[:] = [n for n in inner if not n.startswith(".") and n not in _SKIPPED]
        for name in files:
            if name.endswith(_SUFFIXES):
                yield os.path.join(folder, name)


class FileWatch:
    """Remembers how files looked.

    Args:
        files: Lists the files, anew each time: some come and go.
    """

    def __init__(self, files: Callable[[], Iterable[str]]) -> None:
        self._files = files
        self._seen = self._look()

    def changed(self) -> list[str]:
        """The files that changed, came or went since the last time."""
        before, self._seen = self._seen, self._look()
        names = before.keys() | self._seen.keys()
        return sorted(name for name in names if before.get(name) != self._seen.get(name))

    def _look(self) -> dict[str, _Stamp]:
        stamps: dict[str, _Stamp] = {}
        for path in self._files():
            try:
                status = os.stat(path)
            except OSError:
                continue
            stamps[path] = (status.st_mtime_ns, status.st_size, status.st_ino)
        return stamps


async def watch(
    state: FileWatch,
    changed: Callable[[list[str]], None],
    *,
    interval: float = 0.5,
) -> None:
    """Call ``changed`` with the names whenever some of the files changed; runs until cancelled."""
    while True:
        await trio.sleep(interval)
        names = await trio.to_thread.run_sync(state.changed)
        if names:
            changed(names)
