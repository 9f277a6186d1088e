"""``valid_referers``: which pages may link here (``$invalid_referer``)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trio_lua.phases.matcher import Regexes

__all__ = ["Referers"]

#: A referer that is shorter names no page.
_SHORTEST = len("http://i.ru")


class Referers:
    """The pages that ``valid_referers`` lists.

    Args:
        words: As written.
        server_names: What the word ``server_names`` stands for.
        regexes: Compiles the patterns.

    Raises:
        ValueError: A pattern is malformed.
    """

    def __init__(self, words: Sequence[str], server_names: Iterable[str], regexes: Regexes) -> None:
        self._none = "none" in words
        self._blocked = "blocked" in words
        self._regexes = regexes
        self._exact: dict[bytes, bytes] = {}
        self._endings: list[tuple[bytes, bytes]] = []
        self._beginnings: list[tuple[bytes, bytes]] = []
        self._hosts: list[int] = []
        self._pages: list[int] = []
        for word in words:
            if word.startswith("~"):
                self._pages.append(regexes.compile(_encode(word[1:]), True))
            elif word == "server_names":
                for name in server_names:
                    if name.startswith("~"):
                        self._hosts.append(regexes.compile(_encode(name[1:]), True))
                    elif name:
                        self._add(name)
            elif word not in ("none", "blocked"):
                self._add(word)
        # the longest wildcard wins
        self._endings.sort(key=lambda item: -len(item[0]))
        self._beginnings.sort(key=lambda item: -len(item[0]))

    def _add(self, word: str) -> None:
        name, slash, rest = word.partition("/")
        host, path = _encode(name.lower()), _encode(slash + rest)
        if host.startswith(b"."):
            self._exact[host[1:]] = path
            self._endings.append((host, path))
        elif host.startswith(b"*."):
            self._endings.append((host[1:], path))
        elif host.endswith(b".*"):
            self._beginnings.append((host[:-1], path))
        else:
            self._exact[host] = path

    def allow(self, referer: bytes | None) -> bool:
        """Whether a request that came from there is welcome.

        Raises:
            ValueError: A pattern could not be matched to its end.
        """
        if not (self._exact or self._endings or self._beginnings or self._hosts or self._pages):
            return True
        if referer is None:
            return self._none
        scheme, separator, page = referer.partition(b"://")
        known = scheme.lower() in (b"http", b"https") and separator
        if len(referer) < _SHORTEST or not known:
            return self._blocked
        host = page.partition(b"/")[0].partition(b":")[0].lower()
        path = self._path(host)
        if path is not None:
            return page[page.find(b"/") :].startswith(path) if b"/" in page else not path
        return any(self._regexes.exec(number, host) is not None for number in self._hosts) or any(
            self._regexes.exec(number, page) is not None for number in self._pages
        )

    def _path(self, host: bytes) -> bytes | None:
        """The beginning that a listed host asks of the path; None for other hosts."""
        path = self._exact.get(host)
        if path is not None:
            return path
        for ending, path in self._endings:
            if host.endswith(ending) and len(host) > len(ending):
                return path
        for beginning, path in self._beginnings:
            if host.startswith(beginning) and len(host) > len(beginning):
                return path
        return None


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
