"""Names and passwords: nginx's auth_basic module.

The password file is read for each request, so that a change holds at once, as in nginx.
"""

from __future__ import annotations

import os

import trio

from trio_lua.config.directives import Context, Use, takes
from trio_lua.config.model import Template
from trio_lua.http import htpasswd
from trio_lua.log.files import os_error
from trio_lua.request.module import Exchange, Module

__all__ = ["MODULE"]

MODULE = Module("auth_basic")

_CRIT, _ERR, _INFO = 3, 4, 7
_DECLINED, _UNAUTHORIZED, _FORBIDDEN = -5, 401, 403


@MODULE.directive("auth_basic", Context.SETTING | Context.LIMIT_EXCEPT, takes(1))
def _realm(use: Use) -> None:
    use.put_setting("auth_basic", use.template(0))


@MODULE.directive("auth_basic_user_file", Context.SETTING | Context.LIMIT_EXCEPT, takes(1))
def _user_file(use: Use) -> None:
    use.put_setting("auth_basic_user_file", (use.template(0), use.build.folder))


@MODULE.access("auth_basic")
async def _check(request: Exchange, realm: Template) -> int | None:
    name = request.evaluate(realm)
    file: tuple[Template, str] | None = request.setting("auth_basic_user_file")
    if name == b"off" or file is None:
        return _DECLINED
    found = htpasswd.credentials(request.header(b"authorization"))
    if found is None:
        request.log(_INFO, b"no user/password was provided for basic authentication")
        return _refuse(request, name)
    user, password = found
    path = os.path.join(file[1], os.fsdecode(request.evaluate(file[0])))
    try:
        with open(path, "rb") as lines:  # noqa: ASYNC230 (a small file, as in the static handler)
            stored = htpasswd.find_hash(lines, user)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        request.log(
            _ERR if missing else _CRIT, f'open() "{path}" failed {os_error(error)}'.encode()
        )
        return _FORBIDDEN if missing else 500
    if stored is None:
        request.log(_ERR, b'user "%b" was not found in "%b"' % (user, os.fsencode(path)))
        return _refuse(request, name)
    try:
        fits = await trio.to_thread.run_sync(htpasswd.verify, password, stored)
    except ValueError as error:
        request.log(_CRIT, b'user "%b": %b' % (user, str(error).encode()))
        return 500
    if fits:
        return None
    request.log(_ERR, b'user "%b": password mismatch' % user)
    return _refuse(request, name)


def _refuse(request: Exchange, realm: bytes) -> int:
    request.set_header(b"WWW-Authenticate", b'Basic realm="%b"' % realm)
    return _UNAUTHORIZED
