"""A certificate for the servers and the peer that speak TLS: of nobody's authority, and for one run.

It has an elliptic key, as most servers have one today; what a handshake costs depends on that.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["certificate", "made", "missing"]

_VARIABLE = "TRIO_LUA_BENCHMARK_CERTIFICATE"


def missing() -> str:
    """What has to be installed; empty when nothing."""
    return "" if shutil.which("openssl") else "openssl"


@contextlib.contextmanager
def made() -> Iterator[None]:
    """A certificate that is there for whoever asks meanwhile, and for processes started meanwhile."""
    with tempfile.TemporaryDirectory(prefix="trio-lua-bench-") as folder:
        command = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ]
        command += ["-nodes", "-subj", "/CN=localhost", "-days", "2"]
        command += ["-out", f"{folder}/cert.pem", "-keyout", f"{folder}/key.pem"]
        subprocess.run(command, check=True, capture_output=True)
        os.environ[_VARIABLE] = folder
        try:
            yield
        finally:
            del os.environ[_VARIABLE]


def certificate() -> tuple[Path, Path]:
    """The files of the certificate and its key."""
    folder = Path(os.environ[_VARIABLE])
    return folder / "cert.pem", folder / "key.pem"
