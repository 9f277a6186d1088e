from __future__ import annotations

import os
from pathlib import Path

import pytest

from trio_lua.errors import ConfigError, TrioLuaError
from trio_lua.process import environment


def test_everything_but_tz_goes() -> None:
    assert environment.reduced((), {"HOME": "/root", "TZ": "UTC"}) == {"TZ": "UTC"}
    assert environment.reduced((), {"HOME": "/root"}) == {}


def test_named_variables_stay_or_are_set() -> None:
    directives = [("HOME", None), ("MISSING", None), ("SET", "a=b"), ("TZ", "Asia/Tokyo")]
    inherited = {"HOME": "/root", "PATH": "/bin", "TZ": "UTC"}
    assert environment.reduced(directives, inherited) == {
        "HOME": "/root",
        "SET": "a=b",
        "TZ": "Asia/Tokyo",
    }


def test_apply(monkeypatch: pytest.MonkeyPatch) -> None:
    inherited = dict(os.environ)
    for name in inherited:
        monkeypatch.setenv(name, inherited[name])
    monkeypatch.setenv("TRIO_LUA_TEST", "x")
    environment.apply([("PATH", None), ("NEW", "1")], inherited)
    left = dict(os.environ)
    os.environ.update(inherited)
    del os.environ["NEW"]
    assert left.pop("TZ", None) == inherited.get("TZ")
    assert left == {"PATH": inherited["PATH"], "NEW": "1"}


def test_limit_files() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    environment.limit_files(None)
    if soft == hard:
        environment.limit_files(hard)
    with pytest.raises(TrioLuaError, match=r"setrlimit\(RLIMIT_NOFILE, -5\) failed"):
        environment.limit_files(-5)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)


def test_large_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_STACK)
    limits = (8 << 20, 64 << 20)

    def setrlimit(_which: int, new: tuple[int, int]) -> None:
        nonlocal limits
        limits = new

    monkeypatch.setattr(resource, "getrlimit", lambda _which: limits)
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    with environment.large_stack():
        assert limits == (64 << 20, 64 << 20)
    assert limits == (8 << 20, 64 << 20)
    limits = (8 << 20, resource.RLIM_INFINITY)
    with environment.large_stack():
        assert limits == (120 << 20, resource.RLIM_INFINITY)
    limits = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    with environment.large_stack():
        assert limits == (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.undo()
    assert resource.getrlimit(resource.RLIMIT_STACK) == before


def test_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert environment.account("no-such-user") is None
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert environment.account(None) is None
    assert environment.account("root") is None
    name, uid, gid = environment.account("daemon") or ("", 0, 0)
    assert name == "daemon"
    assert uid > 0
    assert gid > 0
    assert environment.account("daemon root") == ("daemon", uid, 0)
    with pytest.raises(ConfigError, match=r'getpwnam\("no-such-user"\) failed'):
        environment.account("no-such-user")
    with pytest.raises(ConfigError, match=r'getgrnam\("no-such-group"\) failed'):
        environment.account("daemon no-such-group")


def test_become_reports_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "initgroups", refuse)
    with pytest.raises(
        TrioLuaError, match=r'becoming user "x" failed \(1: Operation not permitted\)'
    ):
        environment.become(("x", 12, 12))


def test_make_folder(tmp_path: Path) -> None:
    path = tmp_path / "body"
    environment.make_folder(str(path), None)
    environment.make_folder(str(path), None)
    assert path.stat().st_mode & 0o777 == 0o700
    with pytest.raises(TrioLuaError, match=r'mkdir\(\) ".*" failed \(2: No such file'):
        environment.make_folder(str(tmp_path / "no" / "body"), None)


def test_change_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    environment.change_folder(None)
    assert os.getcwd() == "/"
    environment.change_folder(str(tmp_path))
    assert os.getcwd() == os.path.realpath(tmp_path)
    with pytest.raises(TrioLuaError, match=r'chdir\("/no/such"\) failed \(2: No such file'):
        environment.change_folder("/no/such")
