"""What a process inherits or gives up before it serves: environment, limits, user.

nginx empties the environment except for ``TZ`` and what ``env`` directives name, so that handlers
see the same wherever the server was started from. ``env NAME`` keeps a variable,
``env NAME=value`` sets one.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import resource
import time
from collections.abc import Iterable, Iterator, Mapping

import trio_lua.lua.paths  # noqa: F401  (reads the environment before this changes it)
from trio_lua.errors import ConfigError, TrioLuaError
from trio_lua.log.files import os_error

__all__ = [
    "Account",
    "account",
    "apply",
    "become",
    "change_folder",
    "give",
    "large_stack",
    "limit_core",
    "limit_files",
    "make_folder",
    "reduced",
]


def reduced(
    directives: Iterable[tuple[str, str | None]], inherited: Mapping[str, str]
) -> dict[str, str]:
    """The environment that remains of ``inherited``."""
    wanted = dict(directives)
    wanted.setdefault("TZ", None)
    result: dict[str, str] = {}
    for name, value in wanted.items():
        if value is not None:
            result[name] = value
        elif name in inherited:
            result[name] = inherited[name]
    return result


def apply(directives: Iterable[tuple[str, str | None]], inherited: Mapping[str, str]) -> None:
    """Make it this process's environment (Lua's ``os.getenv`` sees it as well)."""
    environment = reduced(directives, inherited)
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)
    time.tzset()


def limit_files(number: int | None) -> None:
    """``worker_rlimit_nofile``.

    Raises:
        TrioLuaError: The system refuses.
    """
    if number is None:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))
    except (OSError, ValueError) as exc:
        reason = os_error(exc) if isinstance(exc, OSError) and exc.errno else f"({exc})"
        raise TrioLuaError(f"setrlimit(RLIMIT_NOFILE, {number}) failed {reason}") from None


def limit_core(size: int | None) -> None:
    """``worker_rlimit_core``.

    Raises:
        TrioLuaError: The system refuses.
    """
    if size is None:
        return
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (size, size))
    except (OSError, ValueError) as exc:
        reason = os_error(exc) if isinstance(exc, OSError) and exc.errno else f"({exc})"
        raise TrioLuaError(f"setrlimit(RLIMIT_CORE, {size}) failed {reason}") from None


#: Bytes. Linux leaves a little more free below the stack of a process, whatever its limit was at its start.
_STACK = 120 << 20


@contextlib.contextmanager
def large_stack() -> Iterator[None]:
    """Let the stack of the main thread grow further, as far as the system allows it.

    Where Lua calls a C function that calls Lua (``string.gsub`` with a function), each level takes 8 kB of the C stack. With
    the usual 8 MB a runaway recursion would end the process before it reaches the limit of Lua's own stack, which is an error.
    Threads have stacks of their own (``threads/stack.py``).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    unlimited = resource.RLIM_INFINITY
    wanted = _STACK if hard == unlimited else min(_STACK, hard)
    if soft == unlimited or soft >= wanted:
        yield
        return
    try:
        resource.setrlimit(resource.RLIMIT_STACK, (wanted, hard))
    except (OSError, ValueError):
        # some systems do not let a running process have more
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_STACK, (soft, hard))


#: Name, user id, group id.
Account = tuple[str, int, int]


def account(user: str | None) -> Account | None:
    """Whom ``user name [group]`` means; None when there is nothing to become.

    That is without the directive, without the privilege, and for root.

    Raises:
        ConfigError: There is no such user or group.
    """
    if user is None or os.geteuid() != 0:
        return None
    name, _, group = user.partition(" ")
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(f'getpwnam("{name}") failed') from None
    gid = entry.pw_gid
    if group.strip():
        try:
            gid = grp.getgrnam(group.strip()).gr_gid
        except KeyError:
            raise ConfigError(f'getgrnam("{group.strip()}") failed') from None
    if entry.pw_uid == 0:
        return None
    return name, entry.pw_uid, gid


def become(who: Account) -> None:
    """Give up root's privileges for good.

    Raises:
        TrioLuaError: The system refuses.
    """
    name, uid, gid = who
    try:
        os.initgroups(name, gid)
        os.setgid(gid)
        os.setuid(uid)
    except OSError as exc:
        raise TrioLuaError(f'becoming user "{name}" failed {os_error(exc)}') from None


def make_folder(path: str, who: Account | None) -> None:
    """Make the folder of temporary files, for the user that will write there.

    Raises:
        TrioLuaError: It cannot be made, with nginx's message.
    """
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
    except OSError as exc:
        raise TrioLuaError(f'mkdir() "{path}" failed {os_error(exc)}') from None
    if who is not None:
        os.chown(path, who[1], -1)


def give(paths: Iterable[str], who: Account) -> None:
    """Make a user the owner of files, as far as that is possible."""
    for path in paths:
        with contextlib.suppress(OSError):
            if os.stat(path).st_uid != who[1]:
                os.chown(path, who[1], -1)


def change_folder(path: str | None) -> None:
    """``working_directory``.

    Raises:
        TrioLuaError: It cannot be entered, with nginx's message.
    """
    if path is None:
        return
    try:
        os.chdir(path)
    except OSError as exc:
        raise TrioLuaError(f'chdir("{path}") failed {os_error(exc)}') from None
