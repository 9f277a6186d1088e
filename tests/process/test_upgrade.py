"""The sockets that an old executable hands to a new one."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from trio_lua.config.model import Config, Listen
from trio_lua.process.cycle import Cycle
from trio_lua.process.sockets import ListenError, Listeners
from trio_lua.process.upgrade import Upgrade, inherited_listeners


def test_sockets_are_taken_over(log: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    listens = [Listen("127.0.0.1", 0), Listen("", 0, path=path)]
    with Listeners.bind(listens, error_log=log) as old:
        value = "".join(f"{os.dup(fd)};" for fd in old.fds)
        new = inherited_listeners(value, log)
        addresses = [sock.getsockname() for _, sock in new.pairs]
        assert addresses == [sock.getsockname() for _, sock in old.pairs]
        old.close(leave_files=True)
        assert os.path.exists(path)
        again = Listeners.bind([Listen("", 0, path=path)], error_log=log, previous=new)
        new.close(keep=again)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
        again.close()
        assert not os.path.exists(path)
    assert log.lines[0] == f'[notice] using inherited sockets from "{value}"'


@pytest.mark.parametrize("value", ["x;", "9999;"])
def test_what_is_no_socket(log: Any, value: str) -> None:
    with pytest.raises(ListenError):
        inherited_listeners(value, log)
    assert f'invalid socket number "{value[:-1]}" in NGINX environment variable' in log.lines[1]


def test_a_program_that_is_not_there(log: Any, tmp_path: Path) -> None:
    class Refuses:
        def execute(self, *_args: Any) -> int:
            raise FileNotFoundError(2, "No such file or directory")

    pid = tmp_path / "pid"
    pid.write_text("1")
    upgrade = Upgrade(["/bin/new"], {}, lambda _cycle: str(pid))
    upgrade.start(Refuses(), Cycle(Config(), log, Listeners()))  # type: ignore[arg-type]
    assert upgrade.pid == 0
    assert [path.name for path in tmp_path.iterdir()] == ["pid"]
    assert log.lines[-1] == (
        '[alert] execve() failed while executing new binary process "/bin/new" '
        "(2: No such file or directory)"
    )


def test_a_successor_does_not_start_another(
    log: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as its predecessor lives."""
    upgrade = Upgrade([], {}, lambda _cycle: "", predecessor=os.getppid())
    upgrade.start(None, Cycle(Config(), log, Listeners()))  # type: ignore[arg-type]
    assert "the changing binary signal is ignored" in log.lines[0]
