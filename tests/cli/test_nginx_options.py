from __future__ import annotations

import re
import subprocess
import sys

import pytest

from trio_lua import __version__
from trio_lua.cli.nginx import UsageError, main, parse


def test_nothing() -> None:
    options = parse([])
    assert vars(options) == {
        "help": False,
        "version": False,
        "configure": False,
        "test": False,
        "dump": False,
        "quiet": False,
        "prefix": None,
        "error_log": None,
        "conf": None,
        "directives": "",
        "signal": None,
    }


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-t -q", {"test": True, "quiet": True}),
        ("-tq", {"test": True, "quiet": True}),
        ("-T", {"test": True, "dump": True}),
        ("-V", {"version": True, "configure": True}),
        ("-?", {"version": True, "help": True}),
        ("-h", {"version": True, "help": True}),
        ("-c a.conf -p /p -e e.log", {"conf": "a.conf", "prefix": "/p", "error_log": "e.log"}),
        ("-ca.conf -p/p -ee.log", {"conf": "a.conf", "prefix": "/p", "error_log": "e.log"}),
        ("-tqca.conf", {"test": True, "quiet": True, "conf": "a.conf"}),
        ("-tc a.conf", {"test": True, "conf": "a.conf"}),
        ("-s stop", {"signal": "stop"}),
        ("-sreload", {"signal": "reload"}),
        ("-c -t", {"conf": "-t"}),
        ("-", {}),
    ],
)
def test_forms(line: str, expected: dict[str, object]) -> None:
    assert vars(parse(line.split())) == {**vars(parse([])), **expected}


def test_directives_are_one_argument() -> None:
    assert parse(["-g", "daemon off; pid x;"]).directives == "daemon off; pid x;"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-x", 'invalid option: "x"'),
        ("-tqx", 'invalid option: "x"'),
        ("--help", 'invalid option: "-"'),
        ("foo", 'invalid option: "foo"'),
        ("-s x", 'invalid option: "-s x"'),
        ("-p", 'option "-p" requires directory name'),
        ("-e", 'option "-e" requires file name'),
        ("-c", 'option "-c" requires file name'),
        ("-g", 'option "-g" requires parameter'),
        ("-s", 'option "-s" requires parameter'),
    ],
)
def test_refused(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError) as caught:
        parse(line.split())
    assert str(caught.value) == message
    assert main(line.split()) == 1
    assert capsys.readouterr().err == f"nginx: {message}\n"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-v"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"nginx version: nginx/1.22.1 (trio_lua {__version__})\n"


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-h"]) == 0
    err = capsys.readouterr().err
    for option in "?hvVtTqspecg":
        assert re.search(rf"-{re.escape(option)}\b|-\?", err)
    assert "configure arguments" not in err


def test_configure_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-V"]) == 0
    err = capsys.readouterr().err
    # as the harness of lua-nginx-module's suite reads it
    found = re.search(r"(?:nginx|openresty+?)[^/]*/(\d+)\.(\d+)\.(\d+)", err)
    assert found is not None
    assert found.groups() == ("1", "22", "1")
    found = re.search(r"nginx version: .*/(\d)\.(\d+)(?:\.\d+)+", err)
    assert found is not None
    assert found.groups() == ("1", "22")
    assert re.search(r"built with OpenSSL \d+\.\d+\.\d+", err)
    assert "pcre" in err
    assert "--without-pcre2" not in err
    for module in ("fastcgi", "scgi", "uwsgi"):
        assert f"--without-http_{module}_module" in err


def test_version_needs_no_heavy_import() -> None:
    code = "import sys; from trio_lua.cli.nginx import main; main(['-V']);print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    loaded = set(done.stdout.split())
    assert not loaded & {
        "trio",
        "lupa",
        "crossplane",
        "click",
        "re",
        "dataclasses",
        "typing",
        "ssl",
    }
