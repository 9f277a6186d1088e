"""Writing files over HTTP: nginx's dav module (PUT, DELETE, MKCOL, COPY and MOVE of RFC 4918).

It answers in the content phase of locations that have no content handler, before files are looked for. What blocks
(files are copied, trees are removed) runs in a thread, one call per request.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Callable

import trio

from trio_lua.config.directives import Context, Use, takes
from trio_lua.http.dates import parse_http_date
from trio_lua.http.uri import Escape, escape, parse_unsafe
from trio_lua.log.files import os_error
from trio_lua.phases.special import absolute_location
from trio_lua.request.module import Exchange, Module

__all__ = ["MODULE"]

MODULE = Module("dav")

_CRIT, _ERR = 3, 4
_DECLINED = -5
_METHODS = ("put", "delete", "mkcol", "copy", "move")
_INFINITE = -1

_PLACES = Context.SETTING


@MODULE.directive("dav_methods", _PLACES, takes(1, None))
def _methods(use: Use) -> None:
    for word in use.args:
        if word.lower() not in ("off", *_METHODS):
            raise use.error(f'invalid value "{word}"')
    words = [word.lower() for word in use.args]
    use.put_setting("dav_methods", frozenset(w.upper().encode() for w in words if w != "off"))


@MODULE.directive("create_full_put_path", _PLACES, takes(1))
def _full_path(use: Use) -> None:
    use.put_setting("create_full_put_path", use.switch())


@MODULE.directive("min_delete_depth", _PLACES, takes(1))
def _delete_depth(use: Use) -> None:
    use.put_setting("min_delete_depth", use.number())


_WHO = {"user": 6, "group": 3, "all": 0}
_RIGHTS = {"r": 4, "w": 2, "rw": 6}


@MODULE.directive("dav_access", _PLACES, takes(1, 3))
def _access(use: Use) -> None:
    rights = {"user": "rw"}
    for word in use.args:
        who, _, what = word.partition(":")
        if who not in _WHO or what not in _RIGHTS:
            raise use.error(f'invalid value "{word}"')
        rights[who] = what
    use.put_setting("dav_access", sum(_RIGHTS[w] << _WHO[who] for who, w in rights.items()))


class _Refused(Exception):
    """The request cannot be done: a status, and a line for the log."""

    def __init__(self, status: int, message: str, level: int = _ERR) -> None:
        self.status, self.message, self.level = status, message, level


#: By error number: the status and the level of the log line. Others are 500 and crit.
_STATUSES = {
    errno.EACCES: (403, _ERR),
    errno.EPERM: (403, _ERR),
    errno.EEXIST: (405, _ERR),
    errno.ENOSPC: (507, _CRIT),
}
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)


def _failed(error: OSError, missing: int, call: str, path: str) -> _Refused:
    status, level = _STATUSES.get(error.errno or 0, (500, _CRIT))
    if error.errno in _MISSING:
        status, level = missing, _ERR
    return _Refused(status, f'{call}() "{path}" failed {os_error(error)}', level)


@MODULE.files("dav_methods")
async def _answer(request: Exchange, methods: frozenset[bytes]) -> int | None:
    method = request.method
    if method not in methods:
        return _DECLINED
    try:
        if method == b"PUT":
            await _put(request)
            return None
        if (request.header(b"content-length") or b"0") != b"0" or (
            request.header(b"transfer-encoding") is not None
        ):
            what = "COPY and MOVE" if method in (b"COPY", b"MOVE") else method.decode()
            verb = "are" if " " in what else "is"
            raise _Refused(415, f"{what} with body {verb} unsupported")
        work = {b"DELETE": _delete, b"MKCOL": _mkcol}.get(method, _copy_or_move)(request)
        status = await trio.to_thread.run_sync(work)
    except _Refused as refused:
        request.log(refused.level, refused.message.encode("utf-8", "surrogateescape"))
        return refused.status
    if method == b"MKCOL":
        _set_location(request)
    return status


def _path(request: Exchange) -> str:
    return os.fsdecode(request.variable(b"request_filename") or b"")


def _mode(request: Exchange) -> int:
    mode: int | None = request.setting("dav_access")
    return 0o600 if mode is None else mode


def _folder_mode(mode: int) -> int:
    return mode | (mode & 0o444) >> 2


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _set_location(request: Exchange) -> None:
    """Where the new thing is, as nginx tells it in the place of a redirect's target."""
    variable = request.variable
    target = absolute_location(
        escape(request.uri, Escape.URI),
        request.location.settings,
        scheme=variable(b"scheme") or b"http",
        host=variable(b"host") or b"",
        port=int(variable(b"server_port") or 0),
        name=variable(b"server_name") or b"",
        address=variable(b"server_addr") or b"",
    )
    request.set_header(b"Location", target, early=True)


