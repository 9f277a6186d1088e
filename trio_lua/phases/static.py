"""Files as responses: ``root`` and ``alias``, ``index``, ``try_files`` and the file itself.

:class:`Files` is the part that is known when the configuration is loaded: where a location's files
lie and which names stand for a folder. :func:`try_files` and :func:`serve` use it for a request.
What they answer and what they log is nginx's, down to which error is a 403 and which a 404.

A file is opened without blocking, looked at through its descriptor, and refused unless it is a
regular one, so that a named pipe in a document root cannot hold up a worker. It is read in pieces,
never faster than the client takes them, and closed whatever happens.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Union

from trio_lua.config.model import Location, MatchKind, Settings, Template
from trio_lua.http import conditional, mime, ranges
from trio_lua.http.dates import format_http_date
from trio_lua.http.uri import escape
from trio_lua.phases.rewrite import InternalRedirect, Redirect, jump
from trio_lua.request.exchange import Exchange

__all__ = ["Files", "Found", "InternalRedirect", "Redirect", "Served", "serve", "try_files"]

_ALERT, _CRIT, _ERR = 2, 3, 4
_CHUNK = 65536
# After so many pieces that a fast client took at once, the other tasks get a turn.
_TURN = 16

_NOT_FOUND = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})
_LINKS = frozenset({errno.EMLINK, errno.ELOOP})
_HAS_LAST_MODIFIED = frozenset({200, 206, 304})
_READING_METHODS = frozenset({b"GET", b"HEAD", b"POST"})

_DEFAULT_INDEX = (Template("index.html", ("index.html",)),)


@dataclass(frozen=True, slots=True)
class Found:
    """``try_files`` found a file and made it the request's path: go on with the next phase.

    ``below_alias`` has to be handed to :func:`serve`: the path is looked up below the ``alias`` of
    a regular expression, which otherwise names the file by itself.
    """

    below_alias: bool = False


#: How :func:`serve` ended: None when the response is complete, otherwise what to do instead. A
#: status that comes after the head was sent means that the connection has to be closed.
Served = Union[int, InternalRedirect, Redirect, None]


class Files:
    """Where the files of a location lie."""

    __slots__ = (
        "_alias_length",
        "_base",
        "_base_template",
        "_index",
        "_prefix",
        "_try",
        "_try_code",
        "_try_uri",
        "alias",
        "location",
    )

    def __init__(self, location: Location, prefix: str, parent: Files | None = None) -> None:
        """Work out what does not depend on a request.

        Args:
            location: A location, the block of an ``if``, or a server's outermost one.
            prefix: The configuration's, with its trailing slash; relative paths start there.
            parent: Of the block around this one, whose ``alias`` is inherited along with its root.
        """
        self.location = location
        self._prefix = os.fsencode(prefix)
        settings = location.settings
        alias = location.alias
        inherits = parent is not None and (
            alias is parent.alias
            if alias is not None
            else settings.root is parent.location.settings.root
        )
        #: The ``alias`` in force, if any.
        self.alias: Template | None = parent.alias if parent is not None and inherits else alias
        #: How much of the path an alias stands for; None when it stands for all of it.
        self._alias_length: int | None = 0
        if self.alias is not None:
            if inherits and parent is not None:
                self._alias_length = parent._alias_length
            elif location.kind in (MatchKind.REGEX, MatchKind.REGEX_NOCASE):
                self._alias_length = None
            else:
                self._alias_length = len(location.path.encode("utf-8", "surrogateescape"))
        template = self.alias or _without_last_slash(settings.root)
        literal = template.literal
        self._base_template = template
        self._base: bytes | None = None
        if literal is not None:
            # "root /" leaves nothing before the path, which is not the same as a relative root.
            is_slash = self.alias is None and settings.root.literal == "/"
            self._base = b"" if is_slash else self._absolute(_encode(literal))
        self._index = tuple(map(_Name, settings.index or _DEFAULT_INDEX))
        tried = location.try_files
        self._try = () if tried is None else tuple(map(_Name.to_try, tried.files))
        self._try_uri = None if tried is None or tried.uri is None else _Name(tried.uri)
        self._try_code = None if tried is None else tried.code

    def _absolute(self, path: bytes) -> bytes:
        return path if path.startswith(b"/") else self._prefix + path

    def base(self, exchange: Exchange, *, rewritten: bool = False) -> bytes | None:
        """The folder that paths are looked up in, or the file that an alias names.

        Args:
            rewritten: Whether the path changed after the location was chosen; an alias cannot be
                used then, which is logged, and None returned.
        """
        if rewritten and self.alias is not None:
            exchange.log(
                _ALERT,
                b'"alias" cannot be used in location "%b" where URI was rewritten'
                % _encode(self.location.path),
            )
            return None
        if self._base is not None:
            return self._base
        return self._absolute(exchange.evaluate(self._base_template))

    def path(
        self, exchange: Exchange, *, rewritten: bool = False, below_alias: bool = False
    ) -> bytes | None:
        """The file or folder that the request's path names; None as for :meth:`base`."""
        base = self.base(exchange, rewritten=rewritten)
        if base is None:
            return None
        if self._alias_length is None:
            return base + exchange.uri if below_alias else base
        return base + exchange.uri[self._alias_length :]


