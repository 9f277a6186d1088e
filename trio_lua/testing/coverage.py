"""Coverage of Lua code by lines: of modules, and of the handlers in an nginx.conf."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trio_lua.api.runtime import Runtime
from trio_lua.config.model import Config
from trio_lua.log.error_log import NullErrorLog

__all__ = ["Coverage", "FileCoverage", "activate", "deactivate", "measured", "watching"]

_LUA = Path(__file__).with_name("coverage.lua")
_PACKAGE = Path(__file__).parent.parent


@dataclass
class FileCoverage:
    """A file.

    Attributes:
        path: Where it is.
        lines: The lines with code, and how often they have run.
    """

    path: Path
    lines: dict[int, int] = field(default_factory=dict)

    @property
    def missed(self) -> list[int]:
        """The lines that have not run."""
        return sorted(line for line, times in self.lines.items() if not times)

    @property
    def percent(self) -> float:
        """How much has run; 100 when there is no code."""
        total = len(self.lines)
        return 100 * (total - len(self.missed)) / total if total else 100.0


class Coverage:
    """What has run in the VMs of a test run.

    Args:
        root: Only files below it count, without specs.
        everything: Whether Lua files count that nobody has loaded.
    """

    def __init__(self, root: Path, *, everything: bool = False) -> None:
        self.root = root.resolve()
        self._files: dict[Path, FileCoverage] = {}
        self._everything = everything

    # -------------------------------------------------------------------- a VM

    @contextlib.contextmanager
    def watching(self, runtime: Runtime) -> Iterator[None]:
        """Watch a VM, until just before it is closed."""
        self._start(runtime)
        try:
            yield
        finally:
            if not runtime.vm.closed:
                runtime.vm.export("cover_stop")()

    def _start(self, runtime: Runtime) -> None:
        vm = runtime.vm
        vm.set_call("cover_source", lambda source, counts: self._take(runtime, source, counts))
        vm.load_file(_LUA)
        vm.export("cover_start")()

    def _take(self, runtime: Runtime, source: bytes, counts: bytes) -> None:
        name = os.fsdecode(source)
        first, code = 1, None
        if name.startswith("@"):
            path = Path(name[1:])
        else:
            name = name.removeprefix("=")
            handler = runtime.inline_code().get(name)
            if handler is None:
                # a handler in a file of its own
                path = Path(runtime.config.prefix, name)
            else:
                path, first = Path(handler.source.file), handler.source.line
                code = (handler.code or "").encode("utf-8", "surrogateescape")
        file = self._file(runtime, path.resolve(), code, first)
        if file is None:
            return
        for pair in counts.decode().split(","):
            line, _, times = pair.partition(":")
            if line and int(line) + first - 1 in file.lines:
                file.lines[int(line) + first - 1] += int(times)

    def _file(
        self, runtime: Runtime, path: Path, code: bytes | None, first: int
    ) -> FileCoverage | None:
        known = self._files.get(path)
        if known is None:
            if not self._counts(path):
                return None
            known = self._files[path] = FileCoverage(path)
        elif code is None:
            return known
        found = runtime.vm.export("cover_lines")(os.fsencode(path), code)
        for line in (found or b"").decode().split(","):
            if line:
                known.lines.setdefault(int(line) + first - 1, 0)
        return known

    def _counts(self, path: Path) -> bool:
        return (
            path.is_relative_to(self.root)
            and not path.is_relative_to(_PACKAGE)
            and not path.name.endswith("_spec.lua")
            and path.is_file()
        )

    # ---------------------------------------------------------- other processes

    def dump(self) -> dict[str, list[list[int]]]:
        """What was measured, as plain values: pairs of a line and how often it ran, by path."""
        return {
            str(path): [[line, times] for line, times in sorted(file.lines.items())]
            for path, file in self._files.items()
        }

    def merge(self, dumped: Mapping[str, Iterable[Sequence[int]]]) -> None:
        """Add what another process has measured."""
        for name, lines in dumped.items():
            path = Path(name)
            known = self._files.setdefault(path, FileCoverage(path)).lines
            for line, times in lines:
                known[line] = known.get(line, 0) + times

    # ------------------------------------------------------------------ reports

    def files(self) -> list[FileCoverage]:
        """The files, by path."""
        if self._everything:
            self._add_unloaded()
        return [self._files[path] for path in sorted(self._files)]

    def _add_unloaded(self) -> None:
        missing = [path for path in self.root.rglob("*.lua") if path not in self._files]
        if missing:
            runtime = Runtime(Config(), clock=lambda: 0.0, sinks=[NullErrorLog()], product="")
            try:
                runtime.vm.set_call("cover_source", lambda _source, _counts: None)
                runtime.vm.load_file(_LUA)
                for path in missing:
                    self._file(runtime, path, None, 1)
            finally:
                runtime.vm.close()

    def table(self) -> Iterator[str]:
        """The report for a terminal."""
        rows = [
            (os.path.relpath(file.path), len(file.lines), file.missed, file.percent)
            for file in self.files()
        ]
        width = max([len("TOTAL"), *(len(row[0]) for row in rows)])
        yield f"{'Name':{width}}  Lines   Miss  Cover  Missing"
        for name, total, missed, percent in rows:
            line = f"{name:{width}} {total:6} {len(missed):6} {int(percent):5}%  {_ranges(missed)}"
            yield line.rstrip()
        total, missing = sum(row[1] for row in rows), sum(len(row[2]) for row in rows)
        whole = 100 * (total - missing) // total if total else 100
        yield f"{'TOTAL':{width}} {total:6} {missing:6} {whole:5}%"

    def lcov(self) -> str:
        """The report in the format of LCOV, which other tools read."""
        parts = []
        for file in self.files():
            parts += ["TN:", f"SF:{os.path.relpath(file.path)}"]
            parts += [f"DA:{line},{times}" for line, times in sorted(file.lines.items())]
            hit = len(file.lines) - len(file.missed)
            parts += [f"LF:{len(file.lines)}", f"LH:{hit}", "end_of_record"]
        return "\n".join([*parts, ""])


def _ranges(lines: Iterable[int]) -> str:
    """``1-3, 7`` for 1, 2, 3, 7."""
    found: list[list[int]] = []
    for line in lines:
        if found and line == found[-1][1] + 1:
            found[-1][1] = line
        else:
            found.append([line, line])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in found)


_active: list[Coverage] = []


def activate(coverage: Coverage) -> None:
    """Let something watch all VMs under test of this process from now on."""
    _active[:] = [coverage]


def deactivate() -> None:
    """Let nothing watch."""
    _active.clear()


def measured() -> bool:
    """Whether something watches."""
    return bool(_active)


def watching(runtime: Runtime) -> contextlib.AbstractContextManager[None]:
    """Watch a VM, if something does."""
    return _active[0].watching(runtime) if _active else contextlib.nullcontext()