def _depth(request: Exchange, default: int) -> int:
    value = request.header(b"depth")
    depth = {None: default, b"0": 0, b"1": 1, b"infinity": _INFINITE}.get(value)
    if depth is None:
        assert value is not None
        message = b'client sent invalid "Depth" header: "%b"' % value
        request.log(_ERR, message)
        return -2
    return depth


# ----------------------------------------------------------------------------------- PUT


async def _put(request: Exchange) -> None:
    if request.uri.endswith(b"/"):
        raise _Refused(409, "cannot PUT to a collection")
    if request.header(b"content-range") is not None:
        raise _Refused(501, "PUT with range is unsupported")
    body = await request.read_body()
    source = None if body is not None else request.variable(b"request_body_file")
    date = request.header(b"date")
    time = None if date is None else parse_http_date(date)
    path, mode = _path(request), _mode(request)
    full = bool(request.setting("create_full_put_path"))

    def write() -> int:
        status = 204 if os.path.exists(path) else 201
        if os.path.isdir(path):
            raise _Refused(409, f'"{path}" could not be created (21: Is a directory)')
        folder = os.path.dirname(path)
        if full:
            _make_folders(folder, mode)
        try:
            # a file of its own that takes the place of the old one at once
            handle, name = tempfile.mkstemp(dir=folder)
        except OSError as error:
            raise _Refused(500, f'open() "{path}" failed {os_error(error)}', _CRIT) from None
        try:
            with os.fdopen(handle, "wb") as file:
                if source is None:
                    file.write(body or b"")
                else:
                    with open(source, "rb") as data:
                        shutil.copyfileobj(data, file)
                os.fchmod(file.fileno(), mode)
            if time is not None:
                os.utime(name, (time, time))
            os.replace(name, path)
        except OSError as error:
            os.unlink(name)
            raise _Refused(500, f'rename() "{path}" failed {os_error(error)}', _CRIT) from None
        return status

    status = await trio.to_thread.run_sync(write)
    if status == 201:
        _set_location(request)
        request.set_header(b"Content-Length", b"0")
    request.clear_headers([b"Content-Type"])
    request.set_status(status)
    await request.send(b"", last=True)


def _make_folders(folder: str, mode: int) -> None:
    if os.path.isdir(folder):
        return
    _make_folders(os.path.dirname(folder), mode)
    try:
        os.mkdir(folder, _folder_mode(mode))
    except FileExistsError:
        # another request was faster
        return
    except OSError as error:
        raise _Refused(500, f'mkdir() "{folder}" failed {os_error(error)}', _CRIT) from None


# -------------------------------------------------------------------------------- DELETE


def _delete(request: Exchange) -> Callable[[], int]:
    uri, least = request.uri, request.setting("min_delete_depth") or 0
    depth = uri.count(b"/")
    # names below the last slash count as a level
    if least and not (depth > least or (depth == least and not uri.endswith(b"/"))):
        raise _Refused(409, f"insufficient URI depth:{depth} to DELETE")
    path = _path(request)
    whole, single = _depth(request, _INFINITE), _depth(request, 0)

    def work() -> int:
        try:
            is_folder = stat.S_ISDIR(os.lstat(path).st_mode)
        except OSError as error:
            status = 409 if error.errno == errno.ENOTDIR else 404
            raise _failed(error, status, "lstat", path) from None
        if is_folder:
            if not uri.endswith(b"/"):
                raise _Refused(409, f'DELETE "{path}" failed (21: Is a directory)')
            if whole != _INFINITE:
                raise _Refused(400, '"Depth" header must be infinity')
        elif single not in (0, _INFINITE):
            raise _Refused(400, '"Depth" header must be 0 or infinity')
        _remove(path, is_folder)
        return 204

    return work


def _remove(path: str, is_folder: bool) -> None:
    try:
        if is_folder:
            shutil.rmtree(path.removesuffix("/"))
        else:
            os.unlink(path)
    except OSError as error:
        raise _failed(error, 404, "rmdir" if is_folder else "unlink", path) from None