class _Name:
    """A file name of ``index`` or ``try_files``."""

    __slots__ = ("_literal", "_template", "is_folder")

    def __init__(self, template: Template, is_folder: bool = False) -> None:
        self._template = template
        literal = template.literal
        self._literal = None if literal is None else _encode(literal)
        self.is_folder = is_folder

    @classmethod
    def to_try(cls, template: Template) -> _Name:
        """A name of ``try_files``, where a trailing slash asks for a folder."""
        stripped = _without_last_slash(template)
        return cls(stripped, is_folder=stripped is not template)

    @property
    def has_variables(self) -> bool:
        return self._literal is None

    def evaluate(self, exchange: Exchange) -> bytes:
        return exchange.evaluate(self._template) if self._literal is None else self._literal


def _without_last_slash(template: Template) -> Template:
    """The same template, or a copy without the slash at its end."""
    if template.parts and isinstance(last := template.parts[-1], str) and last.endswith("/"):
        rest = (last[:-1],) if len(last) > 1 else ()
        return Template(template.raw, template.parts[:-1] + rest)
    return template


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _c_string(path: bytes) -> bytes:
    """What the system sees of a path."""
    return path.partition(b"\0")[0]


def _log_failure(exchange: Exchange, level: int, what: bytes, error: OSError) -> None:
    number = error.errno or 0
    exchange.log(level, b"%b (%d: %b)" % (what, number, os.strerror(number).encode()))


# ------------------------------------------------------------------------------- try_files


async def try_files(
    exchange: Exchange, files: Files, *, rewritten: bool = False
) -> Found | InternalRedirect | int:
    """Run a location's ``try_files``; a number is the status to end the request with.

    Args:
        rewritten: As for :meth:`Files.base`.
    """
    uri = exchange.uri
    length = files._alias_length
    base: bytes | None = None
    for name in files._try:
        if base is None:
            base = files.base(exchange, rewritten=rewritten)
            if base is None:
                return 500
        tail = _below_alias(name, name.evaluate(exchange), uri, length)
        try:
            mode = _stat(base + tail)
        except OSError as error:
            if error.errno not in _NOT_FOUND:
                _log_stat(exchange, error, base + tail)
            continue
        if stat.S_ISDIR(mode) is not name.is_folder:
            continue
        if length is not None:
            exchange.set_uri(uri[:length] + tail)
        elif not name.is_folder:
            exchange.set_uri(tail)
            return Found(below_alias=True)
        return Found()
    if files._try_uri is None:
        return 404 if files._try_code is None else files._try_code
    target = files._try_uri.evaluate(exchange)
    # nginx treats the last name like the ones before it, so it loses the location's path, too.
    return jump(_below_alias(files._try_uri, target, uri, length))


def _below_alias(name: _Name, value: bytes, uri: bytes, length: int | None) -> bytes:
    """A name with variables, such as ``$uri``, without the part that an alias stands for."""
    if length and name.has_variables and value.startswith(uri[:length]):
        return value[length:]
    return value


