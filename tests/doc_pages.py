"""Runs what a page of the documentation shows.

A fenced block of a page is one of these, by its language and by the comment before it:

* ``<!-- file: NAME -->``: the block is that file, in an empty folder that the page has for itself;
* ``console``: lines that begin with ``$`` are run, one after the other; what follows each is its
  output, in which ``...`` stands for anything. ``trio-lua serve`` runs until the next one, and
  ``curl`` asks it;
* ``<!-- in: PLACE -->``: a piece of a configuration, checked inside ``main``, ``http``, ``server``
  or ``location``;
* ``<!-- run -->``: a Lua script, which runs on virtual time and prints what stands behind the arrows (``--> text``);
* ``<!-- not run: REASON -->``: left alone;
* ``text``: output of something, left alone.

Addresses are 127.0.0.1 with any port in the pages, and with a free one when they are run.
"""

from __future__ import annotations

import http.client
import os
import re
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio
import trio.testing

from trio_lua.server import script
from trio_lua.testing import LogRecords

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"

#: Seconds after which a command that has not answered is taken for hanging.
LIMIT = 30.0

_ADDRESS = re.compile(r"127\.0\.0\.1:\d+")
_COMMENT = re.compile(r"<!-- (.*) -->")
_GREETING = "(Ctrl-C stops it)"

_WRAPPED = {
    "trio-lua": "-m trio_lua",
    "trio-lua-nginx": "-m trio_lua.cli.nginx",
    "pytest": "-m pytest -p no:cacheprovider",
    "python": "",
}

_AROUND = {
    "main": "events {}\n%s",
    "http": "events {}\nhttp {\n%s\n}",
    "server": "events {}\nhttp { server { listen 127.0.0.1:0;\n%s\n} }",
    "location": "events {}\nhttp { server { listen 127.0.0.1:0; location / {\n%s\n} } }",
}


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the comment before it."""

    line: int
    language: str
    text: str
    comment: str

    def argument(self, name: str) -> str | None:
        key, colon, value = self.comment.partition(": ")
        return value if colon and key == name else None


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page."""
    comment = language = ""
    inside: list[str] | None = None
    begin = 0
    for number, line in enumerate(page.splitlines(), 1):
        if inside is not None:
            if line.strip() == "```":
                text = "".join(f"{row}\n" for row in inside)
                yield Block(begin, language, text, comment)
                comment, inside = "", None
            else:
                inside.append(line)
        elif line.startswith("```"):
            begin, language, inside = number, line.strip("` "), []
        elif found := _COMMENT.fullmatch(line):
            comment = found[1]
        elif line:
            comment = ""


class Session:
    """A folder, and the server that runs in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "page"
        self.folder.mkdir()
        programs = folder / "bin"
        programs.mkdir()
        for name, arguments in _WRAPPED.items():
            script = programs / name
            script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
            script.chmod(0o755)
        self.environment = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
        }
        self.server: subprocess.Popen[bytes] | None = None
        self.reloading = False
        self.port = 0

    def run(self, block: Block) -> None:
        """Do what a block says."""
        if (name := block.argument("file")) is not None:
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_free(block.text))
        elif (place := block.argument("in")) is not None:
            self._check(block, place)
        elif block.comment == "run":
            expected = re.findall(r"--> (.*)", block.text)
            assert run_script(block.text) == expected, f"line {block.line}"
        elif block.language == "console":
            for command, expected in _commands(block.text):
                self.run_command(command, expected)
        elif block.argument("not run") is None:
            assert block.language == "text", f"line {block.line}: how is this block to be run?"

    def _check(self, block: Block, place: str) -> None:
        path = self.folder / "piece.conf"
        path.write_text(_AROUND[place] % block.text)
        output = self._shell("trio-lua check piece.conf")
        path.unlink()
        assert "no errors" in output, f"line {block.line}: {output}"

    def run_command(self, command: str, expected: str) -> None:
        """Run one command and compare its output."""
        words = shlex.split(command)
        if words[:2] == ["trio-lua", "serve"] and "-t" not in words:
            _compare(command, expected, self._serve(command, words))
            return
        deadline = time.monotonic() + LIMIT
        # what a server writes after its response, or when it has reloaded, comes soon
        patient = words[0] == "cat" or (words[0] == "curl" and self.reloading)
        while True:
            try:
                output = self._curl(words[1:]) if words[0] == "curl" else self._shell(command)
                _compare(command, expected, output)
                return
            except (AssertionError, OSError):
                if not patient or time.monotonic() > deadline:
                    raise

    def _shell(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", _free(command)],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=LIMIT,
            check=False,
        )
        return done.stdout.decode()

    def _serve(self, command: str, words: list[str]) -> str:
        self.close()
        command = _free(command)
        if "-b" not in words and not any(word.endswith(".conf") for word in words):
            command += " -b 127.0.0.1:0"
        self.reloading = "--reload" in words
        self.server = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert self.server.stderr is not None
        seen = ""
        deadline = time.monotonic() + LIMIT
        while _GREETING not in seen:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self.server.stderr], [], [], max(left, 0))
            data = os.read(self.server.stderr.fileno(), 65536).decode() if ready else ""
            assert data, f"{command} says {seen!r}"
            seen += data
        found = _ADDRESS.search(seen)
        assert found, seen
        self.port = int(found[0].partition(":")[2])
        return seen

    def _curl(self, words: list[str]) -> str:
        method, headers, body, url, head = "GET", {}, None, "", False
        rest = iter(words)
        for word in rest:
            if word == "-i":
                head = True
            elif word == "-d":
                method, body = "POST", next(rest)
            elif word == "-H":
                name, _, value = next(rest).partition(": ")
                headers[name] = value
            else:
                url = word.removeprefix("http://")
        assert _ADDRESS.match(url), f"no such server: {url}"
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)
        try:
            client.request(method, url[url.index("/") :] if "/" in url else "/", body, headers)
            response = client.getresponse()
            text = response.read().decode()
            if head:
                lines = [f"HTTP/1.1 {response.status} {response.reason}"]
                lines += [f"{name}: {value}" for name, value in response.getheaders()]
                text = "\n".join([*lines, "", text])
            return text
        finally:
            client.close()

    def close(self) -> None:
        """Stop the server."""
        if self.server is not None:
            self.server.terminate()
            self.server.communicate(timeout=LIMIT)
            self.server = None


def run_script(code: str) -> list[str]:
    """The lines that a Lua script prints; it must not log anything."""
    output: list[bytes] = []
    log = LogRecords()
    trio.run(
        partial(
            script.run_script, [(code.encode(), "@example.lua")], write=output.append, error_log=log
        ),
        clock=trio.testing.MockClock(autojump_threshold=0),
    )
    assert not len(log), str(log)
    return b"".join(output).decode().splitlines()


def _free(text: str) -> str:
    """The text with port 0, which is whatever the system gives, for every port."""
    return _ADDRESS.sub("127.0.0.1:0", text)


def _commands(text: str) -> Iterator[tuple[str, str]]:
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, newline, output = part.partition("\n")
        while command.endswith("\\"):
            more, newline, output = output.partition("\n")
            command = command[:-1] + more.strip()
        yield command, output if newline else ""


def _compare(command: str, expected: str, output: str) -> None:
    expected = re.sub(r"trio-lua \d+\.\d+\.\d+", "trio-lua ...", expected.strip())
    pattern = ".*".join(map(re.escape, _free(expected).split("...")))
    assert re.fullmatch(pattern, _free(output.strip()), re.DOTALL), f"{command}\n{output}"