# --------------------------------------------------------------------------------- MKCOL


def _mkcol(request: Exchange) -> Callable[[], int]:
    if not request.uri.endswith(b"/"):
        raise _Refused(409, "MKCOL can create a collection only")
    path, mode = _path(request).removesuffix("/"), _folder_mode(_mode(request))

    def work() -> int:
        try:
            os.mkdir(path, mode)
        except OSError as error:
            raise _failed(error, 409, "mkdir", path) from None
        return 201

    return work


# ------------------------------------------------------------------------- COPY and MOVE


def _destination(request: Exchange) -> tuple[bytes, bytes]:
    """The Destination header, and the path in it."""
    value = request.header(b"destination")
    if value is None:
        raise _Refused(400, 'client sent no "Destination" header')
    invalid = _Refused(400, f'client sent invalid "Destination" header: "{_text(value)}"')
    target = value
    if not value.startswith(b"/"):
        host = request.variable(b"host") or b""
        scheme = (request.variable(b"scheme") or b"http") + b"://"
        if not value.startswith(scheme):
            raise invalid
        rest = value[len(scheme) :]
        if not rest.startswith(host):
            raise _Refused(
                400,
                f'"Destination" URI "{_text(value)}" is handled by different repository than '
                "the source URI",
            )
        slash = rest.find(b"/", len(host))
        if slash < 0:
            raise invalid
        target = rest[slash:]
    parsed = parse_unsafe(target)
    if parsed is None:
        raise invalid
    return value, parsed[0]


def _overwrite(request: Exchange) -> bool:
    value = request.header(b"overwrite")
    if value is None or value in (b"T", b"t"):
        return True
    if value in (b"F", b"f"):
        return False
    raise _Refused(400, f'client sent invalid "Overwrite" header: "{_text(value)}"')


def _copy_or_move(request: Exchange) -> Callable[[], int]:
    value, target = _destination(request)
    uri, move = request.uri, request.method == b"MOVE"
    if uri.endswith(b"/") != value.endswith(b"/"):
        raise _Refused(
            409,
            f'both URI "{_text(uri)}" and "Destination" URI "{_text(value)}" should be either '
            "collections or non-collections",
        )
    depth = _depth(request, _INFINITE)
    if depth != _INFINITE and (move or depth != 0):
        raise _Refused(400, f'"Depth" header must be {"" if move else "0 or "}infinity')
    overwrite, mode = _overwrite(request), _mode(request)
    source = _path(request)
    # where files lie is a question about the request's path
    request.set_uri(target)
    goal = _path(request)
    request.set_uri(uri)
    is_collection = goal.endswith("/")
    goal = goal.removesuffix("/")
    verb = request.method.decode()

    def work() -> int:
        exists = goal_is_folder = False
        try:
            goal_is_folder = stat.S_ISDIR(os.lstat(goal).st_mode)
            exists = True
        except FileNotFoundError:
            pass
        except OSError as error:
            raise _failed(error, 404, "lstat", goal) from None
        if exists:
            if goal_is_folder and not is_collection:
                raise _Refused(
                    409,
                    f'"{_text(uri)}" could not be {verb}ed to collection "{_text(value)}"',
                )
            if not overwrite:
                raise _Refused(412, f'"{goal}" could not be created (17: File exists)')
        try:
            info = os.lstat(source)
        except OSError as error:
            raise _failed(error, 404, "lstat", source) from None
        if not stat.S_ISDIR(info.st_mode):
            return _one_file(source, goal, mode, move)
        if not uri.endswith(b"/"):
            raise _Refused(400, f'"{_text(uri)}" is collection')
        if exists:
            _remove(goal, goal_is_folder)
        return _tree(source.removesuffix("/"), goal, move)

    return work


def _one_file(source: str, goal: str, mode: int, move: bool) -> int:
    try:
        if move:
            _make_folders(os.path.dirname(goal), mode)
            shutil.move(source, goal)
        else:
            shutil.copy2(source, goal)
    except OSError as error:
        call = "rename" if move else "open"
        raise _Refused(500, f'{call}() "{goal}" failed {os_error(error)}', _CRIT) from None
    return 204


def _tree(source: str, goal: str, move: bool) -> int:
    try:
        if move:
            shutil.move(source, goal)
        else:
            shutil.copytree(source, goal, symlinks=True)
    except OSError as error:
        raise _failed(error, 404, "mkdir", goal) from None
    return 201