def _stat(path: bytes) -> int:
    return os.stat(_c_string(path)).st_mode


def _log_stat(exchange: Exchange, error: OSError, path: bytes) -> None:
    _log_failure(exchange, _CRIT, b'stat() "%b" failed' % _c_string(path), error)


# ----------------------------------------------------------------------------------- serve


async def serve(
    exchange: Exchange,
    files: Files,
    *,
    status: int = 200,
    is_main: bool = True,
    rewritten: bool = False,
    below_alias: bool = False,
) -> Served:
    """Answer a request with the file that its path names.

    Args:
        status: The status to send; other than 200 after an ``error_page``.
        is_main: False in a subrequest, which is always answered with the whole file.
        rewritten: As for :meth:`Files.base`.
        below_alias: From :class:`Found`.
    """
    if exchange.method not in _READING_METHODS:
        return 405
    path = files.path(exchange, rewritten=rewritten, below_alias=below_alias)
    if path is None:
        return 500
    if exchange.uri.endswith(b"/"):
        return _serve_folder(exchange, files, path)
    path = _c_string(path)
    settings = files.location.settings
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        return _refuse(exchange, error, path, settings)
    try:
        information = os.fstat(descriptor)
        if stat.S_ISDIR(information.st_mode):
            target = escape(exchange.uri) + b"/"
            return Redirect(301, target + b"?" + exchange.args if exchange.args else target)
        if not stat.S_ISREG(information.st_mode):
            exchange.log(_CRIT, b'"%b" is not a regular file' % path)
            return 404
        if exchange.method == b"POST":
            return 405
        return await _send_file(exchange, settings, descriptor, information, path, status, is_main)
    finally:
        os.close(descriptor)


def _refuse(exchange: Exchange, error: OSError, path: bytes, settings: Settings) -> int:
    status, level = 500, _CRIT
    if error.errno in _NOT_FOUND:
        status, level = 404, _ERR
    elif error.errno == errno.EACCES or error.errno in _LINKS:
        status, level = 403, _ERR
    if status != 404 or settings.log_not_found:
        _log_failure(exchange, level, b'open() "%b" failed' % path, error)
    return status


def _serve_folder(exchange: Exchange, files: Files, folder: bytes) -> Served:
    folder_exists = False
    for index in files._index:
        name = index.evaluate(exchange)
        if name.startswith(b"/"):
            return InternalRedirect(name, exchange.args)
        path = _c_string(folder + name)
        try:
            os.stat(path)
        except OSError as error:
            if error.errno in _LINKS:
                return 403
            if error.errno in (errno.ENOTDIR, errno.ENAMETOOLONG, errno.EACCES):
                return _refuse_index(exchange, files, error, path)
            if not folder_exists:
                status = _test_folder(exchange, files, folder, path)
                if status is not None:
                    return status
                folder_exists = True
            if error.errno == errno.ENOENT:
                continue
            _log_stat(exchange, error, path)
            return 500
        return InternalRedirect(exchange.uri + name, exchange.args)
    exchange.log(_ERR, b'directory index of "%b" is forbidden' % _c_string(folder))
    return 403


def _refuse_index(exchange: Exchange, files: Files, error: OSError, path: bytes) -> int:
    if error.errno == errno.EACCES:
        _log_failure(exchange, _ERR, b'"%b" is forbidden' % path, error)
        return 403
    if files.location.settings.log_not_found:
        _log_failure(exchange, _ERR, b'"%b" is not found' % path, error)
    return 404


def _test_folder(exchange: Exchange, files: Files, folder: bytes, index: bytes) -> int | None:
    """The status to end with when a folder without index file is not even there."""
    path = _c_string(folder)
    if len(path) > 1:
        path = path.removesuffix(b"/")
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if error.errno in _LINKS:
            return 403
        if error.errno == errno.ENOENT:
            return _refuse_index(exchange, files, error, index)
        if error.errno == errno.EACCES:
            # The index file was looked for without this error, so the folder can be searched.
            return None
        _log_stat(exchange, error, path)
        return 500
    if stat.S_ISDIR(mode):
        return None
    exchange.log(_ALERT, b'"%b" is not a directory' % index)
    return 500


