from __future__ import annotations

import os
from pathlib import Path

import pytest

from trio_lua.process import pidfile


def test_write_read_remove(tmp_path: Path) -> None:
    path = str(tmp_path / "nginx.pid")
    pidfile.write(path)
    assert pidfile.read(path) == os.getpid()
    assert (tmp_path / "nginx.pid").read_text() == f"{os.getpid()}\n"
    pidfile.write(path, 12)
    assert pidfile.read(path) == 12
    pidfile.remove(path)
    pidfile.remove(path)
    assert not os.path.exists(path)


def test_testing_leaves_the_content(tmp_path: Path) -> None:
    path = str(tmp_path / "nginx.pid")
    pidfile.test(path)
    assert (tmp_path / "nginx.pid").read_text() == ""
    pidfile.write(path, 12)
    pidfile.test(path)
    assert pidfile.read(path) == 12


def test_missing_file(tmp_path: Path) -> None:
    path = str(tmp_path / "nginx.pid")
    with pytest.raises(pidfile.PidFileError) as caught:
        pidfile.read(path)
    assert str(caught.value) == f'open() "{path}" failed (2: No such file or directory)'


@pytest.mark.parametrize("text", ["", "x\n", "-1\n", "0\n"])
def test_no_number(tmp_path: Path, text: str) -> None:
    path = tmp_path / "nginx.pid"
    path.write_text(text)
    with pytest.raises(pidfile.PidFileError) as caught:
        pidfile.read(str(path))
    assert str(caught.value) == f'invalid PID number "{text.rstrip()}" in "{path}"'


def test_no_folder(tmp_path: Path) -> None:
    path = str(tmp_path / "no" / "nginx.pid")
    for action in (pidfile.write, pidfile.test):
        with pytest.raises(pidfile.PidFileError, match="No such file"):
            action(path)


def test_not_removable(tmp_path: Path) -> None:
    with pytest.raises(pidfile.PidFileError, match="unlink"):
        pidfile.remove(str(tmp_path))
