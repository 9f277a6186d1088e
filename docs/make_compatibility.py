"""Writes ``docs/compatibility.md`` from the results of lua-nginx-module's own test suite.

    python docs/make_compatibility.py results.tsv reference.tsv scope.tsv

``results.tsv`` and ``reference.tsv`` are tables of the suite's runner (columns ``file``, ``block``, ``status``), the
first of a run against ``trio-lua-nginx``, the second of one against nginx; ``scope.tsv`` has the tags of each block (what
it needs). Why a block does not pass stands in ``docs/compatibility.tsv``: the first line that fits holds.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

DOCS = Path(__file__).parent
PAGE = DOCS / "compatibility.md"
REASONS = DOCS / "compatibility.tsv"

NOTE = (
    "<!-- Made by docs/make_compatibility.py: change that, or what it reads, not this page. -->\n"
)

#: A block of the suite: its file and its place in it.
Block = tuple[str, int]

TAGS = {
    "core": "phases, variables, headers, arguments, output: nothing of what follows",
    "subrequest": "`ngx.location.capture`",
    "regex": "`ngx.re`",
    "coroutine": "`coroutine`",
    "uthread": "`ngx.thread`",
    "timer": "`ngx.timer`",
    "semaphore": "`ngx.semaphore`",
    "cosocket": "`ngx.socket.tcp`, `ngx.req.socket`",
    "udp": "`ngx.socket.udp`",
    "shdict": "`ngx.shared`",
    "client-abort": "clients that go away: `ngx.on_abort`, `lua_check_client_abort`",
    "threads": "`ngx.run_worker_thread`",
    "tls": "TLS on either side, `ngx.ssl`",
    "balancer": "`balancer_by_lua*`",
    "workers": "several workers, `ngx.worker`, `ngx.process`",
    "hup": "reloading by signal",
    "luajit": "`jit.*`, bytecode, `collectgarbage`",
    "capi": "the C interfaces of nginx and of the module",
    "must_die": "a server that refuses to start",
    "other": "no Lua handler",
    "echo": "directives of the echo module",
    "headers-more": "directives of the headers-more module",
    "ndk": "`ndk.set_var`, set-misc directives",
    "proxy": "`proxy_pass`",
    "memcached": "a memcached server, often only as any TCP server",
    "memc": "`memc_pass`",
    "redis": "a Redis server",
    "internet": "the names of web sites",
    "mockeagain": "a library that makes system calls return little",
    "debuglog": "lines that nginx or the module log at level debug",
}

KINDS = {
    "later": ("Not there yet", "What the blocks need is missing."),
    "different": (
        "Different on purpose",
        "[Differences from OpenResty](explanation/differences.md) has the reasons.",
    ),
    "internals": (
        "Internals of nginx",
        "The blocks look at how nginx or the module work inside, not at what they do.",
    ),
    "defect": ("Defects", "The behaviour is not what it should be."),
}


@dataclass(frozen=True)
class Reason:
    """A line of the data file: which blocks, and why they do not pass."""

    kind: str
    what: str
    text: str

    def fits(self, block: Block, tags: frozenset[str]) -> bool:
        """Whether it is about a block: ``tag:NAME``, or ``FILE`` or ``FILE:1,3-5``."""
        if self.what.startswith("tag:"):
            return self.what[4:] in tags
        file, _, numbers = self.what.partition(":")
        return fnmatchcase(block[0], file) and (not numbers or block[1] in _numbers(numbers))


def _numbers(text: str) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def _shown(numbers: Iterable[int]) -> str:
    """``1, 3-5``"""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def rows(path: Path) -> list[dict[str, str]]:
    """The lines of a table with a head."""
    with path.open(newline="") as file:
        lines = (line for line in file if not line.startswith("#"))
        return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


def statuses(path: Path) -> dict[Block, str]:
    """What became of each block."""
    return {(row["file"], int(row["block"])): row["status"] for row in rows(path)}


def reasons() -> list[Reason]:
    """The data file."""
    return [Reason(row["kind"], row["what"], row["reason"]) for row in rows(REASONS)]


def page(
    results: Mapping[Block, str],
    reference: Mapping[Block, str],
    tags: Mapping[Block, frozenset[str]],
) -> tuple[str, list[Block]]:
    """The page, and the blocks that nobody has explained."""
    wanted = {block for block, status in reference.items() if status == "pass"}
    passed = {block for block in wanted if results.get(block) == "pass"}
    parts = [
        NOTE,
        "# Compatibility\n",
        "lua-nginx-module has a test suite of its own, and it runs against `trio-lua-nginx`, unchanged. The measure "
        "are the blocks that nginx 1.22.1 with version 0.10.23 of the module passes in the same place: "
        f"**{len(passed)} of {len(wanted)}, {len(passed) / len(wanted):.1%}**. A block may need several of the "
        "things below.\n",
        "| | what the blocks need | nginx | trio-lua-nginx | |",
        "| --- | --- | --- | --- | --- |",
    ]
    for tag, text in TAGS.items():
        those = {block for block in wanted if tag in tags[block]}
        if those:
            good = len(those & passed)
            parts.append(f"| {tag} | {text} | {len(those)} | {good} | {good / len(those):.1%} |")
    parts.append("")
    known = reasons()
    grouped: dict[str, dict[str, dict[str, set[int]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(set))
    )
    unexplained = []
    for block in sorted(wanted - passed):
        for reason in known:
            if reason.fits(block, tags[block]):
                grouped[reason.kind][reason.text][block[0]].add(block[1])
                break
        else:
            unexplained.append(block)
    for kind, (title, intro) in KINDS.items():
        if kind in grouped:
            parts += [f"## {title}\n", f"{intro}\n"]
            for text, files in grouped[kind].items():
                count = sum(map(len, files.values()))
                where = "; ".join(f"`{file}` {_shown(n)}" for file, n in sorted(files.items()))
                parts.append(f"* **{text}** ({count}): {where}.")
            parts.append("")
    if unexplained:
        parts += ["## Not looked at\n"]
        files: dict[str, set[int]] = defaultdict(set)
        for file, number in unexplained:
            files[file].add(number)
        parts += ["; ".join(f"`{file}` {_shown(n)}" for file, n in sorted(files.items())) + ".", ""]
    return "\n".join(parts), unexplained


def main(arguments: list[str]) -> int:
    """Write the page; 1 when a block is not explained."""
    if len(arguments) != 3:
        sys.exit("usage: make_compatibility.py results.tsv reference.tsv scope.tsv")
    results, reference, scope = map(Path, arguments)
    tags = {
        (row["file"], int(row["block"])): frozenset(row["tags"].split(",")) for row in rows(scope)
    }
    text, unexplained = page(statuses(results), statuses(reference), tags)
    PAGE.write_text(text)
    for file, number in unexplained:
        print(f"{file} {number}: no reason in {REASONS.name}")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