async def _send_file(
    exchange: Exchange,
    settings: Settings,
    descriptor: int,
    information: os.stat_result,
    path: bytes,
    status: int,
    is_main: bool,
) -> int | None:
    size = information.st_size
    modified = int(information.st_mtime)
    etag = conditional.file_etag(modified, size) if settings.etag else None
    content_type = mime.lookup(exchange.uri, settings.types, settings.default_type).encode()
    plan: ranges.Plan | None = None
    takes_ranges = False
    if status == 200 and is_main:
        status = _evaluate_conditions(exchange, settings, modified, etag)
        if status == 412:
            return status
        takes_ranges = (
            status == 200
            and settings.max_ranges != 0
            and not (settings.gzip and exchange.compresses(content_type, size))
        )
    if takes_ranges:
        answer = ranges.plan_ranges(
            exchange.header(b"range"),
            size,
            if_range=exchange.header(b"if-range"),
            etag=etag,
            last_modified=modified,
            content_type=content_type,
            max_ranges=settings.max_ranges,
        )
        if isinstance(answer, ranges.NotSatisfiable):
            exchange.set_header(b"Content-Range", answer.content_range)
            return 416
        plan = answer
    if plan is not None:
        status = 206
        content_type = plan.content_type or content_type

    exchange.set_status(status)
    if content_type and status != 304:
        exchange.set_header(b"Content-Type", content_type)
    if status != 304:
        length = size if plan is None else plan.content_length
        exchange.set_header(b"Content-Length", b"%d" % length)
    if status in _HAS_LAST_MODIFIED:
        exchange.set_header(b"Last-Modified", format_http_date(modified), early=True)
    if etag is not None:
        exchange.set_header(b"ETag", etag)
    if plan is not None and plan.content_range is not None:
        exchange.set_header(b"Content-Range", plan.content_range)
    elif plan is None and takes_ranges:
        exchange.set_header(b"Accept-Ranges", b"bytes")

    if exchange.method == b"HEAD" or status == 304:
        await exchange.send(b"", last=True)
        return None
    return await _send_body(exchange, descriptor, path, _pieces(plan, size))


def _evaluate_conditions(
    exchange: Exchange, settings: Settings, modified: int, etag: bytes | None
) -> int:
    return conditional.evaluate(
        conditional.Conditions(
            exchange.header(b"if-match"),
            exchange.header(b"if-none-match"),
            exchange.header(b"if-modified-since"),
            exchange.header(b"if-unmodified-since"),
        ),
        last_modified=modified,
        etag=etag,
        if_modified_since=settings.if_modified_since,
    )


def _pieces(plan: ranges.Plan | None, size: int) -> Iterator[bytes | tuple[int, int]]:
    """What a body is made of: bytes as they are, and places in the file (offset, length)."""
    parts = (ranges.Part(b"", 0, size),) if plan is None else plan.parts
    for part in parts:
        if part.head:
            yield part.head
        for start in range(part.start, part.stop, _CHUNK):
            yield start, min(_CHUNK, part.stop - start)
    if plan is not None and plan.tail:
        yield plan.tail


async def _send_body(
    exchange: Exchange,
    descriptor: int,
    path: bytes,
    pieces: Iterator[bytes | tuple[int, int]],
) -> int | None:
    # One piece is held back, so that the last one can be sent as such.
    held: bytes | None = None
    for number, piece in enumerate(pieces, 1):
        if held is not None:
            await exchange.send(held)
            if number % _TURN == 0:
                await exchange.checkpoint()
        if isinstance(piece, bytes):
            held = piece
            continue
        start, length = piece
        try:
            held = os.pread(descriptor, length, start)
        except OSError as error:
            _log_failure(exchange, _CRIT, b'pread() "%b" failed' % path, error)
            return 500
        if len(held) < length:
            # The head promised more, so the client must see the connection close.
            exchange.log(
                _ALERT, b'pread() read only %d of %d from "%b"' % (len(held), length, path)
            )
            return 500
    await exchange.send(held or b"", last=True)
    return None
