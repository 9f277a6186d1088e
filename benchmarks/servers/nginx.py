"""nginx with the lua module, where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from benchmarks.servers import lua_app

__all__ = ["command", "missing"]

#: Dynamic modules in the order in which they have to be loaded.
_MODULES = ("ndk_http_module.so", "ngx_http_lua_module.so")


@cache
def _nginx() -> tuple[str, tuple[Path, ...] | None]:
    """The program, and the modules to load; None when there is no lua module."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        return "", None
    built = subprocess.run([program, "-V"], capture_output=True, text=True, check=False).stderr
    if "lua-nginx-module" in built:
        return program, ()
    folder = re.search(r"--modules-path=(\S+)", built)
    if folder is None:
        return program, None
    files = tuple(Path(folder[1], name) for name in _MODULES)
    return program, files if all(file.exists() for file in files) else None


def missing() -> str:
    program, modules = _nginx()
    if not program:
        return "nginx"
    return "nginx's lua module" if modules is None else ""


def command(port: int, folder: Path, *, tls: bool = False) -> Sequence[str]:
    program, modules = _nginx()
    main = "".join(f"load_module {file};\n" for file in modules or ())
    main += "worker_processes 1;\ndaemon off;\npid nginx.pid;\nerror_log stderr warn;\n"
    file = folder / "nginx.conf"
    file.write_text(lua_app.conf(port, main, tls=tls))
    return [program, "-p", str(folder), "-c", str(file), "-e", "stderr"]
